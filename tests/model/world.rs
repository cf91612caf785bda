//! Groups, their tabs, the app and the replica around one core, and all that can happen
//! between them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use kelvin::core::limits::Limits;
use kelvin::groups::sink::Sink;
use kelvin::groups::syncer::Arrival;
use kelvin::model::ids::ConnectionId;
use kelvin::protocol::cookie::Cookie;
use kelvin::protocol::error::Kind;
use kelvin::protocol::upstream::{InitConnection, QueryBody, QueryOp};
use kelvin::views::view::ViewId;
use kelvin::zql::ast::Ast;
use serde_json::value::RawValue;

mod app;

use self::app::Owed;
use super::cell::Cell;
use super::choices::Choices;
use super::client::{Receiver, Store};
use super::core::{Core, roomy};
use super::database::{Database, Write};
use super::dialects::Dialects;
use super::disk::Disk;
use super::host::Moment;
use super::replica::Replica;
use super::scenario::Scenario;
use super::schema::Schema;
use super::socket::{Came, Line, SimulatedSocket};
use super::tables;
use super::watch::Watch;

/// Epoch of the first server under test.
pub const EPOCH: u64 = 7;

/// One tab of a group.
pub struct Tab {
    pub client: String,
    pub receiver: Receiver,
    pub wanted: BTreeSet<usize>,
    pub line: Option<Line>,
    /// Mutations that the app has run.
    pub mutations: u64,
}

/// One client group.
pub struct Group {
    pub id: String,
    /// What its clients believe.
    pub schema: Schema,
    pub tabs: Vec<Tab>,
    /// What every tab at a cookie must hold (rule 12).
    pub history: BTreeMap<String, Store>,
    /// Form of each query that the app answers with.
    pub forms: Vec<usize>,
}

pub struct World {
    pub scenario: Scenario,
    pub schema: Schema,
    pub db: Database,
    pub replica: Replica,
    pub core: Core,
    pub groups: Vec<Group>,
    pub now: f64,
    /// What each view was made for, by number and generation.
    pub asts: Asts,
    pub dialects: Dialects,
    /// Looks at every tab whose cookie moves.
    pub watch: Option<Watch>,
    /// Where the core records, if it does.
    pub disk: Option<Disk>,
    /// The machine may lose its power.
    pub cuts: bool,
    /// Of the core.
    pub limits: Limits,
    /// Epoch of the server.
    pub epoch: u64,
    /// Tabs that were told to start over, or to forget what they have.
    pub resets: usize,
    /// How often the server ended.
    pub crashes: usize,
    /// All that ever were.
    pub sockets: Vec<Rc<SimulatedSocket>>,
    owed: Vec<Owed>,
    connections: u64,
    /// What happened, for people.
    pub log: Vec<String>,
}

pub type Broken = String;

/// Queries by view and generation.
pub type Asts = HashMap<(ViewId, u64), Rc<Ast>>;

impl World {
    /// `many`: rows of the large table.
    pub fn new(groups: usize, many: usize) -> World {
        World::of(tables::scenario(many), groups)
    }

    pub fn of(scenario: Scenario, groups: usize) -> World {
        World::limited(scenario, groups, roomy())
    }

    pub fn limited(scenario: Scenario, groups: usize, limits: Limits) -> World {
        let schema = scenario.schema.clone();
        let mut db = Database::new(&schema);
        let mut replica = Replica::create(&schema);
        if !scenario.initial.is_empty() {
            scenario.initial.iter().for_each(|write| db.apply(write));
            replica.commit(&scenario.initial);
        }
        let core = Core::new(&replica, &schema, EPOCH, limits);
        let group = |n: usize| Group {
            id: format!("g{n}"),
            schema: scenario.believed[n % scenario.believed.len()].clone(),
            tabs: Vec::new(),
            history: BTreeMap::new(),
            forms: vec![0; scenario.queries.len()],
        };
        let groups = (0..groups).map(group).collect();
        let (asts, owed, log, sockets) = (HashMap::new(), Vec::new(), Vec::new(), Vec::new());
        World {
            scenario,
            schema,
            db,
            replica,
            core,
            groups,
            now: 0.0,
            asts,
            dialects: Dialects::default(),
            watch: None,
            disk: None,
            cuts: false,
            limits,
            epoch: EPOCH,
            resets: 0,
            crashes: 0,
            sockets,
            owed,
            connections: 0,
            log,
        }
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        self.log.push(what());
    }

    /// A transaction upstream reaches the replica.
    pub fn commit(&mut self, writes: Vec<Write>) {
        let commit = self.replica.commit(&writes);
        self.note(|| format!("commit {} {writes:?}", commit.version.0));
        if let Some(watch) = &mut self.watch {
            watch.commit(commit.version.0, &writes);
        }
        self.core.commit(commit);
    }

