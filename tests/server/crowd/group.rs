//! A client group of the crowd: what its tabs should hold together.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::super::support::client::Client;
use super::super::support::random::Random;
use super::super::support::server::Server;
use super::super::support::sql::Sql;
use super::meaning::{Question, Rows, print, questions};
use super::tab::Tab;

/// Tabs of which one leaves what comes lying about.
const SLOW: u64 = 8;

/// A client group.
pub struct Group {
    id: String,
    pub questions: Vec<Question>,
    pub tabs: Vec<Tab>,
}

/// What everybody should hold: rows by the hash of a query, last mutation ids and results by group.
#[derive(Default)]
pub struct Expected {
    rows: BTreeMap<String, Rows>,
    lmids: BTreeMap<String, BTreeMap<String, u64>>,
    results: BTreeMap<String, BTreeMap<(String, u64), Value>>,
}

impl Expected {
    /// What Postgres says, of groups.
    pub fn of<'g>(groups: impl Iterator<Item = &'g Group>, sql: &mut Sql) -> Expected {
        let mut expected = Expected::default();
        for question in groups.flat_map(|group| &group.questions) {
            expected.rows.entry(question.query.hash()).or_insert_with(|| question.rows(sql));
        }
        let lmids = r#"SELECT "clientGroupID", "clientID", "lastMutationID" FROM zero_0.clients"#;
        for row in sql.rows(lmids) {
            let [Some(group), Some(client), Some(id)] = &row[..] else { panic!("{row:?}") };
            let id = id.parse().expect("a number");
            expected.lmids.entry(group.clone()).or_default().insert(client.clone(), id);
        }
        let results = r#"SELECT "clientGroupID", "clientID", "mutationID", result FROM zero_0.mutations"#;
        for row in sql.rows(results) {
            let [Some(group), Some(client), Some(id), Some(result)] = &row[..] else { panic!("{row:?}") };
            let key = (client.clone(), id.parse().expect("a number"));
            let result = serde_json::from_str(result).expect("JSON");
            expected.results.entry(group.clone()).or_default().insert(key, result);
        }
        expected
    }
}

impl Group {
    pub fn new(server: &Server, number: usize, size: usize, random: &mut Random) -> Group {
        let id = format!("crowd{number}");
        let questions = questions(&id, number);
        let tab = |_| {
            let count = 1 + random.below(4);
            let wants = (0..count).map(|_| random.below(questions.len() as u64) as usize).collect();
            Tab::new(Client::in_group(server, &id), wants, random.chance(SLOW))
        };
        let tabs = (0..size).map(tab).collect();
        Group { id, questions, tabs }
    }

    /// Tabs of a browser share a disk: one that has no connection goes on from what another has written
    /// there, if that is newer, and sends what the others have not heard of along with its own.
    pub fn refresh(&mut self, at: usize, random: &mut Random) {
        let from = random.below(self.tabs.len() as u64) as usize;
        if self.tabs[from].client.store.cookie > self.tabs[at].client.store.cookie {
            let store = self.tabs[from].client.store.clone();
            self.tabs[at].client.store = store;
        }
        let others = (0..self.tabs.len()).filter(|other| *other != at);
        let unheard = others.flat_map(|other| self.tabs[other].unheard()).collect();
        self.tabs[at].take_over(unheard);
    }

    /// Fails if two tabs have equal cookies and do not hold the same (rule 12).
    pub fn compare_equal_cookies(&self) {
        let mut first: BTreeMap<&str, &Tab> = BTreeMap::new();
        for tab in &self.tabs {
            let Some(cookie) = tab.client.store.cookie.as_deref() else { continue };
            let other = first.entry(cookie).or_insert(tab);
            let (one, two) = (&other.client, &tab.client);
            assert!(
                one.store == two.store,
                "{} and {} of {} are at {cookie}; {}",
                one.id,
                two.id,
                self.id,
                first_difference(&printed(&one.store.rows), &printed(&two.store.rows))
                    .unwrap_or_else(|| "they differ in more than rows".to_owned())
            );
        }
    }

    /// What somebody lacks, or should not have.
    pub fn difference(&self, expected: &Expected) -> Option<String> {
        let wants: BTreeSet<usize> = self.tabs.iter().flat_map(|tab| &tab.wants).copied().collect();
        let hashes: BTreeSet<String> = wants.iter().map(|n| self.questions[*n].query.hash()).collect();
        let mut rows = Rows::new();
        for hash in &hashes {
            rows.extend(expected.rows[hash].iter().map(|(key, row)| (key.clone(), row.clone())));
        }
        let lmids = expected.lmids.get(&self.id).cloned().unwrap_or_default();
        let results = expected.results.get(&self.id).cloned().unwrap_or_default();
        let cookie = &self.tabs[0].client.store.cookie;
        self.tabs.iter().find_map(|tab| {
            let store = &tab.client.store;
            let why = if store.got != hashes {
                let too_many: Vec<_> = store.got.difference(&hashes).collect();
                let missing: Vec<_> = hashes.difference(&store.got).collect();
                format!("got {too_many:?} too many, {missing:?} missing")
            } else if store.lmids != lmids {
                format!("last mutation ids {:?} instead of {lmids:?}", store.lmids)
            } else if store.results != results {
                format!("results {:?} instead of {results:?}", store.results)
            } else if store.cookie != *cookie {
                format!("is not at {cookie:?}")
            } else {
                first_difference(&rows, &printed(&store.rows))?
            };
            Some(format!("{} of {} at {:?}: {why}", tab.client.id, self.id, store.cookie))
        })
    }
}

fn printed(rows: &BTreeMap<(String, String), Value>) -> Rows {
    rows.iter().map(|(key, row)| (key.clone(), print(&key.0, row))).collect()
}

fn first_difference(there: &Rows, here: &Rows) -> Option<String> {
    let changed = there.iter().find(|(key, row)| here.get(*key) != Some(row));
    let (key, row) = match changed {
        Some(found) => found,
        None => here.iter().find(|(key, _)| !there.contains_key(*key))?,
    };
    Some(format!("{key:?}: {:?} instead of {:?} ({row:?})", here.get(key), there.get(key)))
}
