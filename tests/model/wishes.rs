//! What tabs want is what the server believes that they want: in the end, whatever was lost on the way.

use std::collections::BTreeSet;

use kelvin::groups::resends::{RESEND_AFTER, Resends};

use super::choices::Choices;
use super::world::{Broken, World};

/// Rounds of the time after which a client has to come back: those that had to often wait longer.
const ROUNDS: usize = 100;

impl World {
    /// Lets all come back that have to, and compares what the tabs that are there want with what is known of
    /// it. The world must be at rest.
    pub fn wishes_are_known(&mut self, choices: &mut Choices) -> Result<(), Broken> {
        let places = |(number, group): (usize, &super::world::Group)| {
            let there = (0..group.tabs.len()).filter(|tab| group.tabs[*tab].line.is_some());
            there.map(|tab| (number, tab)).collect::<Vec<_>>()
        };
        let there: Vec<(usize, usize)> = self.groups.iter().enumerate().flat_map(places).collect();
        let has_to_come_back = |world: &World| {
            let syncer = world.core.look();
            let groups = syncer.groups.values();
            let mut tabs = world.groups.iter().flat_map(|group| &group.tabs);
            groups.flat_map(|g| &g.connections).any(|c| c.resends != Resends::No)
                || tabs.any(|tab| tab.line.as_ref().is_some_and(|line| line.outbox.has_ended()))
        };
        let mut rounds = 0;
        while has_to_come_back(self) {
            rounds += 1;
            if rounds > ROUNDS {
                return Err("some tab has to come back for ever".to_owned());
            }
            self.now += RESEND_AFTER;
            self.core.syncer().tick(self.now);
            self.settle()?;
            for (group, tab) in &there {
                if self.groups[*group].tabs[*tab].line.is_none() {
                    self.connect(choices, *group, *tab)?;
                }
            }
            self.settle()?;
        }
        self.compare_wishes()
    }

    fn compare_wishes(&self) -> Result<(), Broken> {
        for group in &self.groups {
            let syncer = self.core.look();
            let Some(state) = syncer.groups.get(group.id.as_str()) else { continue };
            for tab in group.tabs.iter().filter(|tab| tab.line.is_some()) {
                let wanted: BTreeSet<String> = tab.wanted.iter().map(|query| format!("q{query}")).collect();
                let desires = state.clients.get(&tab.client).into_iter().flat_map(|c| &c.desires);
                let known: BTreeSet<String> =
                    desires.filter(|(_, d)| d.desired).map(|(hash, _)| hash.clone()).collect();
                if known != wanted {
                    return Err(format!("{} wants {wanted:?}, and is taken to want {known:?}", tab.client));
                }
            }
        }
        Ok(())
    }
}
