//! The client schema against the catalogue (`docs/spec/sync-protocol.md` §12).

use std::collections::HashMap;
use std::rc::{Rc, Weak};

use crate::model::catalogue::{Catalogue, ColumnIndex, Table};
use crate::model::codec;
use crate::model::ids::TableId;
use crate::protocol::client_schema::{ClientSchema, ClientTable};
use crate::protocol::error::{Kind, ProtocolError};
use crate::zql::plan::Keys;

/// Key columns by which a group's clients know their tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientKeys(HashMap<TableId, Vec<ColumnIndex>>);

impl Keys for ClientKeys {
    fn client_key(&self, table: &Table) -> Option<Vec<ColumnIndex>> {
        self.0.get(&table.id).cloned()
    }
}

impl ClientKeys {
    /// Appends what distinguishes these keys for the given tables (rule 11).
    /// By name: the same in every process.
    pub fn write(&self, tables: &[TableId], catalogue: &Catalogue, out: &mut Vec<u8>) {
        for id in tables {
            let table = catalogue.get(*id);
            codec::bytes(table.name.as_bytes(), out);
            match self.0.get(id) {
                None => out.push(0xff),
                Some(key) => {
                    out.push(key.len() as u8);
                    key.iter().for_each(|c| codec::bytes(table.columns[*c as usize].name.as_bytes(), out));
                }
            }
        }
    }
}

/// A client schema and what it stands for.
#[derive(Debug)]
pub struct Resolved {
    /// As clients sent it.
    pub schema: ClientSchema,
    /// How they know the tables.
    pub keys: Rc<ClientKeys>,
    /// Why it does not fit the tables, if it did once and does not any more.
    pub misfit: Option<ProtocolError>,
}

/// Most client schemas that groups share: an app has a few versions in the field.
const MAX_SHARED: usize = 64;

/// Client schemas that groups have: most have the same one.
#[derive(Default)]
pub struct Schemas {
    shared: Vec<Weak<Resolved>>,
    own: Vec<String>,
}

impl Schemas {
    /// Names the upstream schemas of this server's own tables, which concern no client.
    pub fn set_own(&mut self, own: &[&str]) {
        self.own = own.iter().map(|name| (*name).to_owned()).collect();
    }

    /// Checks a client schema.
    pub fn check(&self, schema: &ClientSchema, catalogue: &Catalogue) -> Result<(), ProtocolError> {
        resolve(schema, catalogue, &self.own).map(|_| ())
    }

    /// Resolves a client schema, or finds it.
    pub fn resolve(
        &mut self,
        schema: &ClientSchema,
        catalogue: &Catalogue,
    ) -> Result<Rc<Resolved>, ProtocolError> {
        let resolved = self.restore(schema, catalogue);
        match &resolved.misfit {
            Some(error) => Err(error.clone()),
            None => Ok(resolved),
        }
    }

    /// The tables have changed: everybody resolves theirs again.
    pub fn forget(&mut self) {
        self.shared.clear();
    }

    /// The same of a schema that fitted once.
    pub fn restore(&mut self, schema: &ClientSchema, catalogue: &Catalogue) -> Rc<Resolved> {
        if let Some(found) =
            self.shared.iter().filter_map(Weak::upgrade).find(|known| known.schema == *schema)
        {
            return found;
        }
        let (keys, misfit) = match resolve(schema, catalogue, &self.own) {
            Ok(keys) => (Rc::new(keys), None),
            Err(error) => (Rc::default(), Some(error)),
        };
        let resolved = Rc::new(Resolved { schema: schema.clone(), keys, misfit });
        self.shared.retain(|known| known.strong_count() > 0);
        if self.shared.len() < MAX_SHARED {
            self.shared.push(Rc::downgrade(&resolved));
        }
        resolved
    }
}

