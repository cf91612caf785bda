//! Columns of published tables as Postgres knows them, and what is not kept of them.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use tokio_postgres::{Client, Row};

use super::error::{Doing, Error};
use super::types::{Kind, TypeFacts, convert, zero_type};
use crate::model::catalogue::{Column, quote};
use crate::model::value::Value;

/// `int2vector` and `oidvector`: they look like arrays in the system catalogue and print
/// otherwise.
const NOT_ARRAYS: &str = "22, 30";

/// Postgres lists generated columns in `pg_publication_tables` without publishing them,
/// up to this version. From there on it lists exactly those that it publishes.
const GENERATED_PUBLISHED_SINCE: i32 = 180_000;

/// The constraint by which a column says that it is never null, if rows of before were not looked at: they may be.
const NOT_VALID: &str = "SELECT 1 FROM pg_constraint v
                          WHERE v.conrelid = a.attrelid AND v.contype = 'n' AND NOT v.convalidated
                            AND v.conkey[1] = a.attnum";

/// A column.
#[derive(Debug, Clone)]
pub struct Attribute {
    /// Its form in the catalogue.
    pub column: Column,
    /// Output function of its type, quoted.
    pub output: String,
    /// What rows have in it that were there before it.
    pub added: Added,
    /// Whether its values come from the others.
    pub generated: Generated,
}

/// How values of a column come about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generated {
    /// They are written.
    No,
    /// Computed and kept; COPY refuses to name the column.
    Stored,
    /// Computed when they are asked for: never published, and in no row.
    Virtual,
}

impl Generated {
    /// From `pg_attribute.attgenerated`.
    fn of(attgenerated: &str) -> Generated {
        match attgenerated {
            "" => Generated::No,
            "v" => Generated::Virtual,
            _ => Generated::Stored,
        }
    }
}

/// What rows have in a column that were there before it was added.
#[derive(Debug, Clone, PartialEq)]
pub enum Added {
    /// This: Postgres keeps it with the column.
    With(Value),
    /// Nothing, if the table was not rewritten since.
    Empty,
    /// Each what it was given, so that nobody can tell without looking at all of them.
    Filled,
}

/// Reads the columns of some tables, by the OIDs of these, in the order of their numbers.
pub async fn read(client: &Client, oids: &[u32], server: i32) -> Result<HashMap<u32, Vec<Attribute>>, Error> {
    let query = format!(
        "SELECT a.attrelid, a.attnum, a.attname::text, a.atttypid, t.typname::text, t.typtype::text,
                tn.nspname = 'pg_catalog',
                t.typtype = 'b' AND t.typlen = -1 AND t.typelem <> 0 AND t.oid NOT IN ({NOT_ARRAYS})
                    AND t.typsubscript = 'pg_catalog.array_subscript_handler'::regproc,
                e.typname::text, a.attndims::int4, a.attnotnull AND NOT EXISTS ({NOT_VALID}),
                a.attgenerated::text,
                fn.nspname::text, f.proname::text, a.xmin::text::int8,
                a.atthasdef OR a.attidentity <> '' OR t.typtype = 'd',
                CASE WHEN a.atthasmissing THEN (a.attmissingval::text::text[])[1] END,
                CASE WHEN t.typtype = 'e' THEN t.oid WHEN e.typtype = 'e' THEN e.oid END,
                ascii(e.typdelim::text)
           FROM pg_attribute a
           JOIN pg_type t ON t.oid = a.atttypid
           JOIN pg_namespace tn ON tn.oid = t.typnamespace
           JOIN pg_proc f ON f.oid = t.typoutput
           JOIN pg_namespace fn ON fn.oid = f.pronamespace
           LEFT JOIN pg_type e ON e.oid = t.typelem
          WHERE a.attrelid = ANY($1) AND a.attnum > 0 AND NOT a.attisdropped
          ORDER BY a.attrelid, a.attnum"
    );
    let rows = client.query(&query, &[&oids]).await.doing("reading the published columns")?;
    let enums: Vec<u32> = rows.iter().filter_map(|row| row.get(17)).collect();
    let labels = labels(client, &enums).await?;
    let mut columns: HashMap<u32, Vec<Attribute>> = HashMap::new();
    for row in &rows {
        let generated = Generated::of(row.get(11));
        if generated == Generated::No || server >= GENERATED_PUBLISHED_SINCE {
            columns.entry(row.get(0)).or_default().push(attribute(row, &labels));
        }
    }
    Ok(columns)
}

/// Labels of enums by the OIDs of these, and by their own.
type Labels = HashMap<u32, BTreeMap<u32, String>>;

async fn labels(client: &Client, enums: &[u32]) -> Result<Labels, Error> {
    let mut labels = Labels::new();
    if enums.is_empty() {
        return Ok(labels);
    }
    let query = "SELECT enumtypid, oid, enumlabel::text FROM pg_enum WHERE enumtypid = ANY($1)";
    for row in client.query(query, &[&enums]).await.doing("reading the labels of enums")? {
        labels.entry(row.get(0)).or_default().insert(row.get(1), row.get(2));
    }
    Ok(labels)
}

fn attribute(row: &Row, labels: &Labels) -> Attribute {
    let array: bool = row.get(7);
    let name: String = row.get(4);
    let element: Option<String> = row.get(8);
    let dimensions = row.get::<_, i32>(9).max(1) as usize;
    let class = row.get::<_, &str>(5).chars().next().unwrap_or(' ');
    let facts = TypeFacts { name: &name, class, built_in: row.get(6), array };
    let upstream_type = match (array, element) {
        (true, Some(element)) => element + &"[]".repeat(dimensions),
        _ => name.clone(),
    };
    let type_oid: u32 = row.get(3);
    let generated = Generated::of(row.get(11));
    let is_filled = generated != Generated::No || row.get(15);
    let delimiter = row.get::<_, Option<i32>>(18).filter(|_| array).and_then(|c| u8::try_from(c).ok());
    let column = Column {
        name: row.get(2),
        upstream_type,
        delimiter: delimiter.filter(|c| *c != b','),
        type_oid,
        attnum: row.get(1),
        zero_type: zero_type(facts),
        not_null: row.get(10),
        defined_by: row.get::<_, i64>(14) as u32,
        labels: row.get::<_, Option<u32>>(17).and_then(|oid| labels.get(&oid).cloned()).unwrap_or_default(),
        ..Column::default()
    };
    let added = match row.get::<_, Option<&str>>(16) {
        Some(text) => match convert(Kind::of_column(&column), Cow::Borrowed(text)) {
            Ok(value) if !matches!(value.clone().into_value(), Value::Blob(_)) => {
                Added::With(value.into_value())
            }
            _ => Added::Filled,
        },
        None if is_filled => Added::Filled,
        None => Added::Empty,
    };
    let output = format!("{}.{}", quote(row.get(12)), quote(row.get(13)));
    Attribute { column, output, added, generated }
}
