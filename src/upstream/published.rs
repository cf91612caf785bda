//! What upstream publishes, as a catalogue (`docs/spec/replication.md` §5).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokio_postgres::Client;

use super::attributes::{self, Added, Attribute, Generated};
use super::error::{Doing, Error};
use super::keys::{self, UpstreamIndex};
use super::names;
use super::partitions::{self, Partitions};
use super::types::{Kind, is_lossy};
use crate::model::catalogue::{Catalogue, Column, ColumnIndex, MAX_TABLES, Table, quote};
use crate::model::ids::TableId;

/// A table, and what the catalogue does not keep of it.
#[derive(Debug, Clone, PartialEq)]
pub struct PublishedTable {
    /// Its form in the catalogue.
    pub table: Table,
    /// Root of a partitioned table: rows are in its children.
    pub partitioned: bool,
    /// `REPLICA IDENTITY`: d, f, i or n.
    pub identity: char,
    /// Unique index that could be made the replica identity of a table without key.
    pub identity_index: Option<String>,
    /// For each column of upstream's the output function of its type, quoted.
    pub outputs: Vec<String>,
    /// For each column what rows have in it that were there before it.
    pub added: Vec<Added>,
    /// Some columns are generated: they can be read by SELECT alone.
    pub generated: bool,
    /// Partitions that may have had rows of their own when they came.
    pub foreign_partitions: BTreeSet<u32>,
}

/// Everything that is published.
#[derive(Debug, Clone, PartialEq)]
pub struct Published {
    /// Ordered by name.
    pub tables: Vec<PublishedTable>,
    /// What an operator should know; nothing here stops replication.
    pub warnings: Vec<String>,
}

impl Published {
    /// As the catalogue of a new lineage.
    pub fn catalogue(&self, epoch: u64) -> Catalogue {
        Catalogue::new(epoch, self.tables())
    }

    /// As what a catalogue has become, in the next epoch. `rows_lost` says why the rows of a table, the first, cannot be kept
    /// when it becomes the second, if they cannot. `None`: too many tables have come and gone.
    pub fn following(
        &self,
        catalogue: &Catalogue,
        rows_lost: &dyn Fn(&Table, &Table, &PublishedTable) -> Option<String>,
    ) -> Option<Catalogue> {
        let mut tables = self.tables();
        for (table, published) in tables.iter_mut().zip(&self.tables) {
            for (column, added) in table.columns.iter_mut().zip(&published.added) {
                if let Added::With(value) = added {
                    column.missing = value.clone();
                }
            }
        }
        let by_oid: HashMap<u32, &PublishedTable> = self.tables.iter().map(|of| (of.table.oid, of)).collect();
        let lost = |old: &Table, now: &Table| by_oid.get(&now.oid).and_then(|of| rows_lost(old, now, of));
        catalogue.followed_by(catalogue.epoch + 1, tables, &lost)
    }

    fn tables(&self) -> Vec<Table> {
        self.tables.iter().map(|published| published.table.clone()).collect()
    }
}

/// How long the lock is waited for that setting a replica identity takes, in milliseconds.
const IDENTITY_LOCK_MS: u32 = 500;

struct Relation {
    oid: u32,
    schema: String,
    name: String,
    kind: char,
    identity: char,
    columns: Vec<String>,
    row_filter: Option<String>,
    /// File of its rows; zero, if they are in partitions.
    file: u32,
    attributes: i16,
    partitions: Partitions,
}

/// Reads the published schema as the session sees it: now, or in an imported snapshot.
pub async fn read(client: &Client, publications: &[String], server: i32) -> Result<Published, Error> {
    check_publications(client, publications).await?;
    let relations = relations(client, publications).await?;
    if relations.len() > MAX_TABLES {
        let published = relations.len();
        return Err(Error::Setup(format!("{published} tables are published; at most {MAX_TABLES} can be")));
    }
    let oids: Vec<u32> = relations.iter().map(|r| r.oid).collect();
    let roots: Vec<u32> = relations.iter().filter(|r| r.kind == 'p').map(|r| r.oid).collect();
    let mut partitions = partitions::read(client, &roots).await?;
    let mut columns = attributes::read(client, &oids, server).await?;
    let mut indexes = indexes(client, &oids).await?;
    let mut warnings = Vec::new();
    let mut tables = Vec::with_capacity(relations.len());
    for mut relation in relations {
        relation.partitions = partitions.remove(&relation.oid).unwrap_or_default();
        let columns = columns.remove(&relation.oid).unwrap_or_default();
        let indexes = indexes.remove(&relation.oid).unwrap_or_default();
        tables.extend(table(relation, columns, indexes, &mut warnings));
    }
    tables.sort_by(|a, b| a.table.name.cmp(&b.table.name));
    Ok(Published { tables, warnings })
}

