//! What a client holds, and the rules that a stock client enforces on pokes
//! (`docs/spec/sync-protocol.md` §9). A broken rule is an error: it would put the client
//! into a state that it does not leave by itself.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::chunks::Chunks;

/// What one poke did.
#[derive(Debug, Clone, Default)]
pub struct Poke {
    pub id: String,
    pub base: Option<String>,
    pub cookie: String,
    pub parts: Vec<Value>,
    /// Binary messages that they came in.
    pub chunks: usize,
    /// Table and key of rows put.
    pub puts: Vec<(String, String)>,
    /// Table and key of rows deleted.
    pub dels: Vec<(String, String)>,
    /// Operation and hash.
    pub got: Vec<(String, String)>,
    /// Client, operation and hash.
    pub desired: Vec<(String, String, String)>,
    pub lmids: BTreeMap<String, u64>,
    /// Mutation results: the operations.
    pub results: Vec<Value>,
    /// Everything before it was wiped.
    pub cleared: bool,
}

impl Poke {
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }
}

/// What a client holds.
#[derive(Debug, Clone, Default)]
pub struct Store {
    pub cookie: Option<String>,
    /// Rows by table and key.
    pub rows: BTreeMap<(String, String), Value>,
    pub got: BTreeSet<String>,
    pub desired: BTreeMap<String, BTreeSet<String>>,
    pub lmids: BTreeMap<String, u64>,
    /// Results by client and mutation.
    pub results: BTreeMap<(String, u64), Value>,
    /// Further tables that the client knows, with their keys.
    pub known: BTreeMap<String, Vec<String>>,
    open: Option<Poke>,
    /// Binary messages of the open poke.
    chunks: Chunks,
}

impl PartialEq for Store {
    /// What is shared by all tabs of a group: everything.
    fn eq(&self, other: &Store) -> bool {
        let desired = |s: &Store| {
            let mut desired = s.desired.clone();
            desired.retain(|_, hashes| !hashes.is_empty());
            desired
        };
        self.cookie == other.cookie
            && self.rows == other.rows
            && self.got == other.got
            && desired(self) == desired(other)
            && self.lmids == other.lmids
            && self.results == other.results
    }
}

type Broken = Result<(), String>;

impl Store {
    /// Rows of a table, in order of their keys.
    pub fn table(&self, table: &str) -> Vec<&Value> {
        self.rows.iter().filter(|((t, _), _)| t == table).map(|(_, row)| row).collect()
    }

    /// A row by its table and its one key value.
    pub fn row(&self, table: &str, key: impl Into<Value>) -> Option<&Value> {
        self.rows.get(&(table.to_owned(), json!([key.into()]).to_string()))
    }

    /// Whether a poke is open.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// The connection is gone: what was not complete is forgotten.
    pub fn disconnected(&mut self) {
        self.open = None;
        self.chunks = Chunks::default();
    }

    /// Takes a poke message; returns the poke when it is complete.
    pub fn take(&mut self, kind: &str, body: &Value) -> Result<Option<Poke>, String> {
        let id = body["pokeID"].as_str().ok_or_else(|| format!("{kind} without pokeID: {body}"))?.to_owned();
        if kind == "pokeStart" {
            return self.start(id, body).map(|()| None);
        }
        let open = self.open.as_mut().ok_or_else(|| format!("{kind} {id} outside of a poke"))?;
        if open.id != id {
            return Err(format!("{kind} {id} inside poke {}", open.id));
        }
        if kind == "pokePart" {
            open.parts.push(body.clone());
            return Ok(None);
        }
        let mut poke = self.open.take().ok_or("no poke")?;
        if body["cancel"] == true {
            return Ok(None);
        }
        poke.cookie =
            body["cookie"].as_str().ok_or_else(|| format!("pokeEnd without cookie: {body}"))?.into();
        self.apply(&mut poke)?;
        Ok(Some(poke))
    }

    /// Takes a binary message.
    pub fn take_chunk(&mut self, chunk: &[u8]) -> Broken {
        match self.is_open() {
            true => self.chunks.take(chunk),
            false => Err("a chunk outside of a poke".to_owned()),
        }
    }

    /// The same as [`Store::take`] of a client whose parts come as chunks.
    pub fn take_with_chunks(&mut self, kind: &str, body: &Value) -> Result<Option<Poke>, String> {
        let chunks = std::mem::take(&mut self.chunks);
        if kind == "pokeEnd" && body["cancel"] == true {
            chunks.cancelled()?;
        } else if kind == "pokeEnd" && self.is_open() {
            chunks.parts()?.iter().try_for_each(|part| self.take("pokePart", part).map(drop))?;
            self.open.iter_mut().for_each(|open| open.chunks = chunks.count());
        }
        self.take(kind, body)
    }

    fn start(&mut self, id: String, body: &Value) -> Broken {
        if let Some(open) = &self.open {
            return Err(format!("poke {id} starts inside poke {}", open.id));
        }
        let base = match &body["baseCookie"] {
            Value::Null if body.get("baseCookie").is_some() => None,
            Value::String(base) => Some(base.clone()),
            other => return Err(format!("pokeStart with baseCookie {other}")),
        };
        if base != self.cookie {
            return Err(format!("poke {id} is based on {base:?}, we are at {:?}", self.cookie));
        }
        self.open = Some(Poke { id, base, ..Poke::default() });
        Ok(())
    }

