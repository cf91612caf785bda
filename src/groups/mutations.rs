//! Last mutation ids and mutation results: rows that the app's backend writes and that
//! clients of one group are told of, in the poke of the commit that wrote them
//! (`docs/spec/view-syncer.md` §5.10, §9).

use super::group::Group;
use crate::model::batch::{Change, TableBatch};
use crate::model::catalogue::{Catalogue, ColumnIndex, Table, quote};
use crate::model::commit::Row;
use crate::model::ids::TableId;
use crate::model::value::Value;
use crate::protocol::mutation_result::{result_del, result_put};
use crate::replica::reader::{ReadError, Reader};

/// Where the shard keeps them.
#[derive(Debug, Clone)]
pub struct MutationTables {
    clients: TableId,
    clients_columns: [ColumnIndex; 3],
    mutations: TableId,
    mutations_columns: [ColumnIndex; 4],
    clients_sql: String,
    mutations_sql: String,
}

impl MutationTables {
    /// Finds the tables of a shard, `schema` being `{app}_{shard}`. `None`: not replicated.
    pub fn find(catalogue: &Catalogue, schema: &str) -> Option<MutationTables> {
        let clients = catalogue.table(&format!("{schema}.clients"))?;
        let mutations = catalogue.table(&format!("{schema}.mutations"))?;
        let clients_columns = columns(clients, ["clientGroupID", "clientID", "lastMutationID"])?;
        let mutations_columns = columns(mutations, ["clientGroupID", "clientID", "mutationID", "result"])?;
        Some(MutationTables {
            clients: clients.id,
            clients_columns,
            mutations: mutations.id,
            mutations_columns,
            clients_sql: format!(
                "SELECT \"clientID\",\"lastMutationID\" FROM {} WHERE \"clientGroupID\"=?",
                quote(&clients.stored_name)
            ),
            mutations_sql: format!(
                "SELECT \"clientID\",\"mutationID\",\"result\" FROM {} WHERE \"clientGroupID\"=?",
                quote(&mutations.stored_name)
            ),
        })
    }

    /// Whether a table is one of them.
    pub fn contains(&self, table: TableId) -> bool {
        table == self.clients || table == self.mutations
    }

    /// Group that a changed row belongs to.
    pub fn group_of<'r>(&self, table: TableId, change: &Change<'r>) -> Option<&'r str> {
        let column = if table == self.clients { self.clients_columns[0] } else { self.mutations_columns[0] };
        text(change.new.or(change.old)?, column)
    }

    /// Tells a group of a changed row of its own.
    pub fn apply(&self, table: TableId, change: &Change, group: &mut Group) {
        if table == self.clients {
            // Deletions are ignored: a last mutation id never goes back.
            if let Some(row) = change.new
                && let Some(client) = text(row, self.clients_columns[1])
            {
                note_lmid(group, client, integer(row, self.clients_columns[2]));
            }
            return;
        }
        let Some(row) = change.new.or(change.old) else { return };
        let [_, client, id, result] = self.mutations_columns;
        let Some(client) = text(row, client) else { return };
        let id = integer(row, id);
        match change.new.and_then(|row| text(row, result)) {
            Some(json) => note_result(group, client, id, json),
            None => forget_result(group, client, id),
        }
    }

    /// Reads everything of a group at the reader's snapshot, and tells it what it did not
    /// know.
    pub fn attach(&self, reader: &Reader, group: &mut Group) -> Result<(), ReadError> {
        let mut lmids = Vec::new();
        let mut results = Vec::new();
        {
            let mut statement = reader.prepare(&self.clients_sql)?;
            let mut rows = statement.query([&*group.id])?;
            while let Some(row) = rows.next()? {
                lmids.push((row.get::<_, String>(0)?, row.get::<_, i64>(1)?.max(0) as u64));
            }
            let mut statement = reader.prepare(&self.mutations_sql)?;
            let mut rows = statement.query([&*group.id])?;
            while let Some(row) = rows.next()? {
                let id = row.get::<_, i64>(1)?.max(0) as u64;
                results.push((row.get::<_, String>(0)?, id, row.get::<_, String>(2)?));
            }
        }
        for (client, id) in lmids {
            note_lmid(group, &client, id);
        }
        let gone: Vec<(String, u64)> = group
            .results
            .keys()
            .filter(|(c, i)| !results.iter().any(|(client, id, _)| client == c && id == i))
            .cloned()
            .collect();
        for (client, id) in gone {
            forget_result(group, &client, id);
        }
        for (client, id, json) in results {
            if group.results.get(&(client.clone(), id)) != Some(&json) {
                note_result(group, &client, id, &json);
            }
        }
        group.attached = true;
        Ok(())
    }

    /// Whether the batch says that it cannot list the changes of one of the tables.
    pub fn is_bulk(&self, table: TableId, batch: &TableBatch) -> bool {
        self.contains(table) && matches!(batch, TableBatch::Bulk)
    }
}

fn note_lmid(group: &mut Group, client: &str, id: u64) {
    let known = group.lmids.get(client).copied().unwrap_or(0);
    if id > known {
        group.lmids.insert(client.to_owned(), id);
        group.pending_lmids.insert(client.to_owned(), id);
    }
}

fn note_result(group: &mut Group, client: &str, id: u64, json: &str) {
    group.results.insert((client.to_owned(), id), json.to_owned());
    group.pending_results.push(result_put(client, id, json));
}

fn forget_result(group: &mut Group, client: &str, id: u64) {
    if group.results.remove(&(client.to_owned(), id)).is_some() {
        group.pending_results.push(result_del(client, id));
    }
}

fn columns<const N: usize>(table: &Table, names: [&str; N]) -> Option<[ColumnIndex; N]> {
    let mut out = [0; N];
    for (slot, name) in out.iter_mut().zip(names) {
        *slot = table.column(name)?;
    }
    Some(out)
}

fn text(row: &Row, column: ColumnIndex) -> Option<&str> {
    match &row[column as usize] {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

fn integer(row: &Row, column: ColumnIndex) -> u64 {
    match row[column as usize] {
        Value::Integer(i) => i.max(0) as u64,
        Value::Real(r) => r.max(0.0) as u64,
        _ => 0,
    }
}