async fn check_publications(client: &Client, publications: &[String]) -> Result<(), Error> {
    let rows = client
        .query(
            "SELECT pubname::text, pubinsert AND pubupdate AND pubdelete AND pubtruncate
               FROM pg_publication WHERE pubname = ANY($1)",
            &[&publications],
        )
        .await
        .doing("reading the publications")?;
    let found: HashMap<String, bool> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    for name in publications {
        match found.get(name) {
            None => {
                return Err(Error::Setup(format!(
                    "publication {name} does not exist any more. Create it again, or restart with other \
                     ZERO_APP_PUBLICATIONS"
                )));
            }
            Some(false) => {
                return Err(Error::Setup(format!(
                    "publication {name} does not publish everything. Run ALTER PUBLICATION {} SET (publish \
                     = 'insert, update, delete, truncate')",
                    quote(name)
                )));
            }
            Some(true) => {}
        }
    }
    Ok(())
}

async fn relations(client: &Client, publications: &[String]) -> Result<Vec<Relation>, Error> {
    let rows = client
        .query(
            "SELECT pt.pubname::text, c.oid, pt.schemaname::text, pt.tablename::text, c.relkind::text,
                    c.relreplident::text, pt.attnames::text[], pt.rowfilter,
                    coalesce(pg_relation_filenode(c.oid), 0), c.relnatts
               FROM pg_publication_tables pt
               JOIN pg_namespace n ON n.nspname = pt.schemaname
               JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = pt.tablename
              WHERE pt.pubname = ANY($1)
              ORDER BY pt.schemaname, pt.tablename, pt.pubname",
            &[&publications],
        )
        .await
        .doing("reading the published tables")?;
    let mut relations: BTreeMap<u32, (Relation, bool)> = BTreeMap::new();
    for row in &rows {
        let mut columns: Vec<String> = row.get::<_, Option<Vec<String>>>(6).unwrap_or_default();
        columns.sort();
        let filter: Option<String> = row.get(7);
        let relation = Relation {
            oid: row.get(1),
            schema: row.get(2),
            name: row.get(3),
            kind: first_char(row.get(4)),
            identity: first_char(row.get(5)),
            columns,
            row_filter: filter,
            file: row.get(8),
            attributes: row.get(9),
            partitions: Partitions::default(),
        };
        merge(&mut relations, relation)?;
    }
    Ok(relations.into_values().map(|(relation, _)| relation).collect())
}

fn first_char(text: &str) -> char {
    text.chars().next().unwrap_or(' ')
}

/// Unites what several publications say about one table: columns must be the same, and
/// one publication without a filter makes every row published.
fn merge(relations: &mut BTreeMap<u32, (Relation, bool)>, next: Relation) -> Result<(), Error> {
    let unfiltered = next.row_filter.is_none();
    match relations.get_mut(&next.oid) {
        None => {
            relations.insert(next.oid, (next, unfiltered));
            Ok(())
        }
        Some((known, _)) if known.columns != next.columns => Err(Error::Setup(format!(
            "table {}.{} is published with different columns by different publications. Give it the same \
             column list in each",
            next.schema, next.name
        ))),
        Some((known, all)) => {
            *all |= unfiltered;
            known.row_filter = match (*all, known.row_filter.take(), next.row_filter) {
                (true, _, _) => None,
                (false, Some(a), Some(b)) => Some(format!("({a}) OR ({b})")),
                (false, a, b) => a.or(b),
            };
            Ok(())
        }
    }
}

