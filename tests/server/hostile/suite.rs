//! One server, everything that a table throws at it, and what must be true after each input.

use std::time::{Duration, Instant};

use super::bystander::{Bystander, ROWS};
use super::delay::thread_of;
use crate::support::app::{Answer, query};
use crate::support::client::{Client, WAIT};
use crate::support::http::get;
use crate::support::stage::Stage;

/// Longest that the server may let a bystander wait for a pong, whatever anybody else sends.
const PROMPT: Duration = Duration::from_millis(100);

/// What the process may have grown by in the end: allocators keep pages, and threads that were started stay.
const GROWTH: u64 = 96 << 20;

/// The thread that serves everybody: there is one core, so that nobody is safe by being elsewhere.
const CORE: &str = "syncer-0";

/// A server under attack.
pub struct Suite {
    pub stage: Stage,
    pub bystander: Bystander,
    changes: i64,
    memory: u64,
    process: u32,
    slowest: (Duration, String),
    /// Names of inputs that were not met as they should be.
    failed: Vec<String>,
}

impl Suite {
    /// With these settings beside the usual ones.
    pub fn new(settings: &[(&str, &str)]) -> Suite {
        // The app is asked for what the inputs are about, and for nothing else.
        let mut all = vec![
            ("AUTH_REVALIDATE_INTERVAL_SECONDS", "-1"),
            ("AUTH_RETRANSFORM_INTERVAL_SECONDS", "0"),
            ("ADMIN_PASSWORD", "a password of the admin's"),
        ];
        all.extend(settings);
        let stage = Stage::prepared(ROWS, &all);
        let client = stage.client();
        Suite::around(stage, client)
    }

    /// With a bystander who has what it needs to be let in.
    pub fn around(mut stage: Stage, client: Client) -> Suite {
        let process = stage.server.pid();
        let bystander = Bystander::start(client, thread_of(process, CORE));
        stage.sql.run("INSERT INTO pair VALUES ('a', 1, 'x')");
        let memory = stage.server.memory();
        Suite {
            stage,
            bystander,
            changes: 0,
            memory,
            process,
            slowest: Default::default(),
            failed: Vec::new(),
        }
    }

    /// A tab in a group of its own that has nothing to wait for.
    pub fn tab(&self) -> Client {
        let mut client = self.stage.client();
        client.connect(&[]);
        client.until("its first pokes", |c| c.store.cookie.is_some());
        client
    }

    /// The same with a token of its own; calls of the app's `/query` with that get this answer from now on.
    pub fn tab_whose_app_says(&self, answer: Answer) -> Client {
        let mut client = self.stage.client();
        let token = format!("token of {}", client.id);
        client.user = Some("mallory".into());
        client.token = Some(token.clone());
        client.connect(&[]);
        client.until("its first pokes", |c| c.store.cookie.is_some());
        self.stage.app.rule_query(&token, Some(answer));
        client
    }

    /// Runs one input; afterwards, the bystander has been served all the time and sees a change. Whatever is wrong with
    /// what the sender sees is said in the end, so that one run tells of all inputs.
    pub fn input(&mut self, name: &str, run: impl FnOnce(&mut Suite)) {
        println!("{name}");
        let seen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(self)));
        if seen.is_err() {
            self.failed.push(name.to_owned());
        }
        self.check(name);
    }

    fn check(&mut self, name: &str) {
        let server = &mut self.stage.server;
        assert!(server.has_ended().is_none() && server.pid() == self.process, "{name}: the server has ended");
        self.changes += 1;
        self.stage.sql.run(&format!("UPDATE item SET n = {} WHERE id = 'watched'", self.changes));
        self.bystander.until_seen(self.changes, name);
        let slowest = self.bystander.slowest();
        if slowest >= PROMPT {
            eprintln!("{name}: the bystander waited {slowest:?} for a pong");
            self.failed.push(format!("{name} (the bystander waited)"));
        }
        if slowest > self.slowest.0 {
            self.slowest = (slowest, name.to_owned());
        }
    }

    /// What must be true in the end.
    pub fn finish(mut self) {
        let port = self.stage.server.port;
        assert_eq!(get(port, "/keepalive").expect("it answers").0, 200);
        let log = self.stage.server.log();
        let panic = log.lines().find(|line| line.contains("panicked"));
        assert!(panic.is_none(), "something panicked: {panic:?}");
        let mut fresh = self.stage.client();
        fresh.connect(&[query("pairs", serde_json::json!([]))]);
        fresh.until_got(&[query("pairs", serde_json::json!([]))]);
        drop(fresh);
        self.until_small();
        let held = self.bystander.finish();
        let of_items =
            "SELECT json_agg(json_build_object('id', id, 'owner', owner, 'n', n, 'payload', payload)
                        ORDER BY id) FROM item WHERE owner = 'bystander'";
        let mut expected: Vec<serde_json::Value> =
            serde_json::from_str(&self.stage.sql.value(of_items)).expect("JSON");
        expected.push(serde_json::json!({"a": "a", "b": 1, "c": "x"}));
        assert_eq!(by_text(held), by_text(expected), "the bystander's rows");
        assert!(self.failed.is_empty(), "not met as they should be, see above: {:#?}", self.failed);
        println!("the longest wait was {:?}: {}", self.slowest.0, self.slowest.1);
    }

    fn until_small(&self) {
        let deadline = Instant::now() + WAIT;
        let grown = || self.stage.server.memory().saturating_sub(self.memory);
        while grown() > GROWTH {
            assert!(Instant::now() < deadline, "the process has grown by {} MiB", grown() >> 20);
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn by_text(rows: Vec<serde_json::Value>) -> Vec<String> {
    let sorted = |row: serde_json::Value| {
        let fields: std::collections::BTreeMap<String, String> =
            row.as_object().into_iter().flatten().map(|(k, v)| (k.clone(), v.to_string())).collect();
        format!("{fields:?}")
    };
    let mut texts: Vec<String> = rows.into_iter().map(sorted).collect();
    texts.sort();
    texts
}
