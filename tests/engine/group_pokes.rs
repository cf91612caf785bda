//! Tabs of a group diverge from each other, from their queries, or see what no stock
//! client forgives: rules 12 to 22 of `docs/spec/rules.md`.

use crate::model::acting::act;
use crate::model::choices::{Choices, cases, decisions};
use crate::model::world::{Broken, World};
use proptest::prelude::*;

fn run(decisions: (u64, usize), many: usize) -> Result<(), TestCaseError> {
    let mut choices = Choices::new(decisions);
    let mut world = World::new(1 + choices.below(3), many);
    let mut live = || -> Result<(), Broken> {
        while !choices.is_over() {
            act(&mut world, &mut choices)?;
            if choices.percent(1) {
                world.settle()?;
                world.check()?;
            }
        }
        world.settle()?;
        world.check()
    };
    if let Err(broken) = live() {
        return Err(TestCaseError::fail(format!("{broken}\nafter\n{}", world.log.join("\n"))));
    }
    world.end().map_err(TestCaseError::fail)
}

proptest! {
    #![proptest_config(cases(600))]
    #[test]
    fn tabs_hold_what_their_queries_say_and_no_client_is_confused(decisions in decisions(2500)) {
        run(decisions, 0)?;
    }
}

proptest! {
    #![proptest_config(cases(80))]
    #[test]
    fn rows_that_are_sent_while_they_are_read_add_up(decisions in decisions(1500)) {
        run(decisions, 350)?;
    }
}

proptest! {
    #![proptest_config(cases(24))]
    #[test]
    fn results_that_are_sent_in_slices_are_whole(decisions in decisions(2500)) {
        run(decisions, 1_300)?;
    }
}
