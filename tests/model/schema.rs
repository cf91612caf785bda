//! Tables of a test: what the replica's catalogue says of them, and what clients believe.

use std::collections::BTreeMap;
use std::sync::Arc;

use kelvin::model::catalogue::{Catalogue, Column, ColumnIndex, Index, Table, ZeroType};
use kelvin::model::ids::TableId;
use kelvin::protocol::client_schema::{ClientColumn, ClientSchema, ClientTable};
use kelvin::zql::plan::Keys;

use super::cell::Kind;

/// One table. Columns are named by position.
#[derive(Clone)]
pub struct TableSpec {
    pub name: &'static str,
    pub columns: Vec<(&'static str, Kind, NotNull)>,
    pub row_key: Vec<usize>,
    /// Unique keys by which clients may know the rows, best first.
    pub candidate_keys: Vec<Vec<usize>>,
    /// The key that the client schema names; none: it lacks the table.
    pub client_key: Option<Vec<usize>>,
    pub indexes: Vec<Vec<usize>>,
}

pub type NotNull = bool;

impl TableSpec {
    /// A table that clients know by its first key, which is the replica's too.
    pub fn new(
        name: &'static str,
        columns: Vec<(&'static str, Kind, NotNull)>,
        keys: &[&[usize]],
        indexes: &[&[usize]],
    ) -> TableSpec {
        TableSpec {
            name,
            columns,
            row_key: keys[0].to_vec(),
            candidate_keys: keys.iter().map(|key| key.to_vec()).collect(),
            client_key: Some(keys[0].to_vec()),
            indexes: indexes.iter().map(|index| index.to_vec()).collect(),
        }
    }

    /// Clients know it by this key, or not at all.
    pub fn known_by(mut self, key: Option<&[usize]>) -> TableSpec {
        self.client_key = key.map(<[usize]>::to_vec);
        self
    }

    /// The tables of last mutation ids and of mutation results.
    pub fn of_the_shard() -> [TableSpec; 2] {
        let (text, int) = (Kind::Text, Kind::Int);
        let clients =
            vec![("clientGroupID", text, true), ("clientID", text, true), ("lastMutationID", int, false)];
        let mutations = vec![
            ("clientGroupID", text, true),
            ("clientID", text, true),
            ("mutationID", int, true),
            ("result", Kind::Json, false),
        ];
        let table = |name, columns, key| TableSpec::new(name, columns, &[key], &[]).known_by(None);
        [table("test_0.clients", clients, &[0, 1]), table("test_0.mutations", mutations, &[0, 1, 2])]
    }
}

/// All tables, sorted by name: positions are table ids.
#[derive(Clone)]
pub struct Schema {
    pub specs: Arc<Vec<TableSpec>>,
    pub catalogue: Arc<Catalogue>,
}

impl Schema {
    pub fn new(mut specs: Vec<TableSpec>) -> Schema {
        specs.sort_by_key(|s| s.name);
        let catalogue = Arc::new(Catalogue::new(1, specs.iter().map(table).collect()));
        Schema { specs: Arc::new(specs), catalogue }
    }

    pub fn find(&self, table: &str) -> usize {
        self.specs.iter().position(|s| s.name == table).expect("a table of the test")
    }

    pub fn spec(&self, table: usize) -> &TableSpec {
        &self.specs[table]
    }

    pub fn column(&self, table: usize, name: &str) -> usize {
        self.specs[table].columns.iter().position(|c| c.0 == name).expect("a column of the test")
    }

    /// Columns by which a row is known: to clients, or as the replica knows it best where
    /// they do not know the table.
    pub fn identity(&self, table: usize) -> Vec<usize> {
        let spec = self.spec(table);
        let mut key = spec.client_key.clone().unwrap_or_else(|| spec.candidate_keys[0].clone());
        key.sort_by_key(|c| spec.columns[*c].0);
        key
    }

