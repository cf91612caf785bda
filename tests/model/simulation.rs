//! One run of a simulated core: a random scenario, so many random steps, and a look at every tab
//! after each.

use std::fmt::Write as _;

use kelvin::testing::met;
use kelvin::views::view::ViewId;

use super::acting::act;
use super::choices::Choices;
use super::client::digest;
use super::counts::Counts;
use super::dialects::Dialects;
use super::disk::{Disk, End};
use super::limits;
use super::random_world;
use super::watch::Watch;
use super::world::{Broken, World};

/// What is simulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// A server that goes on.
    Whole,
    /// One that records, and ends at any moment.
    Ends,
    /// The same with frames and journals that are full at once.
    Tiny,
}

/// What a run did.
#[derive(Default, Clone, Copy)]
pub struct Run {
    pub steps: usize,
    /// Stores compared with plain SQL.
    pub checked: usize,
    pub counts: Counts,
    /// How often the server ended, and how often a tab had to start over.
    pub crashes: usize,
    pub resets: usize,
    /// Records that were read in parts, and views and groups that were not recorded.
    pub parts: usize,
    pub unrecorded: usize,
    /// Limits that were met, a bit for each.
    pub met: u64,
    /// Of all bytes that were sent.
    pub digest: u64,
}

/// What went wrong, after how many steps.
pub struct Failure {
    pub step: usize,
    pub message: String,
}

/// How a core that records ends, now and then.
fn crash(world: &mut World, choices: &mut Choices) -> Result<(), Broken> {
    if choices.percent(60) {
        world.flush();
    } else {
        world.record();
    }
    match choices.below(100) {
        0 => world.crash(choices, End::Kill),
        1 if world.cuts => world.crash(choices, End::PowerCut),
        _ => {}
    }
    Ok(())
}

/// Runs a seed. The steps of a shorter run are the first steps of a longer one.
pub fn run(seed: u64, steps: usize, life: Life) -> Result<Run, Failure> {
    let crashes = life != Life::Whole;
    // Without end, as far as a run goes.
    let mut choices = Choices::new((seed, usize::MAX));
    let groups = 1 + choices.below(3);
    met::take();
    let scenario = random_world::scenario(&mut choices);
    let mut world = World::limited(scenario, groups, limits::of(seed, life));
    world.watch();
    // Not those decisions that the run is made of.
    world.core.slices = Some(Choices::new((seed ^ 0x5eed, usize::MAX)));
    world.dialects = Dialects::drawn(Choices::new((seed ^ 0xd1a1, usize::MAX)));
    world.lateness = Some(Choices::new((seed ^ 0x1a7e, usize::MAX)));
    world.core.send_apart(seed.is_multiple_of(3));
    if crashes {
        world.cuts = choices.percent(70);
        world.start_recording(Disk::new(choices.percent(30)));
    }
    let mut step = 0;
    let mut live = || -> Result<(), Broken> {
        while step < steps {
            step += 1;
            act(&mut world, &mut choices)?;
            rarely(&mut world, &mut choices);
            if crashes {
                crash(&mut world, &mut choices)?;
            }
            if choices.percent(1) {
                world.rest()?;
            }
        }
        world.rest()?;
        world.wishes_are_known(&mut choices)?;
        world.rest()
    };
    let lived = live();
    let failed = |world: &World, message: Broken| {
        let mut text = message;
        let _ = write!(text, "\nafter\n{}", world.log.join("\n"));
        Failure { step, message: text }
    };
    if let Err(broken) = lived {
        return Err(failed(&world, broken));
    }
    let digests = world.sockets.iter().map(|socket| socket.digest.get());
    let digest = digests.fold(0, |so_far, next| digest(so_far, &next.to_be_bytes()));
    let checked = world.watch.as_ref().map_or(0, |watch| watch.checked);
    let clears: usize = world.groups.iter().flat_map(|g| &g.tabs).map(|tab| tab.receiver.clears).sum();
    let (counts, crashes, resets) = (world.core.counts(), world.crashes, world.resets + clears);
    let (parts, unrecorded) = world.disk.as_ref().map_or((0, 0), |disk| (disk.parts, disk.unrecorded));
    if life == Life::Ends && crashes > 0 && !world.cuts && resets > 0 {
        return Err(Failure {
            step,
            message: format!("{resets} tabs started over\n{}", world.log.join("\n")),
        });
    }
    match world.end() {
        Ok(()) => {
            Ok(Run { steps, checked, counts, crashes, resets, parts, unrecorded, met: met::take(), digest })
        }
        Err(message) => Err(Failure { step, message }),
    }
}

/// What a core sees only under load: a queue that overflows, a view that is overtaken so often that
/// it is read within the batch.
fn rarely(world: &mut World, choices: &mut Choices) {
    match choices.below(200) {
        199 => world.core.lose_commits(),
        196..199 => {
            let view = ViewId(choices.below(20) as u32);
            let mut syncer = world.core.syncer();
            let views = &mut syncer.shared.views;
            if views.get(view).is_some() {
                views.read_inline(view);
            }
        }
        _ => {}
    }
}

impl World {
    /// Compares every tab with plain SQL from now on.
    pub fn watch(&mut self) {
        let mut watch = Watch::new(&self.schema, &self.scenario.believed);
        watch.commit(self.replica.version.0, &self.scenario.initial);
        self.watch = Some(watch);
    }

    /// Everything under way comes to its end, and all tabs have what they should have.
    fn rest(&mut self) -> Result<(), Broken> {
        self.settle()?;
        self.check()?;
        self.observe();
        let Some(watch) = &mut self.watch else { return Ok(()) };
        for (number, group) in self.groups.iter().enumerate() {
            let which = number % self.scenario.believed.len();
            for tab in group.tabs.iter().filter(|tab| tab.line.is_some()) {
                let store = &tab.receiver.store;
                watch.check(&group.id, which, store).map_err(|e| format!("{} at rest: {e}", tab.client))?;
            }
        }
        Ok(())
    }
}