    fn apply(&mut self, poke: &mut Poke) -> Broken {
        // Strings, as a client compares them.
        if poke.base.as_ref().is_some_and(|base| poke.cookie < *base) {
            return Err(format!("cookie {} after {:?}", poke.cookie, poke.base));
        }
        if poke.base.as_ref() == Some(&poke.cookie) && !poke.parts.is_empty() {
            return Err(format!("a poke that stays at {} has content: {:?}", poke.cookie, poke.parts));
        }
        for part in std::mem::take(&mut poke.parts) {
            self.apply_part(&part, poke)?;
            poke.parts.push(part);
        }
        self.cookie = Some(poke.cookie.clone());
        Ok(())
    }

    fn apply_part(&mut self, part: &Value, poke: &mut Poke) -> Broken {
        let body = part.as_object().ok_or_else(|| format!("a part that is no object: {part}"))?;
        for (name, value) in body {
            match name.as_str() {
                "pokeID" => {}
                "lastMutationIDChanges" => self.apply_lmids(value, poke)?,
                "desiredQueriesPatches" => self.apply_desired(value, poke)?,
                "gotQueriesPatch" => {
                    for op in list(value)? {
                        let (kind, hash) = query_op(op)?;
                        change(&mut self.got, &kind, &hash)?;
                        poke.got.push((kind, hash));
                    }
                }
                "rowsPatch" | "mutationsPatch" => {}
                other => return Err(format!("a part with {other}")),
            }
        }
        // Rows after queries, results last, whatever the order of the keys.
        for op in body.get("rowsPatch").map(list).transpose()?.unwrap_or_default() {
            self.apply_row(op, poke)?;
        }
        for op in body.get("mutationsPatch").map(list).transpose()?.unwrap_or_default() {
            self.apply_result(op)?;
            poke.results.push(op.clone());
        }
        Ok(())
    }

    fn apply_lmids(&mut self, value: &Value, poke: &mut Poke) -> Broken {
        for (client, id) in value.as_object().ok_or("lastMutationIDChanges is no object")? {
            let id = id.as_u64().ok_or_else(|| format!("last mutation id {id}"))?;
            let known = self.lmids.insert(client.clone(), id).unwrap_or(0);
            if id < known {
                return Err(format!("last mutation id of {client} goes from {known} to {id}"));
            }
            poke.lmids.insert(client.clone(), id);
        }
        Ok(())
    }

    fn apply_desired(&mut self, value: &Value, poke: &mut Poke) -> Broken {
        for (client, ops) in value.as_object().ok_or("desiredQueriesPatches is no object")? {
            let desired = self.desired.entry(client.clone()).or_default();
            for op in list(ops)? {
                let (kind, hash) = query_op(op)?;
                change(desired, &kind, &hash)?;
                poke.desired.push((client.clone(), kind, hash));
            }
        }
        Ok(())
    }

    fn apply_row(&mut self, op: &Value, poke: &mut Poke) -> Broken {
        if op["op"] == "clear" {
            self.rows.clear();
            self.got.clear();
            self.desired.clear();
            self.results.clear();
            poke.cleared = true;
            return Ok(());
        }
        let table = op["tableName"].as_str().ok_or_else(|| format!("a row without table: {op}"))?;
        let named = if op["op"] == "put" { &op["value"] } else { &op["id"] };
        let key: Vec<Value> = self.key_of(table)?.iter().map(|c| named[c.as_str()].clone()).collect();
        if !key.iter().all(|v| v.is_string() || v.is_number() || v.is_boolean()) {
            return Err(format!("a row of {table} with the key {key:?}: {op}"));
        }
        let key = (table.to_owned(), Value::Array(key).to_string());
        match op["op"].as_str() {
            Some("put") => {
                self.rows.insert(key.clone(), op["value"].clone());
                poke.puts.push(key);
            }
            Some("del") => {
                self.rows.remove(&key);
                poke.dels.push(key);
            }
            _ => return Err(format!("row operation {op}")),
        }
        Ok(())
    }

    /// Key columns, as [`super::app::schema`] names them.
    fn key_of(&self, table: &str) -> Result<Vec<String>, String> {
        let columns: &[&str] = match table {
            "item" | "tick" => &["id"],
            "pair" => &["a", "b"],
            other => {
                // Older clients throw on a table that their schema lacks.
                let known = self.known.get(other).cloned();
                return known
                    .ok_or_else(|| format!("a row of the table {other}, which the client does not know"));
            }
        };
        Ok(columns.iter().map(|c| (*c).to_owned()).collect())
    }

    fn apply_result(&mut self, op: &Value) -> Broken {
        let put = op["op"] == "put";
        let id = if put { &op["mutation"]["id"] } else { &op["id"] };
        let (Some(client), Some(number)) = (id["clientID"].as_str(), id["id"].as_u64()) else {
            return Err(format!("mutation result {op}"));
        };
        let key = (client.to_owned(), number);
        if put {
            self.results.insert(key, op["mutation"]["result"].clone());
        } else {
            self.results.remove(&key);
        }
        Ok(())
    }
}

fn list(value: &Value) -> Result<&[Value], String> {
    value.as_array().map(Vec::as_slice).ok_or_else(|| format!("not a list: {value}"))
}

fn query_op(op: &Value) -> Result<(String, String), String> {
    match (op["op"].as_str(), op["hash"].as_str()) {
        (Some(kind @ ("put" | "del")), Some(hash)) => Ok((kind.into(), hash.into())),
        _ => Err(format!("query operation {op}")),
    }
}

fn change(set: &mut BTreeSet<String>, kind: &str, hash: &str) -> Broken {
    if kind == "put" {
        set.insert(hash.to_owned());
    } else {
        set.remove(hash);
    }
    Ok(())
}

/// Keys of the rows of a poke, sorted.
pub fn keys(rows: &[(String, String)]) -> Vec<&str> {
    let mut keys: Vec<&str> = rows.iter().map(|(_, key)| key.as_str()).collect();
    keys.sort_unstable();
    keys
}