    /// The same at a moment that only the core knows.
    pub fn commit_at(&mut self, at: Moment, writes: Vec<Write>) {
        let (commit, show) = self.replica.prepare(&writes);
        self.note(|| format!("commit {} {writes:?} {at:?}", commit.version.0));
        if let Some(watch) = &mut self.watch {
            watch.commit(commit.version.0, &writes);
        }
        self.core.commit_at(at, commit, show);
    }

    /// The app runs a mutation of some tab, which it refuses now and then: then nothing but its number and its
    /// result is written. Or somebody took note of a result, and it goes.
    pub fn mutate(&mut self, choices: &mut Choices, group: usize) {
        let is_refused = choices.percent(40);
        let mut writes = match is_refused {
            false => (self.scenario.transaction)(choices, &mut self.db),
            true => Vec::new(),
        };
        let known = &mut self.groups[group];
        if known.tabs.is_empty() {
            return self.commit(writes);
        }
        let place = choices.below(known.tabs.len());
        let tab = &mut known.tabs[place];
        tab.mutations += 1;
        let (number, client) = (tab.mutations, tab.client.clone());
        let text = |t: &str| Cell::Text(t.to_owned());
        let table = self.db.schema.find("test_0.clients");
        let row = vec![text(&known.id), text(&client), Cell::Int(number as i64)];
        let old = self.db.same_key(table, &row).cloned();
        writes.push(match old {
            None => Write::Insert { table, row },
            Some(old) => Write::Update { table, old, new: row },
        });
        self.db.apply(writes.last().expect("just pushed"));
        let table = self.db.schema.find("test_0.mutations");
        if is_refused {
            let result = Cell::Json(format!("{{\"error\":\"app\",\"message\":\"{client} {number}\"}}"));
            let row = vec![text(&known.id), text(&client), Cell::Int(number as i64), result];
            writes.push(Write::Insert { table, row });
            self.db.apply(writes.last().expect("just pushed"));
        }
        let noted = self.db.rows(table).find(|r| r[0] == text(&known.id)).cloned();
        if let Some(row) = noted.filter(|_| choices.percent(30)) {
            writes.push(Write::Delete { table, row });
            self.db.apply(writes.last().expect("just pushed"));
        }
        self.commit(writes);
    }

    /// The replica gets an index that some view would read by, if one would.
    pub fn index(&mut self, choices: &mut Choices) {
        let index_requests = &mut self.core.index_requests;
        if index_requests.is_empty() {
            return;
        }
        let index_request = index_requests.swap_remove(choices.below(index_requests.len()));
        let known = self.core.syncer().shared.catalogue.clone();
        if let Some(catalogue) = self.replica.index(&known, &index_request) {
            self.log.push(format!("index {index_request:?}"));
            self.core.syncer().take_catalogue(&catalogue);
        }
    }

    /// A tab connects; it may be refused.
    pub fn connect(&mut self, choices: &mut Choices, group: usize, tab: usize) -> Result<(), Broken> {
        self.connections += 1;
        let id = ConnectionId(self.connections);
        let line = self.core.open(id);
        if choices.clone().percent(30) {
            line.socket.most.set(1 + choices.clone().below(100));
        }
        self.sockets.push(line.socket.clone());
        let known = &mut self.groups[group];
        let others: Vec<String> = known.tabs.iter().map(|t| t.client.clone()).collect();
        let (group_id, believed) = (known.id.clone(), known.schema.of_clients());
        let tab = &mut known.tabs[tab];
        let base_cookie = match &tab.receiver.store.cookie {
            None => None,
            Some(text) => Some(Cookie::parse(text).ok_or(format!("cookie {text}"))?),
        };
        let schema = base_cookie.is_none().then_some(believed);
        let stored = tab.receiver.store.desired.get(&tab.client).cloned().unwrap_or_default();
        let init = InitConnection {
            desired: changes(&stored, &tab.wanted),
            client_schema: schema,
            deleted: None,
            push_url: None,
            push_headers: BTreeMap::new(),
            query_url: None,
            query_headers: BTreeMap::new(),
            active_clients: choices.percent(15).then_some(others),
        };
        let dialect = self.dialects.next();
        let arrival = || Arrival {
            id,
            client_id: tab.client.clone(),
            group_id: group_id.as_str().into(),
            user: kelvin::groups::user::User { id: None, is_proved: false },
            profile_id: None,
            base_cookie,
            dialect,
            sink: line.outbox.clone(),
        };
        let (client, wanted) = (&tab.client, &tab.wanted);
        self.log
            .push(format!("{group_id}/{client}, {dialect:?}, comes at {base_cookie:?}, wants {wanted:?}"));
        let mut syncer = self.core.syncer();
        let asked = syncer.prospective(&group_id, &init.desired);
        let accepted = syncer.check(&arrival(), &init).and_then(|()| syncer.init(arrival(), &init, self.now));
        drop(syncer);
        if let Err(error) = accepted {
            self.log.push(format!("refused: {error}"));
            let expected = match error.kind {
                // A group that is not known, and a cookie that nobody issued.
                Kind::ClientNotFound | Kind::InvalidConnectionRequestBaseCookie => base_cookie.is_some(),
                _ => false,
            };
            // Such a client deletes what it has.
            self.resets += usize::from(expected);
            tab.receiver.store = Store::default();
            return if expected { Ok(()) } else { Err(format!("refused: {error}")) };
        }
        tab.receiver.connected(dialect);
        tab.line = Some(line);
        if choices.percent(60) {
            for named in asked {
                self.answer(choices, group, None, &named);
            }
        }
        self.ask(group, false);
        Ok(())
    }

