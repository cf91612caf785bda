//! Groups, their tabs, the app and the replica around one core, and all that can happen
//! between them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use kelvin::core::limits::Limits;
use kelvin::protocol::upstream::{QueryBody, QueryOp};
use kelvin::views::view::ViewId;
use kelvin::zql::ast::Ast;
use kelvin::zql::canonical;
use serde_json::value::RawValue;

mod app;
mod connecting;
mod receiving;

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
use super::socket::{Line, SimulatedSocket};
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
    /// The last that was sent on the present connection.
    pub sent: u64,
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
    /// All forms of queries, by what a view's key has of them.
    forms: Vec<(Vec<u8>, Rc<Ast>)>,
    /// Draws how late others are; `None`: nobody is.
    pub lateness: Option<Choices>,
    /// Connections of tabs that are gone, and of which the server does not know it.
    pub vanished: Vec<Line>,
    /// How often the app failed.
    pub failures: usize,
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
    connections: u64,
    tokens: u64,
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
        let (asts, log, sockets) = (HashMap::new(), Vec::new(), Vec::new());
        let forms = scenario.queries.iter().flatten().flatten().map(|ast| (canonical(ast), ast.clone()));
        let forms = forms.collect();
        World {
            scenario,
            schema,
            db,
            replica,
            core,
            groups,
            now: 0.0,
            asts,
            forms,
            lateness: None,
            vanished: Vec::new(),
            failures: 0,
            dialects: Dialects::default(),
            watch: None,
            disk: None,
            cuts: false,
            limits,
            epoch: EPOCH,
            resets: 0,
            crashes: 0,
            sockets,
            connections: 0,
            tokens: 0,
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
        if self.groups[group].tabs.is_empty() {
            let writes = (self.scenario.transaction)(choices, &mut self.db);
            return self.commit(writes);
        }
        let place = choices.below(self.groups[group].tabs.len());
        self.mutate_as(choices, group, place);
    }

    /// The same for one tab.
    fn mutate_as(&mut self, choices: &mut Choices, group: usize, place: usize) {
        let is_refused = choices.percent(40);
        let mut writes = match is_refused {
            false => (self.scenario.transaction)(choices, &mut self.db),
            true => Vec::new(),
        };
        let known = &mut self.groups[group];
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

    /// Does what is due for one group. False: for none, or not now.
    pub fn work(&mut self) -> bool {
        self.observe();
        self.log.push(format!("core at {}", self.core.syncer().shared.version.0));
        self.core.set_time(self.now);
        let worked = self.core.work();
        self.observe();
        worked
    }

    /// Notes what the views were made for that are new.
    pub fn note_views(&mut self) {
        let syncer = self.core.look();
        let views = &syncer.shared.views;
        let queries = syncer.groups.values().flat_map(|group| group.queries.values());
        for id in queries.flat_map(|query| [query.current, query.pending]).flatten() {
            let Some(view) = views.get(id) else { continue };
            self.asts.entry((id, view.generation)).or_insert_with(|| {
                // Before it is the epoch of the catalogue, behind it what the clients believe.
                let key = &views.key(id)[8..];
                let form = self.forms.iter().find(|(form, _)| key.starts_with(form));
                form.expect("the app gave no such answer").1.clone()
            });
        }
    }

    /// Notes what the cookies of all groups stand for, if somebody looks at the tabs.
    pub fn observe(&mut self) {
        self.note_views();
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
}

fn canonical(ast: &Ast) -> Vec<u8> {
    let mut key = Vec::new();
    canonical::write(ast, &mut key);
    key
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
