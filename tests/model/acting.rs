//! One decision of a random run: what anybody around a core may do next.

use std::collections::BTreeSet;

use kelvin::protocol::cookie::Cookie;
use kelvin::protocol::upstream::QueryOp;
use kelvin::testing::faults::{self, Fault};

use super::choices::Choices;
use super::client::{Receiver, Store};
use super::world::{Broken, EPOCH, Tab, World, put};

/// A tab that is not connected: an old one, a new one, one that shares the disk of another,
/// or one with a cookie that this server cannot know.
fn come(world: &mut World, choices: &mut Choices, group: usize) -> Result<(), Broken> {
    let tabs = &world.groups[group].tabs;
    let away: Vec<usize> = (0..tabs.len()).filter(|t| tabs[*t].line.is_none()).collect();
    let tab = match away.is_empty() {
        false if tabs.len() > 3 || choices.percent(60) => *choices.pick(&away),
        _ if tabs.len() < 5 => {
            let store = match tabs.is_empty() {
                false if choices.percent(40) => choices.pick(tabs).receiver.store.clone(),
                _ => Store::default(),
            };
            let client = format!("g{group}t{}", tabs.len());
            let receiver = Receiver::new(world.groups[group].schema.clone(), store);
            let mut wanted: BTreeSet<usize> =
                (0..world.scenario.queries.len()).filter(|_| choices.percent(25)).collect();
            if let Some(large) = world.scenario.large
                && choices.percent(70)
            {
                wanted.insert(large);
                if choices.percent(50) {
                    wanted.retain(|query| *query == large);
                }
            }
            world.groups[group].tabs.push(Tab {
                client,
                receiver,
                wanted,
                line: None,
                mutations: 0,
                sent: 0,
            });
            world.groups[group].tabs.len() - 1
        }
        _ => return Ok(()),
    };
    if choices.percent(25) {
        refresh(world, choices, group, tab);
    }
    if choices.percent(8) && world.disk.is_none() {
        forge(world, choices, group, tab);
    }
    world.connect(choices, group, tab)
}

/// Tabs of a browser share a disk: one that lost its connection goes on from what another has written
/// there, if that is newer than what it has itself.
fn refresh(world: &mut World, choices: &mut Choices, group: usize, tab: usize) {
    let tabs = &world.groups[group].tabs;
    let other = choices.pick(tabs).receiver.store.clone();
    if other.cookie > tabs[tab].receiver.store.cookie {
        world.groups[group].tabs[tab].receiver.store = other;
    }
}

/// Gives a tab a cookie and rows that another server may have given it.
fn forge(world: &mut World, choices: &mut Choices, group: usize, tab: usize) {
    let version = world.core.syncer().shared.version.0;
    let (major, epoch) = match choices.below(3) {
        0 => ((version + choices.below(6) as u64).saturating_sub(3), 1),
        1 => ((version + choices.below(6) as u64).saturating_sub(3), EPOCH + 1_000),
        // One that this server issues only much later.
        _ => (version + 1_000, world.epoch),
    };
    let store = &mut world.groups[group].tabs[tab].receiver.store;
    store.cookie = Some(Cookie::new(major, epoch, choices.below(4) as u64).to_string());
    let ghost = serde_json::json!({"id": "ghost", "item": null, "v": 0});
    store.rows.insert(("tag".to_owned(), "\"ghost\"".to_owned()), ghost);
    store.got.insert("ghost".to_owned());
}

fn want(world: &mut World, choices: &mut Choices, group: usize, tab: usize) -> Result<(), Broken> {
    let mut ops = Vec::new();
    let queries = world.scenario.queries.len();
    let wanted = &mut world.groups[group].tabs[tab].wanted;
    for _ in 0..=choices.below(2) {
        let query = choices.below(queries);
        match choices.below(10) {
            0..5 => {
                wanted.insert(query);
                ops.push(put(query, *choices.pick(&[300_000.0, 0.0, 1_000.0, -1.0])));
            }
            5..9 => {
                wanted.remove(&query);
                ops.push(QueryOp::Del { hash: format!("q{query}") });
            }
            _ => {
                wanted.clear();
                ops.push(QueryOp::Clear);
            }
        }
    }
    world.want(group, tab, ops)
}

pub fn act(world: &mut World, choices: &mut Choices) -> Result<(), Broken> {
    let group = choices.below(world.groups.len());
    let tabs = world.groups[group].tabs.len();
    let tab = choices.below(tabs.max(1));
    match choices.below(100) {
        0..12 => {
            let writes = (world.scenario.transaction)(choices, &mut world.db);
            world.commit(writes);
        }
        12..15 => world.mutate(choices, group),
        15..18 if tabs > 0 => match choices.below(4) {
            0 => world.acknowledge(group, tab),
            _ => world.push(group, tab),
        },
        18..24 if !world.core.is_busy() => {
            world.core.begin_batch();
            if choices.percent(60) {
                world.core.end_batch();
            }
        }
        24 => world.core.step_batch(),
        28..30 => world.core.go_on_with_any(choices),
        25 if !world.core.is_busy() => world.index(choices),
        26..28 => world.core.end_batch(),
        30..38 => come(world, choices, group)?,
        38 if tabs > 0 && choices.clone().percent(40) => world.vanish(group, tab),
        38..42 if tabs > 0 => world.disconnect(group, tab),
        42..52 if tabs > 0 => want(world, choices, group, tab)?,
        52..58 => world.reply(choices, choices.clone().percent(10)),
        58..61 => {
            let query = choices.below(world.scenario.queries.len());
            let forms = world.scenario.queries[query].len();
            world.groups[group].forms[query] = choices.below(forms);
            world.ask(group, true);
        }
        61..70 => {
            world.core.start_hydrations(choices.percent(40));
            if world.core.hydrations() > 0 {
                let (hydration, steps) =
                    (choices.below(world.core.hydrations()), choices.below(40) * choices.below(40));
                world.core.step_hydration(hydration, steps);
            }
        }
        70..85 if !world.core.is_busy() || faults::is_on(Fault::Between) => {
            world.work();
        }
        85..92 if tabs > 0 => world.receive(group, tab, 1 + choices.below(12))?,
        92..95 if tabs > 0 => {
            if let Some(line) = world.groups[group].tabs[tab].line.clone()
                && line.socket.stopped.replace(!line.socket.stopped.get())
            {
                world.core.write(&line);
            }
        }
        95..98 => {
            let time: f64 = *choices.pick(&[10.0, 300.0, 2_500.0, 61_000.0, 400_000.0]);
            // Where nothing may be lost nobody is away for long.
            world.now += if world.disk.is_some() && !world.cuts { time.min(300.0) } else { time };
            world.core.set_time(world.now);
            if choices.clone().percent(40) {
                world.core.tick();
                world.notice_vanished();
            }
            world.core.syncer().tick(world.now);
            if choices.clone().percent(30) {
                let purged = world.core.syncer().purge(world.now);
                world.core.counts.purged += purged;
            }
        }
        _ if tabs > 1 => {
            let other = world.groups[group].tabs[(tab + 1) % tabs].client.clone();
            let line = world.groups[group].tabs[tab].line.clone();
            if line.is_some() {
                world.delete(group, tab, &[other]);
            }
        }
        _ => {}
    }
    Ok(())
}
