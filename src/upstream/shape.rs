//! How the rows of a relation, as a connection describes it, become rows of a table (`docs/spec/schema-changes.md` S7).

use super::alignment;
use super::names;
use super::pgoutput::{Field, Relation, RelationColumn, Tuple};
use super::types::{ExactKey, Kind};
use crate::model::catalogue::{ColumnIndex, Table};
use crate::model::ids::TableId;

/// A relation that a connection has described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Its table.
    pub table: TableId,
    /// For each of its columns the place and the type of the value; `None`: it is not stored.
    pub columns: Box<[Option<(ColumnIndex, Kind)>]>,
    /// Columns that are there in the table, and not in the relation: it is of before they came.
    pub lacking: Box<[ColumnIndex]>,
}

impl Shape {
    /// Of a relation that is what the catalogue says. An error says in what it differs.
    pub fn exact(table: &Table, relation: &Relation<'_>) -> Result<Shape, String> {
        let name = format!("{}.{}", relation.schema, relation.name);
        if table.schema != relation.schema || table.upstream_name != relation.name {
            return Err(format!("table {}.{} was renamed to {name}", table.schema, table.upstream_name));
        }
        let published = table.published_columns();
        let ours = || published.iter().map(|c| &table.columns[usize::from(*c)]);
        let stored = || relation.columns.iter().filter(|column| names::is_column(column.name));
        if stored().count() != published.len() {
            return Err(format!(
                "table {name} has {} columns instead of {}",
                stored().count(),
                published.len()
            ));
        }
        for (ours, theirs) in ours().zip(stored()) {
            if ours.name != theirs.name {
                return Err(format!(
                    "table {name} has a column {} in the place of {}",
                    theirs.name, ours.name
                ));
            }
            if ours.type_oid != theirs.type_oid {
                return Err(format!("column {name}.{} has another type", ours.name));
            }
        }
        let kinds = ours().map(Kind::of_column);
        let mut places = published.iter().copied().zip(kinds);
        let place =
            |column: &RelationColumn<'_>| names::is_column(column.name).then(|| places.next()).flatten();
        let columns = relation.columns.iter().map(place).collect();
        let shape = Shape { table: table.id, columns, lacking: Box::from([]) };
        shape.check_key(table, relation)?;
        Ok(shape)
    }

    /// Of a relation as it was on the way to what the catalogue says, where a column may have had another name, may not
    /// have come yet, or not have gone. An error says why its rows cannot be told.
    pub fn former(table: &Table, relation: &Relation<'_>) -> Result<Shape, String> {
        let Some(places) = alignment::places(table, relation) else {
            return Err(format!("columns of table {} cannot be told apart", table.name));
        };
        let place = |at: Option<ColumnIndex>| {
            let at = at?;
            let ours = &table.columns[usize::from(at)];
            (!ours.gone).then(|| (at, Kind::of_column(ours)))
        };
        let columns: Vec<Option<(ColumnIndex, Kind)>> = places.into_iter().map(place).collect();
        let has = |at: &ColumnIndex| columns.iter().flatten().any(|(column, _)| column == at);
        let lacking = table.published_columns().into_iter().filter(|at| !has(at)).collect();
        let shape = Shape { table: table.id, columns: columns.into(), lacking };
        shape.check_key(table, relation)?;
        Ok(shape)
    }

    /// The table has got more columns, or lost some, since the connection described the relation; or it is a copy of the one
    /// that it was, or that copy now.
    pub fn bring_to(&mut self, table: &Table) {
        self.table = table.id;
        let there = table.published_columns();
        for place in &mut self.columns {
            *place = place.filter(|(at, _)| there.contains(at));
        }
        let has = |at: &ColumnIndex| self.columns.iter().flatten().any(|(column, _)| column == at);
        self.lacking = there.into_iter().filter(|at| !has(at)).collect();
    }

    /// What tells a row from others whose key is stored alike; `old`: has the values of the key that did not change and
    /// were not sent.
    pub fn exact_key(&self, table: &Table, row: &Tuple<'_>, old: Option<&Tuple<'_>>) -> String {
        let (key, mut exact) = (table.upstream_key(), ExactKey::default());
        for (position, (field, place)) in row.iter().zip(&self.columns).enumerate() {
            let Some((_, kind)) = place.filter(|(at, _)| key.contains(at)) else { continue };
            let sent = match field {
                Field::Unchanged => old.and_then(|old| old.get(position)),
                field => Some(field),
            };
            match sent {
                Some(Field::Text(text)) => exact.add(kind, text),
                _ => exact.add_nothing(),
            }
        }
        exact.into_text()
    }