/// Resolves a client schema. All problems are told at once, a line each.
fn resolve(
    schema: &ClientSchema,
    catalogue: &Catalogue,
    own: &[String],
) -> Result<ClientKeys, ProtocolError> {
    if catalogue.tables().len() == 0 {
        return Err(ProtocolError::new(Kind::Internal, "no tables are replicated"));
    }
    let mut keys = HashMap::new();
    let mut problems = Vec::new();
    for name in schema.tables.keys() {
        match catalogue.table(name) {
            None => problems.push(missing_table(name)),
            Some(table) if !table.is_syncable() => problems.push(table_without_key(table)),
            Some(_) => {}
        }
    }
    for (name, client) in &schema.tables {
        if let Some(table) = catalogue.table(name).filter(|table| table.is_syncable())
            && let Some(key) = check_table(table, client, &mut problems)
        {
            keys.insert(table.id, key);
        }
    }
    if problems.is_empty() {
        return Ok(ClientKeys(keys));
    }
    // What there is instead is for the log: whoever has found the address of the server can send a schema.
    let of_app = |table: &&Table| table.is_syncable() && !own.contains(&table.schema);
    crate::info!(
        synced = quoted(catalogue.tables().filter(of_app).map(|t| t.name.as_str()));
        "a client schema does not fit the synced tables: {}", problems.join(" ")
    );
    Err(ProtocolError::new(Kind::SchemaVersionNotSupported, problems.join("\n")))
}

fn missing_table(name: &str) -> String {
    let mut text = format!("The table \"{name}\" does not exist upstream or is not replicated.");
    if name.contains('.') {
        text.push_str(
            " Tables outside the schema \"public\" are replicated when a publication with them is named in \
             ZERO_APP_PUBLICATIONS.",
        );
    }
    text
}

fn table_without_key(table: &Table) -> String {
    let key = table.upstream_key().iter().map(|c| &table.columns[*c as usize]);
    let unsupported: Vec<String> = key
        .filter(|c| c.zero_type.is_none())
        .map(|c| format!("\"{}\" ({})", c.name, c.upstream_type))
        .collect();
    let mut text = format!(
        "The table \"{}\" cannot be synced: it needs a primary key or a unique index over NOT NULL columns of \
         supported types.",
        table.name
    );
    if !unsupported.is_empty() {
        text.push_str(&format!(" Columns of its key with other types: {}.", unsupported.join(", ")));
    }
    text
}

fn check_table(table: &Table, client: &ClientTable, problems: &mut Vec<String>) -> Option<Vec<ColumnIndex>> {
    let before = problems.len();
    for name in client.columns.keys() {
        check_known(table, name, problems);
    }
    for (name, column) in &client.columns {
        let known = table.column(name).and_then(|c| table.columns[c as usize].zero_type);
        if let Some(known) = known.filter(|k| k.name() != column.kind) {
            problems.push(format!(
                "The column \"{}\".\"{name}\" is of type \"{}\" upstream, not \"{}\".",
                table.name,
                known.name(),
                column.kind
            ));
        }
    }
    let mut key: Vec<ColumnIndex> = client.primary_key.iter().filter_map(|n| table.column(n)).collect();
    let mut sorted = key.clone();
    sorted.sort_unstable();
    sorted.dedup();
    let is_key = table.candidate_keys.iter().any(|candidate| {
        let mut candidate = candidate.clone();
        candidate.sort_unstable();
        candidate == sorted
    });
    if !is_key || sorted.len() != client.primary_key.len() {
        problems.push(format!(
            "The primary key of the table \"{}\" is <{}> in the client schema, which is not one of its \
             unique keys over NOT NULL columns.",
            table.name,
            client.primary_key.join(",")
        ));
    }
    key.sort_by(|a, b| table.columns[*a as usize].name.cmp(&table.columns[*b as usize].name));
    (problems.len() == before).then_some(key)
}

fn check_known(table: &Table, name: &str, problems: &mut Vec<String>) {
    match table.column(name).map(|c| &table.columns[c as usize]) {
        None => problems.push(format!(
            "The column \"{}\".\"{name}\" does not exist upstream or is not replicated.",
            table.name
        )),
        Some(column) if column.zero_type.is_none() => problems.push(format!(
            "The column \"{}\".\"{name}\" cannot be synced: its type is \"{}\".",
            table.name, column.upstream_type
        )),
        Some(_) => {}
    }
}

fn quoted<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut names: Vec<String> = names.map(|n| format!("\"{n}\"")).collect();
    names.sort();
    names.join(",")
}
