//! Limits so small that a run meets them.

use kelvin::core::limits::{Limits, OutboxLimits, PushLimits, RecordLimits};
use kelvin::cvr::frame::MAX_PAYLOAD;
use kelvin::cvr::parts::Sizes;
use kelvin::groups::limits::GroupLimits;
use kelvin::views::limits::ViewLimits;

use super::choices::Choices;
use super::core::roomy;
use super::simulation::Life;

/// The limits of a seed.
pub fn of(seed: u64, life: Life) -> Limits {
    // Not those decisions that the run is made of.
    let mut choices = Choices::new((!seed, usize::MAX));
    let roomy = roomy();
    let groups = of_groups(&mut choices, life, roomy.groups);
    Limits {
        groups,
        hydrations: some(&mut choices, &[1, 2, 4], roomy.hydrations),
        large_hydrations: some(&mut choices, &[1, 2], roomy.large_hydrations),
        recent_bytes: some(&mut choices, &[0, 200, 1_000], roomy.recent_bytes),
        settled_slots: some(&mut choices, &[1, 10], roomy.settled_slots),
        stream_from: some(&mut choices, &[500, 2_000], roomy.stream_from),
        outboxes: OutboxLimits {
            bytes: some(&mut choices, &[1, 100, 1_000], roomy.outboxes.bytes),
            collected_bytes: some(&mut choices, &[0, 100], roomy.outboxes.collected_bytes),
            sends: some(&mut choices, &[1, 2], roomy.outboxes.sends),
            ..roomy.outboxes
        },
        records: RecordLimits {
            filling_bytes: *choices.pick(&[0, 200]),
            waiting_bytes: *choices.pick(&[200, 2_000]),
        },
        pushes: PushLimits {
            of_group: some(&mut choices, &[0, 300], roomy.pushes.of_group),
            of_core: some(&mut choices, &[0, 600], roomy.pushes.of_core),
        },
        connections: if choices.percent(10) { 1 + choices.below(4) } else { roomy.connections },
        ..roomy
    }
}

/// One of these, or what there is otherwise.
fn some<T: Copy>(choices: &mut Choices, small: &[T], otherwise: T) -> T {
    if choices.percent(50) { *choices.pick(small) } else { otherwise }
}

fn of_groups(choices: &mut Choices, life: Life, usual: GroupLimits) -> GroupLimits {
    let views = usual.views;
    let limits = GroupLimits {
        views: ViewLimits {
            parents: some(choices, &[0, 1, 2], views.parents),
            dirty_keys: some(choices, &[0, 1, 2], views.dirty_keys),
            candidates: some(choices, &[0, 1, 2], views.candidates),
            ..views
        },
        encoded_bytes: some(choices, &[0, 200, 1_000], usual.encoded_bytes),
        small_view: some(choices, &[0, 1, 3, 10], usual.small_view),
        catch_up_rows: some(choices, &[1, 2, 5], usual.catch_up_rows),
        overtaken: some(choices, &[1, 2], usual.overtaken),
        passed: some(choices, &[1, 2], usual.passed),
        record_rows: *choices.pick(&[1, 3]),
        ..usual
    };
    // What a group forgets has tabs start over, which a server that ends and forgets nothing must not do.
    let limits = if life == Life::Ends { limits } else { forgetful(choices, limits) };
    if life != Life::Tiny {
        return limits;
    }
    let record_frame = Sizes {
        part: *choices.pick(&[0, 50, 100, 200]),
        most: *choices.pick(&[300, 600, 1_200, 2_400, 4_800, MAX_PAYLOAD]),
    };
    GroupLimits { record_frame, ..limits }
}

fn forgetful(choices: &mut Choices, limits: GroupLimits) -> GroupLimits {
    GroupLimits {
        views: ViewLimits {
            journal_keys: some(choices, &[1, 2, 4, 8], limits.views.journal_keys),
            journal_deltas: some(choices, &[1, 2, 4], limits.views.journal_deltas),
            ..limits.views
        },
        left_keys: some(choices, &[0, 2, 10], limits.left_keys),
        removed_queries: some(choices, &[0, 1, 3], limits.removed_queries),
        result_changes: some(choices, &[0, 1, 3], limits.result_changes),
        remembered_queries: some(choices, &[1, 2, 4], limits.remembered_queries),
        idle_groups: some(choices, &[0, 1], limits.idle_groups),
        ..limits
    }
}