    /// The tab's socket goes; what it has not read is lost.
    pub fn disconnect(&mut self, group: usize, tab: usize) {
        let tab = &mut self.groups[group].tabs[tab];
        if let Some(line) = tab.line.take() {
            self.log.push(format!("{} leaves", tab.client));
            tab.receiver.disconnected();
            line.outbox.close();
            self.core.connections.remove(line.id);
            self.core.syncer().disconnect(line.id, self.now);
            line.outbox.hang_up();
        }
    }

    /// A connected tab wants other queries.
    pub fn want(&mut self, group: usize, tab: usize, ops: Vec<QueryOp<'static>>) -> Result<(), Broken> {
        let tab = &self.groups[group].tabs[tab];
        let Some(id) = tab.line.as_ref().map(|line| line.id) else { return Ok(()) };
        self.log.push(format!("{} wants {ops:?}", tab.client));
        let changed = self.core.syncer().change_desired(id, &ops, self.now);
        changed.map_err(|e| format!("a change was refused: {e}"))?;
        self.ask(group, false);
        Ok(())
    }

    /// Does what is due for one group. False: for none, or not now.
    pub fn work(&mut self) -> bool {
        self.observe();
        self.log.push(format!("core at {}", self.core.syncer().shared.version.0));
        self.core.set_time(self.now);
        let worked = self.core.work();
        self.observe();
        worked
    }

    /// Notes what the cookies of all groups stand for, if somebody looks at the tabs.
    pub fn observe(&mut self) {
        let Some(watch) = &mut self.watch else { return };
        let syncer = self.core.look();
        let views = &syncer.shared.views;
        for group in syncer.groups.values() {
            // Nobody is told anything of it before it has all its views again.
            if !group.held.is_empty() || group.queries.values().any(|query| query.is_resuming()) {
                continue;
            }
            watch.note(group, &self.asts, |group, hash| {
                let view = group.queries.get(hash)?.current?;
                Some(views.get(view)?.generation)
            });
        }
    }

    /// A tab reads up to `count` messages.
    pub fn receive(&mut self, number: usize, place: usize, count: usize) -> Result<(), Broken> {
        self.observe();
        let Some(line) = self.groups[number].tabs[place].line.clone() else { return Ok(()) };
        self.core.write(&line);
        let group = &mut self.groups[number];
        let tab = &mut group.tabs[place];
        for came in std::iter::from_fn(|| line.socket.next()).take(count) {
            let Came::Frame(frame) = came else {
                // It comes back by itself.
                self.disconnect(number, place);
                return Ok(());
            };
            let moved = tab.receiver.take(&frame).map_err(|e| format!("{}: {e}", tab.client))?;
            if !moved {
                continue;
            }
            let store = tab.receiver.store.clone();
            if let Some(watch) = &mut self.watch {
                let which = number % self.scenario.believed.len();
                let looked = watch.check(&group.id, which, &store);
                looked.map_err(|e| format!("{} at {:?}: {e}", tab.client, store.cookie))?;
            }
            self.log.push(format!("{} is at {:?}", tab.client, store.cookie));
            let cookie = store.cookie.clone().expect("it moved");
            let expected = group.history.entry(cookie).or_insert_with(|| store.clone());
            if *expected != store {
                return Err(format!("{} differs from others at {}", tab.client, store.difference(expected)));
            }
        }
        Ok(())
    }
}

/// What a client sends to have `wanted` in the place of `stored`.
pub fn changes(stored: &BTreeSet<String>, wanted: &BTreeSet<usize>) -> Vec<QueryOp<'static>> {
    let puts = wanted.iter().filter(|q| !stored.contains(&format!("q{q}"))).map(|q| put(*q, 300_000.0));
    let dels = stored.iter().filter(|hash| !wanted.iter().any(|q| **hash == format!("q{q}")));
    puts.chain(dels.map(|hash| QueryOp::Del { hash: hash.clone() })).collect()
}

pub fn put(query: usize, ttl: f64) -> QueryOp<'static> {
    let args: &'static RawValue = serde_json::from_str("[]").expect("an empty list");
    let body = QueryBody::Named { name: format!("query{query}"), args };
    QueryOp::Put { hash: format!("q{query}"), ttl: Some(ttl), query: Some(body) }
}
