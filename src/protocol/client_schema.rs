//! What a client believes the tables to be (`docs/spec/sync-protocol.md` §12).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::list::map_at_most;

/// Most tables of a schema. An app has tens, rarely hundreds.
pub const MAX_TABLES: usize = 10_000;

/// Most columns of a table. Postgres takes 1,600 at most.
pub const MAX_COLUMNS: usize = 1_600;

/// Tables by server name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientSchema {
    /// Tables by server name.
    #[serde(deserialize_with = "map_at_most::<_, MAX_TABLES, _>")]
    pub tables: BTreeMap<String, ClientTable>,
}

/// One table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientTable {
    /// Types by server column name.
    #[serde(deserialize_with = "map_at_most::<_, MAX_COLUMNS, _>")]
    pub columns: BTreeMap<String, ClientColumn>,
    /// Key columns; sorted by name, as clients normalise it.
    #[serde(rename = "primaryKey")]
    pub primary_key: Vec<String>,
}

/// One column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientColumn {
    /// `string`, `number`, `boolean`, `null` or `json`.
    #[serde(rename = "type")]
    pub kind: String,
}

impl ClientSchema {
    /// The same with every primary key sorted.
    pub fn normalised(mut self) -> ClientSchema {
        for table in self.tables.values_mut() {
            table.primary_key.sort();
        }
        self
    }
}
