//! A tab as the stock client is: what it holds, how it takes messages, what it never
//! forgives (`docs/spec/sync-protocol.md` §9).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use kelvin::protocol::dialect::Dialect;
use kelvin::protocol::websocket::payload_of;
use serde_json::Value;

use super::chunks::Chunks;
use super::schema::Schema;

/// How a binary message begins.
const BINARY: u8 = 0x82;

/// What a tab holds on disk.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Store {
    pub cookie: Option<String>,
    /// By table and key.
    pub rows: BTreeMap<(String, String), Value>,
    pub got: BTreeSet<String>,
    /// Wanted queries of every client of the group, as the server said.
    pub desired: BTreeMap<String, BTreeSet<String>>,
    pub lmids: BTreeMap<String, u64>,
    pub results: BTreeMap<String, Value>,
}

impl Store {
    /// What two stores differ in, for people.
    pub fn difference(&self, other: &Store) -> String {
        let mut out = String::new();
        let keys: BTreeSet<_> = self.rows.keys().chain(other.rows.keys()).collect();
        for key in keys.into_iter().filter(|k| self.rows.get(k) != other.rows.get(k)) {
            let text = |row: Option<&Value>| row.map_or("nothing".to_owned(), Value::to_string);
            out += &format!("{key:?}: {} / {}\n", text(self.rows.get(key)), text(other.rows.get(key)));
        }
        out += &format!("got {:?} / {:?}\n", self.got, other.got);
        out += &format!("desired {:?} / {:?}\n", self.desired, other.desired);
        out +=
            &format!("mutations {:?} {:?} / {:?} {:?}", self.lmids, self.results, other.lmids, other.results);
        out
    }
}

struct Poke {
    id: Value,
    base: Option<String>,
    parts: Vec<Value>,
    chunks: Chunks,
}

/// The receiving half of a tab.
pub struct Receiver {
    schema: Schema,
    /// What the present connection speaks.
    dialect: Dialect,
    pub store: Store,
    open: Option<Poke>,
    /// Pokes taken since it connected.
    pub pokes: usize,
    /// Hashes of queries that it was told it cannot have, as often as it was told.
    pub refused: Vec<String>,
    /// How often it was told to forget what it had.
    pub clears: usize,
    /// It was let in, and has to be told so before anything else.
    pub awaits_connected: bool,
}

type Violation = String;

impl Receiver {
    pub fn new(schema: Schema, store: Store) -> Receiver {
        let dialect = Dialect::Text;
        Receiver {
            schema,
            dialect,
            store,
            open: None,
            pokes: 0,
            refused: Vec::new(),
            clears: 0,
            awaits_connected: false,
        }
    }

    /// There is a new connection.
    pub fn connected(&mut self, dialect: Dialect) {
        self.disconnected();
        self.dialect = dialect;
    }

    /// The connection is gone: a poke that has not ended is thrown away.
    pub fn disconnected(&mut self) {
        self.open = None;
        self.pokes = 0;
    }

    /// Whether a poke has begun and not ended.
    pub fn is_in_poke(&self) -> bool {
        self.open.is_some()
    }

    /// Takes a frame. True if the cookie moved.
    pub fn take(&mut self, frame: &Bytes) -> Result<bool, Violation> {
        let payload = payload_of(frame);
        if frame[0] == BINARY {
            return self.chunk(payload).map(|()| false);
        }
        let message: Value = serde_json::from_slice(payload).map_err(|e| format!("not JSON: {e}"))?;
        let body = &message[1];
        if self.awaits_connected && message[0] != "connected" {
            return Err(format!("{message} before connected"));
        }
        match message[0].as_str() {
            Some("pokeStart") => self.start(body).map(|()| false),
            Some("pokePart") => self.part(body).map(|()| false),
            Some("pokeEnd") => self.end(body),
            Some("transformError") => {
                let hashes = body.as_array().into_iter().flatten().filter_map(|error| error["id"].as_str());
                self.refused.extend(hashes.map(str::to_owned));
                Ok(false)
            }
            Some("connected") if !self.awaits_connected => Err("connected once more".to_owned()),
            Some("connected") => {
                self.awaits_connected = false;
                Ok(false)
            }
            Some("deleteClients" | "pong") => Ok(false),
            Some("error") => Err(format!("was told {}", body["kind"])),
            other => Err(format!("unexpected message {other:?}")),
        }
    }

    fn start(&mut self, body: &Value) -> Result<(), Violation> {
        if let Some(open) = &self.open {
            return Err(format!("{body} while {} is open", open.id));
        }
        let base = body["baseCookie"].as_str().map(str::to_owned);
        if base != self.store.cookie {
            return Err(format!("base {base:?}, but the tab has {:?}", self.store.cookie));
        }
        self.open =
            Some(Poke { id: body["pokeID"].clone(), base, parts: Vec::new(), chunks: Chunks::default() });
        Ok(())
    }

    fn chunk(&mut self, payload: &[u8]) -> Result<(), Violation> {
        if self.dialect != Dialect::Binary {
            return Err("a binary message before version 52".to_owned());
        }
        let open = self.open.as_mut().ok_or("a chunk outside of a poke")?;
        open.chunks.take(payload)
    }

    fn part(&mut self, body: &Value) -> Result<(), Violation> {
        if self.dialect != Dialect::Text {
            return Err(format!("a part of {} as text, from version 52 on", body["pokeID"]));
        }
        match &mut self.open {
            Some(open) if open.id == body["pokeID"] => {
                open.parts.push(body.clone());
                Ok(())
            }
            _ => Err(format!("a part of {} outside of it", body["pokeID"])),
        }
    }

