//! Partitions of published tables, whose changes Postgres sends as their roots': what it does not send is that rows
//! came or went with a partition (`docs/spec/schema-changes.md` S22).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokio_postgres::Client;

use super::error::{Doing, Error};
use crate::model::catalogue::{Partition, Table};

/// Partitions of one table, of all levels.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Partitions {
    /// By OID.
    pub all: BTreeMap<u32, Partition>,
    /// Those that may have had rows when they became partitions, or have lost some since.
    pub foreign: BTreeSet<u32>,
}

/// Reads the partitions of some partitioned tables, by the OIDs of these.
pub async fn read(client: &Client, roots: &[u32]) -> Result<HashMap<u32, Partitions>, Error> {
    let mut partitions: HashMap<u32, Partitions> = HashMap::new();
    if roots.is_empty() {
        return Ok(partitions);
    }
    // A column that was inherited when its table was made shows that it was made as a partition: ATTACH writes the columns'
    // rows again. The first file of a table has its number, so one with another file was truncated or rewritten.
    let query = "SELECT root.oid, p.relid::oid, coalesce(pg_relation_filenode(p.relid), 0), i.xmin::text::int8,
                        coalesce((SELECT bool_or(a.attinhcount > 0 AND a.xmin = made.xmin AND a.cmin = made.cmin)
                                    FROM pg_attribute a
                                    JOIN pg_attribute made ON made.attrelid = a.attrelid AND made.attnum = -1
                                   WHERE a.attrelid = p.relid AND a.attnum > 0), false)
                   FROM unnest($1::oid[]) root(oid), LATERAL pg_partition_tree(root.oid) p
                   JOIN pg_inherits i ON i.inhrelid = p.relid
                  WHERE p.relid <> root.oid";
    for row in client.query(query, &[&roots]).await.doing("reading the partitions of published tables")? {
        let of = partitions.entry(row.get(0)).or_default();
        let (oid, file, was_made_so): (u32, u32, bool) = (row.get(1), row.get(2), row.get(4));
        of.all.insert(oid, Partition { file, attached_by: row.get::<_, i64>(3) as u32 });
        if !was_made_so || (file != 0 && file != oid) {
            of.foreign.insert(oid);
        }
    }
    Ok(partitions)
}

/// Why rows of a partitioned table came or went that were not sent, if they may have. `now` is what it has become, with these
/// partitions that may have had rows of their own.
pub fn moved_rows(old: &Table, now: &Table, foreign: &BTreeSet<u32>) -> Option<String> {
    let name = &now.name;
    if old.partitions == now.partitions {
        return None;
    }
    for (oid, was) in &old.partitions {
        match now.partitions.get(oid) {
            Some(is) if is.attached_by == was.attached_by && is.file == was.file => {}
            Some(is) if is.attached_by == was.attached_by => {
                return Some(format!("a partition of table {name} was truncated or rewritten"));
            }
            _ => return Some(format!("a partition of table {name} was dropped or detached")),
        }
    }
    let had_rows =
        now.partitions.keys().any(|oid| !old.partitions.contains_key(oid) && foreign.contains(oid));
    had_rows.then(|| format!("a partition of table {name} was attached"))
}
