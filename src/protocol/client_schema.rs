//! What a client believes the tables to be (`docs/spec/sync-protocol.md` §12).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Tables by server name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientSchema {
    /// Tables by server name.
    pub tables: BTreeMap<String, ClientTable>,
}

/// One table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientTable {
    /// Types by server column name.
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