    fn end(&mut self, body: &Value) -> Result<bool, Violation> {
        let open = self.open.take().filter(|open| open.id == body["pokeID"]);
        let Some(mut poke) = open else { return Err(format!("{body} ends another poke")) };
        if body["cancel"] == true {
            return poke.chunks.cancelled().map(|()| false);
        }
        if self.dialect == Dialect::Binary {
            poke.parts = poke.chunks.parts()?;
        }
        if let Some(other) = poke.parts.iter().find(|part| part["pokeID"] != poke.id) {
            return Err(format!("{other} in poke {}", poke.id));
        }
        let cookie = body["cookie"].as_str().ok_or("a poke ends without a cookie")?.to_owned();
        self.pokes += 1;
        if poke.base.as_deref() == Some(&cookie) {
            // The client ignores what is in it.
            return if poke.parts.is_empty() {
                Ok(false)
            } else {
                Err(format!("{cookie} again, with content"))
            };
        }
        if poke.base.is_some_and(|base| base > cookie) {
            return Err(format!("the cookie went back to {cookie}"));
        }
        for part in &poke.parts {
            self.apply(part)?;
        }
        self.store.cookie = Some(cookie);
        Ok(true)
    }

    fn apply(&mut self, part: &Value) -> Result<(), Violation> {
        const KNOWN: [&str; 6] = [
            "pokeID",
            "lastMutationIDChanges",
            "desiredQueriesPatches",
            "gotQueriesPatch",
            "rowsPatch",
            "mutationsPatch",
        ];
        let fields = part.as_object().ok_or("a part is no object")?;
        if let Some(unknown) = fields.keys().find(|k| !KNOWN.contains(&k.as_str())) {
            return Err(format!("unknown field {unknown}"));
        }
        for (client, id) in
            fields.get("lastMutationIDChanges").and_then(Value::as_object).into_iter().flatten()
        {
            let id = id.as_u64().ok_or("a mutation id is no number")?;
            let before = self.store.lmids.insert(client.clone(), id).unwrap_or(0);
            if id < before {
                return Err(format!("last mutation id of {client} went from {before} to {id}"));
            }
        }
        for (client, patch) in
            fields.get("desiredQueriesPatches").and_then(Value::as_object).into_iter().flatten()
        {
            let set = self.store.desired.entry(client.clone()).or_default();
            patch_set(set, patch)?;
        }
        self.store.desired.retain(|_, set| !set.is_empty());
        if let Some(patch) = fields.get("gotQueriesPatch") {
            patch_set(&mut self.store.got, patch)?;
        }
        for op in fields.get("rowsPatch").and_then(Value::as_array).into_iter().flatten() {
            self.row(op)?;
        }
        for op in fields.get("mutationsPatch").and_then(Value::as_array).into_iter().flatten() {
            match op["op"].as_str() {
                Some("put") => {
                    let mutation = &op["mutation"];
                    self.store.results.insert(mutation["id"].to_string(), mutation["result"].clone());
                }
                _ => drop(self.store.results.remove(&op["id"].to_string())),
            }
        }
        Ok(())
    }

    fn row(&mut self, op: &Value) -> Result<(), Violation> {
        if op["op"] == "clear" {
            self.clears += 1;
            // Everything that the same patch wrote before goes, too.
            self.store.rows.clear();
            self.store.got.clear();
            self.store.desired.clear();
            self.store.results.clear();
            return Ok(());
        }
        let name = op["tableName"].as_str().ok_or("a row without its table")?;
        let known = self.schema.specs.iter().position(|s| s.name == name && s.client_key.is_some());
        let Some(table) = known else { return Err(format!("a row of table {name}")) };
        let columns = &self.schema.spec(table).columns;
        let key = |of: &Value| -> Result<String, Violation> {
            let parts: Result<Vec<String>, _> = self
                .schema
                .identity(table)
                .into_iter()
                .map(|c| of.get(columns[c].0).map(Value::to_string).ok_or(format!("no key in {op}")))
                .collect();
            Ok(parts?.join(","))
        };
        match op["op"].as_str() {
            Some("put") => {
                let fields = op["value"].as_object().ok_or("a put without a row")?.len();
                if fields != self.schema.visible(table).len() {
                    return Err(format!("{op} has other columns than its table"));
                }
                self.store.rows.insert((name.to_owned(), key(&op["value"])?), op["value"].clone());
            }
            Some("del") => drop(self.store.rows.remove(&(name.to_owned(), key(&op["id"])?))),
            _ => return Err(format!("unknown operation {op}")),
        }
        Ok(())
    }
}

fn patch_set(set: &mut BTreeSet<String>, patch: &Value) -> Result<(), Violation> {
    for op in patch.as_array().ok_or("a patch is no list")? {
        let hash = op["hash"].as_str().ok_or("a query without its hash")?;
        match op["op"].as_str() {
            Some("put") => drop(set.insert(hash.to_owned())),
            Some("del") => drop(set.remove(hash)),
            _ => return Err(format!("unknown operation {op}")),
        }
    }
    Ok(())
}

/// Adds bytes to a digest of all before them: FNV-1a.
pub fn digest(so_far: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(so_far ^ 0xcbf2_9ce4_8422_2325, |digest, byte| {
        (digest ^ *byte as u64).wrapping_mul(0x0100_0000_01b3)
    })
}
