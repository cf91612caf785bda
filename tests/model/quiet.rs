//! What must be true once nothing is under way: every tab has what its queries say (G1),
//! nothing more, and nothing is left over when all is gone.

use std::collections::{BTreeMap, BTreeSet};

use kelvin::groups::sink::Phase;
use kelvin::views::view::ViewId;
use serde_json::{Value, json};

use super::choices::Choices;
use super::database::{Database, Row};
use super::keeper::{chosen, members};
use super::tree::{Synced, judge, nodes};
use super::world::{Broken, World};

impl World {
    /// Lets everything that is under way come to its end.
    pub fn settle(&mut self) -> Result<(), Broken> {
        let mut choices = Choices::new((0, 0));
        self.log.push("settling".to_owned());
        self.core.set_time(self.now);
        for round in 0.. {
            if round == 200 {
                return Err(format!("the world does not come to rest: {}", self.unrest()));
            }
            let mut moved = self.owes();
            while self.owes() {
                self.reply(&mut choices, false);
            }
            self.notice_vanished();
            self.core.serve();
            self.core.batch();
            self.core.start_hydrations(false);
            for hydration in (0..self.core.hydrations()).rev() {
                moved = true;
                self.core.step_hydration(hydration, usize::MAX);
            }
            self.open_sockets();
            while self.work() {
                moved = true;
            }
            self.flush();
            for group in 0..self.groups.len() {
                for tab in 0..self.groups[group].tabs.len() {
                    self.receive(group, tab, usize::MAX)?;
                }
            }
            if moved || self.owes() || self.core.is_ready() || self.core.is_busy() {
                continue;
            }
            // What the clock wakes.
            self.core.syncer().tick(self.now);
            if !self.core.syncer().has_work() {
                self.note_views();
                return Ok(());
            }
            if self.is_behind() {
                // A tab whose cookie is ahead of the replica waits until it is not.
                self.commit(Vec::new());
            }
        }
        Ok(())
    }

    /// What is not at rest, for people.
    fn unrest(&self) -> String {
        let syncer = self.core.look();
        let connections = syncer.groups.values().flat_map(|g| &g.connections);
        let behind: Vec<String> = connections
            .filter(|c| c.phase != Phase::Live)
            .map(|c| format!("{} {:?} at {:?} is {:?}", c.client_id, c.id, c.cookie, c.phase))
            .collect();
        let known = self.groups.iter().flat_map(|g| &g.tabs).filter_map(|tab| tab.line.as_ref());
        let known: Vec<_> = known.map(|line| (line.id, line.outbox.has_ended())).collect();
        let waiting = |group: &kelvin::groups::group::Group| {
            let queries = group.queries.iter().filter(|(_, query)| query.is_waiting());
            queries.map(|(hash, query)| format!("{hash} {query:?}")).collect::<Vec<_>>()
        };
        let waiting: Vec<_> = syncer.groups.values().flat_map(|group| waiting(group)).collect();
        format!("{behind:?}; waiting {waiting:?}; connected {known:?}; {:?}", self.core.doing())
    }

    fn is_behind(&self) -> bool {
        let syncer = self.core.look();
        let groups = syncer.groups.values();
        groups.flat_map(|g| &g.connections).any(|c| c.phase != Phase::Live)
    }

    fn open_sockets(&mut self) {
        for line in self.groups.iter().flat_map(|g| &g.tabs).filter_map(|tab| tab.line.as_ref()) {
            line.socket.stopped.set(false);
            self.core.write(line);
        }
    }

    /// Checks every live tab. The world must be at rest.
    pub fn check(&self) -> Result<(), Broken> {
        for group in &self.groups {
            let syncer = self.core.look();
            let Some(state) = syncer.groups.get(group.id.as_str()) else { continue };
            let db = self.db.known_as(&group.schema);
            let mut rows: BTreeMap<(String, String), Value> = BTreeMap::new();
            let mut got = BTreeSet::new();
            let is_there = |client: &String| state.connections.iter().any(|c| c.client_id == *client);
            for (hash, query) in &state.queries {
                let mut wanting = state.clients.iter().filter(|(id, _)| is_there(id));
                let wanted = wanting.any(|(_, c)| c.desires.get(hash).is_some_and(|d| d.desired));
                let connected = !state.connections.is_empty();
                if wanted && !query.failed && !query.got {
                    return Err(format!("{} {hash} never was got: {query:?}", group.id));
                }
                // What was refused before the server ended goes with the first step, when somebody is back.
                if query.got && (connected || !query.failed) {
                    got.insert(hash.clone());
                    match query.current {
                        Some(view) => {
                            let of_view = self.rows_of(&db, view);
                            rows.extend(of_view.map_err(|e| format!("{} {hash}: {e}", group.id))?);
                        }
                        None if connected => {
                            return Err(format!("{} {hash} is got without a view", group.id));
                        }
                        // It was got before the server ended, and nobody has come back.
                        None => {}
                    }
                }
            }
            for tab in group.tabs.iter().filter(|t| t.line.is_some()) {
                let (store, name) = (&tab.receiver.store, &tab.client);
                if tab.receiver.pokes == 0 {
                    return Err(format!("{name} was never poked"));
                }
                // A cookie that was made for one tab alone changes nothing for the others.
                if store.cookie > Some(state.cookie.to_string()) {
                    return Err(format!("{name} is at {:?}, its group at {}", store.cookie, state.cookie));
                }
                if store.got != got {
                    return Err(format!("{name} got {:?}, expected {got:?}", store.got));
                }
                let held: BTreeMap<_, Value> =
                    store.rows.iter().map(|(k, v)| (key(k), as_doubles(v))).collect();
                if held != rows {
                    return Err(format!("{name} holds {held:#?}\nexpected {rows:#?}"));
                }
                self.check_records(group, tab)?;
                if tab.sent > tab.mutations {
                    return Err(format!("mutation {} of {name} was never run", tab.mutations + 1));
                }
            }
        }
        Ok(())
    }