    /// FULL flags every column; no identity flags none, and then nothing but inserts comes.
    fn check_key(&self, table: &Table, relation: &Relation<'_>) -> Result<(), String> {
        let flagged = relation.columns.iter().filter(|column| column.key).count();
        let key = table.upstream_key();
        let is_key = |at: &ColumnIndex| key.contains(at);
        let of_key = self.columns.iter().zip(&relation.columns).filter(|(_, column)| column.key);
        let same = flagged == key.len()
            && of_key.into_iter().all(|(place, _)| place.as_ref().is_some_and(|(at, _)| is_key(at)));
        match relation.identity != b'f' && flagged > 0 && !same {
            true => Err(format!("table {} has another primary key or replica identity", table.name)),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::catalogue::{Catalogue, Column, ZeroType};

    fn column(name: &str, type_oid: u32, attnum: i16) -> Column {
        Column {
            name: name.into(),
            upstream_type: "text".into(),
            type_oid,
            attnum,
            zero_type: Some(ZeroType::String),
            ..Column::default()
        }
    }

    fn table(columns: &[(&str, u32, i16)]) -> Table {
        Table {
            name: "t".into(),
            schema: "public".into(),
            upstream_name: "t".into(),
            oid: 7,
            columns: columns.iter().map(|(name, oid, attnum)| column(name, *oid, *attnum)).collect(),
            row_key: vec![0],
            candidate_keys: vec![vec![0]],
            ..Table::default()
        }
    }

    fn relation<'a>(name: &'a str, columns: &[(&'a str, u32, bool)]) -> Relation<'a> {
        let column = |(name, type_oid, key): &(&'a str, u32, bool)| RelationColumn {
            key: *key,
            name,
            type_oid: *type_oid,
        };
        Relation {
            oid: 7,
            schema: "public",
            name,
            identity: b'd',
            columns: columns.iter().map(column).collect(),
        }
    }

    #[test]
    fn every_change_of_a_relation_is_noticed() {
        let table = table(&[("id", 25, 1), ("n", 23, 2)]);
        let same = [("id", 25, true), ("n", 23, false)];
        assert!(Shape::exact(&table, &relation("t", &same)).is_ok());
        for changed in [
            relation("u", &same),
            relation("t", &same[..1]),
            relation("t", &[("id", 25, true), ("m", 23, false)]),
            relation("t", &[("id", 25, true), ("n", 20, false)]),
            relation("t", &[("id", 25, false), ("n", 23, true)]),
            relation("t", &[("id", 25, true), ("n", 23, true)]),
        ] {
            assert!(Shape::exact(&table, &changed).is_err(), "{changed:?}");
        }
    }

    #[test]
    fn rows_on_the_way_to_another_table_find_their_columns() {
        let first =
            Catalogue::new(1, vec![table(&[("id", 25, 1), ("old", 25, 2), ("same", 25, 3), ("a", 25, 4)])]);
        // `old` is replaced by `new`, `a` is `b` now.
        let next = table(&[("id", 25, 1), ("same", 25, 3), ("b", 25, 4), ("new", 25, 5)]);
        let second = first.followed_by(2, vec![next], &|_, _| None).unwrap();
        let table = second.table("t").unwrap();
        let places = |columns: &[(&str, u32, bool)]| {
            let shape = Shape::former(table, &relation("t", columns)).unwrap();
            (
                shape.columns.iter().map(|place| place.map(|(at, _)| at)).collect::<Vec<_>>(),
                shape.lacking.to_vec(),
            )
        };
        let id = ("id", 25, true);
        let text = |name| (name, 25, false);
        let before = [id, text("old"), text("same"), text("a")];
        assert_eq!(places(&before), (vec![Some(0), None, Some(2), Some(3)], vec![4]));
        let between = [id, text("old"), text("same"), text("a"), text("new")];
        assert_eq!(places(&between), (vec![Some(0), None, Some(2), Some(3), Some(4)], vec![]));
        let under_other_names = [id, text("older"), text("same"), text("x"), text("y")];
        assert_eq!(places(&under_other_names), (vec![Some(0), None, Some(2), Some(3), Some(4)], vec![]));
        let after = [id, text("same"), text("b"), text("new")];
        assert_eq!(places(&after), (vec![Some(0), Some(2), Some(3), Some(4)], vec![]));
        assert!(Shape::exact(table, &relation("t", &after)).is_ok());
        let other_type = [id, ("same", 23, false), text("b")];
        assert!(Shape::former(table, &relation("t", &other_type)).is_err(), "another type");
        let left_out = [id, text("same"), text("a name"), text("b"), text("new")];
        let shape = Shape::exact(table, &relation("t", &left_out)).unwrap();
        assert_eq!(
            shape.columns.iter().map(Option::is_some).collect::<Vec<_>>(),
            [true, true, false, true, true]
        );
        let other_key = [("id", 25, false), ("same", 25, true), text("b")];
        assert!(Shape::former(table, &relation("t", &other_key)).is_err(), "another key");
    }
}