    pub fn visible(&self, table: usize) -> Vec<usize> {
        let columns = &self.spec(table).columns;
        (0..columns.len()).filter(|c| columns[*c].1 != Kind::Bytes).collect()
    }

    /// The tables that belong to the app: the first ones. The shard's own come after them.
    pub fn of_app(&self) -> usize {
        self.specs.iter().filter(|spec| !spec.name.contains('.')).count()
    }

    /// The same tables as other clients know them: with these keys, or not at all.
    pub fn known_by(&self, keys: Vec<Option<Vec<usize>>>) -> Schema {
        let mut specs = (*self.specs).clone();
        specs.iter_mut().zip(keys).for_each(|(spec, key)| spec.client_key = key);
        Schema { specs: Arc::new(specs), catalogue: self.catalogue.clone() }
    }

    /// The schema that clients send.
    pub fn of_clients(&self) -> ClientSchema {
        let mut tables = BTreeMap::new();
        for (table, spec) in self.specs.iter().enumerate() {
            let Some(key) = &spec.client_key else { continue };
            let columns = self.visible(table).into_iter().map(|c| {
                let kind = zero_type(spec.columns[c].1).expect("visible").name().to_owned();
                (spec.columns[c].0.to_owned(), ClientColumn { kind })
            });
            let primary_key = key.iter().map(|c| spec.columns[*c].0.to_owned()).collect();
            let table = ClientTable { columns: columns.collect(), primary_key };
            tables.insert(spec.name.to_owned(), table);
        }
        ClientSchema { tables }.normalised()
    }
}

impl Keys for Schema {
    fn client_key(&self, table: &Table) -> Option<Vec<ColumnIndex>> {
        let spec = self.spec(table.id.0 as usize);
        spec.client_key.as_ref().map(|key| key.iter().map(|c| *c as ColumnIndex).collect())
    }
}

fn zero_type(kind: Kind) -> Option<ZeroType> {
    Some(match kind {
        Kind::Bool => ZeroType::Boolean,
        Kind::Int | Kind::Real => ZeroType::Number,
        Kind::Text => ZeroType::String,
        Kind::Json => ZeroType::Json,
        Kind::Bytes => return None,
    })
}

fn table(spec: &TableSpec) -> Table {
    let column = |(position, (name, kind, not_null)): (usize, &(&str, Kind, bool))| {
        let (upstream_type, type_oid) = match kind {
            Kind::Bool => ("bool", 16),
            Kind::Int => ("int8", 20),
            Kind::Real => ("float8", 701),
            Kind::Text => ("text", 25),
            Kind::Json => ("jsonb", 3802),
            Kind::Bytes => ("bytea", 17),
        };
        Column {
            name: (*name).to_owned(),
            upstream_type: upstream_type.to_owned(),
            type_oid,
            attnum: position as i16 + 1,
            zero_type: zero_type(*kind),
            not_null: *not_null,
            ..Column::default()
        }
    };
    let positions = |columns: &[usize]| columns.iter().map(|c| *c as ColumnIndex).collect::<Vec<_>>();
    let mut indexes = vec![Index {
        name: format!("{}_pkey", spec.name),
        unique: true,
        columns: spec.row_key.iter().map(|c| (*c as ColumnIndex, false)).collect(),
        ..Index::default()
    }];
    for (n, columns) in spec.indexes.iter().enumerate() {
        let columns = columns.iter().map(|c| (*c as ColumnIndex, false)).collect();
        indexes.push(Index {
            name: format!("{}_{n}", spec.name),
            unique: false,
            columns,
            ..Index::default()
        });
    }
    Table {
        id: TableId(0),
        name: spec.name.to_owned(),
        schema: "public".to_owned(),
        upstream_name: spec.name.to_owned(),
        oid: 1,
        columns: spec.columns.iter().enumerate().map(column).collect(),
        row_key: positions(&spec.row_key),
        candidate_keys: spec.candidate_keys.iter().map(|k| positions(k)).collect(),
        indexes,
        ..Table::default()
    }
}