async fn indexes(client: &Client, oids: &[u32]) -> Result<HashMap<u32, Vec<UpstreamIndex>>, Error> {
    // Other access methods answer questions that SQLite's indexes cannot. But what is unique by one is a key that ends
    // WITHOUT OVERLAPS: no two rows have the same values in it.
    let rows = client
        .query(
            "SELECT i.indrelid, n.nspname::text, ic.relname::text, i.indisunique, i.indisprimary,
                    i.indisreplident, i.indimmediate, i.indkey::text, i.indoption::text,
                    i.indnkeyatts::int4
               FROM pg_index i
               JOIN pg_class ic ON ic.oid = i.indexrelid
               JOIN pg_namespace n ON n.oid = ic.relnamespace
               JOIN pg_am am ON am.oid = ic.relam
              WHERE i.indrelid = ANY($1) AND i.indpred IS NULL AND i.indexprs IS NULL AND i.indisvalid
                AND (am.amname IN ('btree', 'hash') OR i.indisunique)
                AND NOT EXISTS (SELECT 1 FROM pg_constraint x
                                 WHERE x.conindid = i.indexrelid AND x.contype = 'x')
              ORDER BY i.indrelid, n.nspname, ic.relname",
            &[&oids],
        )
        .await
        .doing("reading the indexes of the published tables")?;
    let mut indexes: HashMap<u32, Vec<UpstreamIndex>> = HashMap::new();
    for row in &rows {
        let numbers = |text: &str| -> Vec<i16> { text.split(' ').filter_map(|n| n.parse().ok()).collect() };
        let keys = row.get::<_, i32>(9).max(0) as usize;
        let descending = numbers(row.get(8)).into_iter().map(|option| option & 1 == 1);
        let columns =
            numbers(row.get(7)).into_iter().take(keys).zip(descending.chain(std::iter::repeat(false)));
        indexes.entry(row.get(0)).or_default().push(UpstreamIndex {
            name: names::in_replica(row.get(1), row.get(2)),
            bare_name: row.get(2),
            unique: row.get(3),
            primary: row.get(4),
            identity: row.get(5),
            immediate: row.get(6),
            columns: columns.collect(),
        });
    }
    Ok(indexes)
}

fn table(
    relation: Relation,
    attributes: Vec<Attribute>,
    indexes: Vec<UpstreamIndex>,
    warnings: &mut Vec<String>,
) -> Option<PublishedTable> {
    let qualified = format!("{}.{}", relation.schema, relation.name);
    if let Some(why) = unusable(&relation, &attributes, &indexes) {
        warnings.push(format!("table {qualified} is left out: {why}"));
        return None;
    }
    // What rows never have in them does not count among what was there before a column came.
    let absent = attributes.iter().filter(|a| a.generated == Generated::Virtual).count() as i16;
    let published = |a: &Attribute| relation.columns.binary_search(&a.column.name).is_ok();
    let (mut columns, mut outputs, mut added, mut generated) = (Vec::new(), Vec::new(), Vec::new(), false);
    for attribute in attributes.into_iter().filter(published) {
        let (name, attnum) = (&attribute.column.name, attribute.column.attnum);
        if !names::is_column(name) {
            let is_key = |index: &UpstreamIndex| {
                (index.primary || index.identity) && index.columns.iter().any(|(column, _)| *column == attnum)
            };
            let what = if indexes.iter().any(is_key) { "of its key " } else { "" };
            warnings.push(format!(
                "column {name:?} {what}of table {qualified} is left out{}: clients can name columns that begin with a \
                 letter or _, hold letters, digits, _, - and ., and are not {}",
                if what.is_empty() { "" } else { ", and the table with it" },
                names::ROW_VERSION
            ));
            match what {
                "" => continue,
                _ => return None,
            }
        }
        columns.push(attribute.column);
        outputs.push(attribute.output);
        added.push(attribute.added);
        generated |= attribute.generated != Generated::No;
    }
    let hidden = columns.iter().filter(|column| column.zero_type.is_none());
    warnings.extend(hidden.map(|column| {
        format!(
            "column {qualified}.{} has the type {}, which clients cannot hold; it is replicated and not synced",
            column.name, column.upstream_type
        )
    }));
    let mut keys = keys::choose(&columns, &indexes, relation.identity);
    if keys.row_key.is_empty() {
        warnings.push(format!(
            "table {qualified} has no primary key and no unique index of NOT NULL columns; it is not \
             synced to clients"
        ));
    }
    tell_apart(&mut keys.row_key, &mut columns);
    let table = Table {
        id: TableId(0),
        name: names::in_replica(&relation.schema, &relation.name),
        schema: relation.schema,
        upstream_name: relation.name,
        oid: relation.oid,
        columns,
        row_key: keys.row_key,
        candidate_keys: keys.candidates,
        indexes: keys.indexes,
        row_filter: relation.row_filter,
        file: relation.file,
        attributes: relation.attributes - absent,
        partitions: relation.partitions.all,
        ..Table::default()
    };
    Some(PublishedTable {
        table,
        partitioned: relation.kind == 'p',
        identity: relation.identity,
        identity_index: keys.identity_index,
        outputs,
        added,
        generated,
        foreign_partitions: relation.partitions.foreign,
    })
}

