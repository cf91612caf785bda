//! A server, and what is known of what was done to it.

use std::time::Duration;

use super::page::Page;
use crate::support::client::Client;
use crate::support::http;
use crate::support::sql::Sql;
use crate::support::stage::Stage;

/// A server, a tab, and what was seen before the present act.
pub struct World {
    pub stage: Stage,
    pub tab: Client,
    pub others: Vec<Client>,
    /// One whose transaction stays open.
    pub open: Option<Sql>,
    pub before: Page,
    /// Calls of the app, messages and bytes of the tab, and the log's position, before the present act.
    pub calls: usize,
    pub sent: (u64, u64),
    pub received: u64,
    pub lsn: f64,
}

impl World {
    pub fn page(&self) -> Page {
        let (status, text) = http::get(self.stage.server.port, "/metrics").expect("a page");
        assert_eq!(status, 200);
        Page::parse(&text)
    }

    pub fn lsn(&self) -> f64 {
        let now = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')";
        // Of the whole cluster: it can be asked for where nobody may connect to the database.
        Sql::connect(self.stage.postgres, "postgres").value(now).parse().expect("a number")
    }

    /// Has the tab take what was sent to it.
    pub fn read(&mut self) {
        if self.tab.is_connected() {
            self.tab.settle(Duration::from_millis(20));
        }
    }

    pub fn remember(&mut self) {
        self.read();
        self.before = self.page();
        self.calls = self.stage.app.queries().len();
        (self.sent, self.received) = (self.tab.sent, self.tab.received);
        self.lsn = self.lsn();
    }

    pub fn bytes_of(&self, directory: &str) -> f64 {
        let files = std::fs::read_dir(self.stage.server.directory.join(directory)).expect("it is there");
        files.flatten().map(|file| file.metadata().map_or(0, |meta| meta.len())).sum::<u64>() as f64
    }

    pub fn log_bytes(&self) -> f64 {
        let log = self.stage.server.directory.join("replica.db-wal");
        std::fs::metadata(log).map_or(0.0, |meta| meta.len() as f64)
    }
}
