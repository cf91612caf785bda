//! Two hundred tabs in groups, on a few threads, that live through the ends of a server.

pub mod crew;
pub mod group;
pub mod meaning;
pub mod tab;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use self::crew::{Crew, Tally};
use self::group::{Expected, Group};
use self::tab::Tab;
use super::support::random::Random;
use super::support::server::Server;
use super::support::sql::Sql;

/// Tabs of a group, and how many groups are of each size.
const SIZES: [usize; 4] = [1, 2, 5, 12];
const GROUPS_OF_A_SIZE: usize = 10;

/// Threads; each serves whole groups.
const THREADS: usize = 4;

/// All of them.
pub struct Crowd {
    crews: Vec<Crew>,
}

impl Crowd {
    pub fn new(server: &Server, random: &mut Random) -> Crowd {
        let mut crews: Vec<Crew> = (0..THREADS).map(|_| Crew::new(random.fork())).collect();
        for number in 0..SIZES.len() * GROUPS_OF_A_SIZE {
            let size = SIZES[number / GROUPS_OF_A_SIZE];
            crews[number % THREADS].groups.push(Group::new(server, number, size, random));
        }
        Crowd { crews }
    }

    /// Everybody comes and is at work while something is done, which ends with the server's end.
    pub fn work(&mut self, killed: &AtomicBool, meanwhile: impl FnOnce()) {
        self.tabs_mut().for_each(|tab| tab.is_away = false);
        std::thread::scope(|scope| {
            for crew in &mut self.crews {
                scope.spawn(|| crew.work(killed));
            }
            // Whatever happens here, nobody works on for ever.
            let result = catch_unwind(AssertUnwindSafe(meanwhile));
            killed.store(true, Ordering::Release);
            if let Err(panic) = result {
                resume_unwind(panic);
            }
        });
    }

    /// Everybody comes, and waits until all mutations are heard of.
    pub fn gather(&mut self) {
        let lacks = |group: &Group| {
            let waiting = group.tabs.iter().find(|tab| !tab.is_heard())?;
            Some(format!("{} of {}", waiting.client.id, waiting.client.group))
        };
        self.each(|crew| crew.until("mutations", lacks));
    }

    /// Waits until everybody holds what Postgres says, and all of a group the same.
    pub fn settle(&mut self, sql: &mut Sql) {
        let expected = Expected::of(self.crews.iter().flat_map(|crew| &crew.groups), sql);
        self.each(|crew| {
            crew.until("what Postgres says", |group| group.difference(&expected));
            crew.groups.iter().for_each(Group::compare_equal_cookies);
        });
    }

    /// What all have seen.
    pub fn tally(&self) -> Tally {
        let sum = |of: fn(&Tally) -> usize| self.crews.iter().map(|crew| of(&crew.tally)).sum();
        Tally { pokes: sum(|t| t.pokes), held: sum(|t| t.held), resent: sum(|t| t.resent) }
    }

    fn tabs_mut(&mut self) -> impl Iterator<Item = &mut Tab> {
        self.crews.iter_mut().flat_map(|crew| &mut crew.groups).flat_map(|group| &mut group.tabs)
    }

    fn each(&mut self, act: impl Fn(&mut Crew) + Sync) {
        std::thread::scope(|scope| {
            for crew in &mut self.crews {
                let act = &act;
                scope.spawn(move || act(crew));
            }
        });
    }
}