    /// Desired sets and mutation ids.
    fn check_records(&self, group: &super::world::Group, tab: &super::world::Tab) -> Result<(), Broken> {
        let syncer = self.core.look();
        let state = &syncer.groups[group.id.as_str()];
        let (store, name) = (&tab.receiver.store, &tab.client);
        let wanted: BTreeMap<String, BTreeSet<String>> = state
            .clients
            .iter()
            .map(|(id, c)| {
                (id.clone(), c.desires.iter().filter(|(_, d)| d.desired).map(|(h, _)| h.clone()).collect())
            })
            .filter(|(_, set): &(String, BTreeSet<String>)| !set.is_empty())
            .collect();
        if store.desired != wanted {
            return Err(format!("{name} has desires {:?}, expected {wanted:?}", store.desired));
        }
        let clients = self.db.rows(self.db.schema.find("test_0.clients"));
        let own = clients.filter(|r| r[0].json() == json!(group.id));
        let lmids: BTreeMap<String, u64> = own
            .map(|r| (r[1].json().as_str().unwrap_or("").to_owned(), r[2].number().unwrap_or(0.0) as u64))
            .collect();
        if store.lmids != lmids {
            return Err(format!("{name} has mutation ids {:?}, expected {lmids:?}", store.lmids));
        }
        let table = self.db.schema.find("test_0.mutations");
        let of_group = self.db.rows(table).filter(|r| r[0].json() == json!(group.id));
        let result = |r: &Row| {
            let number = r[2].number().unwrap_or(0.0) as u64;
            (json!({"clientID": r[1].json(), "id": number}).to_string(), r[3].json())
        };
        let results: BTreeMap<String, Value> = of_group.map(result).collect();
        if store.results != results {
            return Err(format!("{name} has results {:?}, expected {results:?}", store.results));
        }
        Ok(())
    }

    /// What a view must hold, if it holds that.
    fn rows_of(&self, db: &Database, id: ViewId) -> Result<BTreeMap<(String, String), Value>, Broken> {
        let syncer = self.core.look();
        let shared = &syncer.shared;
        let view = shared.views.get(id).ok_or("there is no such view")?;
        let ast = self.asts.get(&(id, view.generation)).ok_or("nobody asked for the view")?;
        let rows = shared.rows.borrow();
        let synced: Synced = judge(db, &nodes(db, ast), &chosen(view, &rows), None)?;
        let (held, expected) = (members(view, &rows), synced.keys().cloned().collect());
        if held != expected {
            return Err(format!("view holds {held:?}, expected {expected:?}"));
        }
        Ok(synced
            .into_iter()
            .map(|((table, _), row)| {
                let columns = &db.schema.spec(table).columns;
                let fields = db.schema.visible(table).into_iter();
                let value = fields.map(|c| (columns[c].0.to_owned(), as_doubles(&row[c].json()))).collect();
                let parts: Vec<String> =
                    db.schema.identity(table).into_iter().map(|c| row[c].json().to_string()).collect();
                ((db.schema.spec(table).name.to_owned(), parts.join(",")), Value::Object(value))
            })
            .collect())
    }

    /// Ends everything; nothing may be left.
    pub fn end(mut self) -> Result<(), Broken> {
        self.core.stop();
        let error =
            kelvin::protocol::error::ProtocolError::new(kelvin::protocol::error::Kind::Internal, "over");
        let ids: Vec<_> = self.core.syncer().groups.keys().cloned().collect();
        ids.iter().for_each(|id| self.core.syncer().fail_group(id, &error));
        let mut syncer = self.core.syncer();
        let shared = &mut syncer.shared;
        // Caches may keep references for as long as the version stays.
        shared.moved(shared.version);
        while shared.views.sweep() {}
        let left = (shared.views.len(), shared.rows.borrow().len(), shared.interested.len());
        if left != (0, 0, 0) {
            return Err(format!("views, rows and subscription_index left over: {left:?}"));
        }
        Ok(())
    }
}

/// Numbers are doubles to clients.
fn as_doubles(value: &Value) -> Value {
    match value {
        Value::Number(n) => json!(n.as_f64()),
        Value::Array(items) => items.iter().map(as_doubles).collect(),
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(k, v)| (k.clone(), as_doubles(v))).collect())
        }
        other => other.clone(),
    }
}

/// The client's keys of numbers, as the model writes them.
fn key((table, key): &(String, String)) -> (String, String) {
    let parts: Vec<String> = key
        .split(',')
        .map(|part| serde_json::from_str(part).map_or(part.to_owned(), |v: Value| as_doubles(&v).to_string()))
        .collect();
    (table.clone(), parts.join(","))
}
