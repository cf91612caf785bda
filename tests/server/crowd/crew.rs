//! What one thread does for its groups: sockets that do not block, in turn.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::super::support::random::Random;
use super::group::Group;

/// Pause between two rounds over all sockets.
const PAUSE: Duration = Duration::from_millis(3);

/// Time that a slow tab leaves what comes lying about.
const SLOW_PAUSE: Duration = Duration::from_millis(700);

/// Rounds over all sockets of which a group does something in one.
const IDLE: u64 = 80;

/// Rounds after which a tab that went comes back, on average.
const AWAY: u64 = 40;

/// Tabs that come of which one begins with what others of its browser have.
const REFRESH: u64 = 3;

/// Longest time until what a dead server sent has been read.
const DRAIN: Duration = Duration::from_secs(10);

/// Longest time until all tabs hold what they should, once nobody writes.
const SETTLE: Duration = Duration::from_secs(12);

/// Time between two looks at whether they do.
const LOOK: Duration = Duration::from_millis(100);

/// What was seen.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    pub pokes: usize,
    /// Rows of tabs that came back and were sent rows, and how many were sent as they were held.
    pub held: usize,
    pub resent: usize,
}

/// What one thread serves.
pub struct Crew {
    pub groups: Vec<Group>,
    pub random: Random,
    pub tally: Tally,
}

impl Crew {
    pub fn new(random: Random) -> Crew {
        Crew { groups: Vec::new(), random, tally: Tally::default() }
    }

    /// Comes, works and goes until the server is killed; then reads what it sent before.
    pub fn work(&mut self, killed: &AtomicBool) {
        self.come(killed);
        let mut slow_at = Instant::now();
        while !killed.load(Ordering::Acquire) {
            let with_slow = slow_at.elapsed() > SLOW_PAUSE;
            if with_slow {
                slow_at = Instant::now();
            }
            self.listen(with_slow, Some(killed));
            self.act(killed);
            std::thread::sleep(PAUSE);
        }
        let deadline = Instant::now() + DRAIN;
        while self.listen(true, Some(killed)) > 0 {
            assert!(Instant::now() < deadline, "a connection to a server that is gone goes on");
            std::thread::sleep(PAUSE);
        }
        self.groups.iter().for_each(Group::compare_equal_cookies);
    }

    /// Comes and waits until a condition holds of every group.
    pub fn until(&mut self, what: &str, lacks: impl Fn(&Group) -> Option<String>) {
        self.groups.iter_mut().flat_map(|group| &mut group.tabs).for_each(|tab| tab.is_away = false);
        self.come(&AtomicBool::new(false));
        let (deadline, mut look) = (Instant::now() + SETTLE, Instant::now());
        loop {
            self.listen(true, None);
            if look <= Instant::now() {
                let lacking: Vec<String> = self.groups.iter().filter_map(&lacks).collect();
                if lacking.is_empty() {
                    return;
                }
                assert!(Instant::now() < deadline, "waited in vain for {what}:\n{}", lacking.join("\n"));
                look = Instant::now() + LOOK;
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Whoever has no connection and is not away for longer comes.
    fn come(&mut self, killed: &AtomicBool) {
        for group in &mut self.groups {
            for at in 0..group.tabs.len() {
                if group.tabs[at].is_away || group.tabs[at].client.is_connected() {
                    continue;
                }
                if self.random.chance(REFRESH) {
                    group.refresh(at, &mut self.random);
                }
                let has_come = group.tabs[at].come(&group.questions);
                let is_over = killed.load(Ordering::Acquire);
                assert!(has_come || is_over, "{} could not connect", group.tabs[at].client.id);
                if is_over {
                    return;
                }
            }
        }
    }

    /// Takes what has come. Returns how many are connected. `killed`: the server may go.
    fn listen(&mut self, with_slow: bool, killed: Option<&AtomicBool>) -> usize {
        let mut connected = 0;
        let tally = &mut self.tally;
        let tabs = self.groups.iter_mut().flat_map(|group| &mut group.tabs);
        for tab in tabs.filter(|tab| tab.client.is_connected()) {
            if (tab.is_slow && !with_slow) || tab.listen(tally) {
                connected += 1;
            } else {
                let is_over = killed.is_some_and(|killed| killed.load(Ordering::Acquire));
                assert!(is_over, "{} of {} lost its connection", tab.client.id, tab.client.group);
            }
        }
        connected
    }

    /// Some groups have a tab that does something.
    fn act(&mut self, killed: &AtomicBool) {
        let random = &mut self.random;
        for group in &mut self.groups {
            if !random.chance(IDLE) {
                continue;
            }
            let at = random.below(group.tabs.len() as u64) as usize;
            let tab = &mut group.tabs[at];
            match (tab.client.is_connected(), random.below(8)) {
                (false, _) => {}
                (true, 0..3) => tab.change(&group.questions, random),
                (true, 3..7) => tab.mutate(random),
                (true, _) => {
                    tab.client.vanish();
                    tab.is_away = random.chance(3);
                }
            }
        }
        if random.chance(AWAY) {
            self.come(killed);
        }
    }
}