/// Adds a column to a key of which different values may be stored alike (`docs/spec/replication.md` §7.4).
fn tell_apart(row_key: &mut Vec<ColumnIndex>, columns: &mut Vec<Column>) {
    if row_key.iter().any(|c| is_lossy(Kind::of_column(&columns[usize::from(*c)]))) {
        row_key.push(columns.len() as ColumnIndex);
        columns.push(Column::exact_key());
    }
}

/// Why a table is not replicated, if it is not.
fn unusable(relation: &Relation, attributes: &[Attribute], indexes: &[UpstreamIndex]) -> Option<String> {
    if relation.identity == 'n' {
        return Some(format!(
            "it has REPLICA IDENTITY NOTHING, so the app cannot change its rows while it is published. Run ALTER TABLE \
             {}.{} REPLICA IDENTITY DEFAULT",
            quote(&relation.schema),
            quote(&relation.name)
        ));
    }
    if let Some(why) = unusable_identity(relation.identity, attributes, indexes) {
        return Some(why);
    }
    let is_named = names::is_table(&relation.schema, &relation.name);
    (!is_named).then(|| {
        "clients can name tables that begin with a letter or _, hold letters, digits, _ and -, and do not begin with \
         sqlite_"
            .to_owned()
    })
}

/// Why rows cannot be told by what Postgres sends of a row that goes, if they cannot: rows that nobody finds would stay.
fn unusable_identity(identity: char, attributes: &[Attribute], indexes: &[UpstreamIndex]) -> Option<String> {
    let is_sent = |index: &&UpstreamIndex| match identity {
        'd' => index.primary && index.immediate,
        'i' => index.identity,
        _ => false,
    };
    let index = indexes.iter().find(is_sent)?;
    let column = |attnum: i16| attributes.iter().map(|a| &a.column).find(|c| c.attnum == attnum);
    for (attnum, _) in &index.columns {
        match column(*attnum) {
            // What is not published at all the app cannot change rows without.
            Some(column) if column.not_null => {}
            Some(column) => {
                return Some(format!(
                    "its replica identity {} has the column {}, which may hold nulls of before its NOT NULL. Run ALTER \
                     TABLE … VALIDATE CONSTRAINT with the name of that constraint",
                    index.bare_name, column.name
                ));
            }
            None => {
                return Some(format!(
                    "its key {} has a generated column, and Postgres publishes those since version 18. Give it another \
                     key, or ALTER TABLE … REPLICA IDENTITY FULL",
                    index.bare_name
                ));
            }
        }
    }
    None
}

/// Gives tables without primary key the replica identity that lets the app update them
/// (`docs/spec/replication.md` §5.4), but for those of which it `is_known` that it cannot be done. Returns what could not
/// be done, as warnings, with the OIDs of the tables.
pub async fn fix_identities(
    client: &Client,
    published: &Published,
    is_known: impl Fn(u32) -> bool,
) -> Vec<(u32, String)> {
    let mut warnings = Vec::new();
    for published in published.tables.iter().filter(|published| !is_known(published.table.oid)) {
        let Some(index) = &published.identity_index else { continue };
        let table = format!("{}.{}", quote(&published.table.schema), quote(&published.table.upstream_name));
        let alter = format!("ALTER TABLE {table} REPLICA IDENTITY USING INDEX {}", quote(index));
        // Whoever waits for the table's lock makes everybody wait who comes after it.
        let patient = format!("BEGIN; SET LOCAL lock_timeout = '{IDENTITY_LOCK_MS}ms'; {alter}; COMMIT");
        if let Err(e) = client.batch_execute(&patient).await {
            let _ = client.batch_execute("ROLLBACK").await;
            let e = kelvin_io::postgres::Error::from(e);
            let warning = format!(
                "table {table} has no primary key, so the app cannot update it while it is published; \
                 setting its replica identity failed: {e}. Run: {alter}"
            );
            warnings.push((published.table.oid, warning));
        }
    }
    warnings
}
