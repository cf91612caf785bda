//! Which columns identify a row (`docs/spec/replication.md` §5.4, §5.5).

use crate::model::catalogue::{Column, ColumnIndex, Index};

/// An index as Postgres has it: no expressions, no condition.
#[derive(Debug, Clone)]
pub struct UpstreamIndex {
    /// Name in the replica.
    pub name: String,
    /// Name upstream, without schema.
    pub bare_name: String,
    /// Unique.
    pub unique: bool,
    /// Of the primary key.
    pub primary: bool,
    /// Chosen by REPLICA IDENTITY USING INDEX.
    pub identity: bool,
    /// Enforced at once, not deferrable.
    pub immediate: bool,
    /// Attribute numbers, and whether descending.
    pub columns: Vec<(i16, bool)>,
}

/// What [`choose`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys {
    /// See `Table::row_key`.
    pub row_key: Vec<ColumnIndex>,
    /// See `Table::candidate_keys`.
    pub candidates: Vec<Vec<ColumnIndex>>,
    /// See `Table::indexes`.
    pub indexes: Vec<Index>,
    /// Index that a table without primary key should get as its replica identity.
    pub identity_index: Option<String>,
}

struct Resolved<'a> {
    upstream: &'a UpstreamIndex,
    columns: Vec<(ColumnIndex, bool)>,
}

impl Resolved<'_> {
    fn key(&self) -> Vec<ColumnIndex> {
        self.columns.iter().map(|(c, _)| *c).collect()
    }
}

/// Resolves the indexes against the published columns and picks the keys. `identity` is
/// the table's REPLICA IDENTITY.
pub fn choose(columns: &[Column], indexes: &[UpstreamIndex], identity: char) -> Keys {
    let resolved: Vec<Resolved<'_>> = indexes.iter().filter_map(|index| resolve(columns, index)).collect();
    let not_null = |r: &Resolved<'_>| r.columns.iter().all(|(c, _)| columns[*c as usize].not_null);
    let visible = |r: &Resolved<'_>| r.columns.iter().all(|(c, _)| columns[*c as usize].zero_type.is_some());
    let names = |key: &[ColumnIndex]| -> Vec<&str> {
        key.iter().map(|c| columns[*c as usize].name.as_str()).collect()
    };
    let best_first = |a: &Vec<ColumnIndex>, b: &Vec<ColumnIndex>| {
        a.len().cmp(&b.len()).then_with(|| names(a).cmp(&names(b)))
    };

    let unique = || resolved.iter().filter(|r| r.upstream.unique && not_null(r));
    let mut candidates: Vec<_> = unique().filter(|r| visible(r)).map(Resolved::key).collect();
    candidates.sort_by(best_first);
    candidates.dedup();

    // A deferrable key may be violated within a transaction, so rows cannot be told by it.
    let primary = unique().find(|r| r.upstream.primary && r.upstream.immediate);
    let chosen = unique().find(|r| r.upstream.identity);
    let mut immediate: Vec<&Resolved<'_>> = unique().filter(|r| r.upstream.immediate).collect();
    immediate.sort_by(|a, b| visible(b).cmp(&visible(a)).then_with(|| best_first(&a.key(), &b.key())));
    let fallback = immediate.first().copied();
    let row_key = match identity {
        'i' => chosen.or(fallback),
        // With FULL any key will do; the primary key is what people expect in a log.
        _ => primary.or(fallback),
    };
    let has_primary = indexes.iter().any(|i| i.primary);
    let identity_index = match (identity, has_primary) {
        ('d', false) => fallback.map(|r| r.upstream.bare_name.clone()),
        _ => None,
    };
    Keys {
        row_key: row_key.map(Resolved::key).unwrap_or_default(),
        candidates,
        indexes: resolved
            .iter()
            .map(|r| Index {
                name: r.upstream.name.clone(),
                unique: r.upstream.unique,
                columns: r.columns.clone(),
                ..Index::default()
            })
            .collect(),
        identity_index,
    }
}

fn resolve<'a>(columns: &[Column], index: &'a UpstreamIndex) -> Option<Resolved<'a>> {
    let resolved: Option<Vec<(ColumnIndex, bool)>> = index
        .columns
        .iter()
        .map(|(attnum, descending)| {
            let at = columns.iter().position(|c| c.attnum == *attnum)?;
            Some((at as ColumnIndex, *descending))
        })
        .collect();
    // An index over a column that is not published is not an index of the replica.
    resolved.filter(|c| !c.is_empty()).map(|columns| Resolved { upstream: index, columns })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::catalogue::ZeroType;

    fn column(name: &str, attnum: i16, not_null: bool) -> Column {
        Column {
            name: name.into(),
            upstream_type: "text".into(),
            type_oid: 25,
            attnum,
            zero_type: Some(ZeroType::String),
            not_null,
            ..Column::default()
        }
    }

    fn index(name: &str, columns: &[i16]) -> UpstreamIndex {
        UpstreamIndex {
            name: name.into(),
            bare_name: name.into(),
            unique: true,
            primary: false,
            identity: false,
            immediate: true,
            columns: columns.iter().map(|c| (*c, false)).collect(),
        }
    }

    fn columns() -> Vec<Column> {
        vec![column("id", 1, true), column("a", 3, true), column("b", 4, true), column("n", 5, false)]
    }

    #[test]
    fn the_primary_key_finds_rows_and_the_shortest_key_comes_first_for_clients() {
        let primary = UpstreamIndex { primary: true, ..index("pk", &[3, 4]) };
        let keys = choose(&columns(), &[primary, index("short", &[1]), index("nullable", &[5])], 'd');
        assert_eq!(keys.row_key, [1, 2]);
        assert_eq!(keys.candidates, [vec![0], vec![1, 2]]);
        assert_eq!(keys.identity_index, None);
        assert_eq!(keys.indexes.len(), 3);
    }

    #[test]
    fn a_table_without_primary_key_gets_an_identity() {
        let keys = choose(&columns(), &[index("u", &[4])], 'd');
        assert_eq!(keys.row_key, [2]);
        assert_eq!(keys.identity_index.as_deref(), Some("u"));
        let identity = UpstreamIndex { identity: true, ..index("u", &[4]) };
        let keys = choose(&columns(), &[identity, index("v", &[3])], 'i');
        assert_eq!(keys.row_key, [2]);
        assert_eq!(keys.identity_index, None);
    }

    #[test]
    fn deferrable_and_unpublished_keys_do_not_identify_rows() {
        let deferrable = UpstreamIndex { immediate: false, primary: true, ..index("pk", &[1]) };
        let keys = choose(&columns(), &[deferrable, index("gone", &[9])], 'f');
        assert!(keys.row_key.is_empty());
        assert_eq!(keys.candidates, [vec![0]]);
    }
}
