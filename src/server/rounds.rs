//! What a core does again and again: what time brings, pongs.

use std::rc::Rc;
use std::time::Duration;

use kelvin_io::executor::sleep;

use super::core::Core;
use super::outbox::Outbox;
use super::overload;
use crate::groups::execution::SPELLED;
use crate::groups::syncer::Syncer;
use crate::protocol::downstream::PONG;

/// Time between rounds of the clock: expiries, lingering groups, metrics.
const TICK: Duration = Duration::from_millis(200);

/// Rounds without a hydration after which the memory of a peak is given back: that takes
/// milliseconds, and more hydrations may be about to come.
const CALM: u32 = 25;

/// Views of a core that are described to whoever asks: those that cost most.
const MAX_EXPLAINED: usize = 100;

/// Silence after which a pong is sent unasked, and how often that is looked at
/// (`docs/spec/sync-protocol.md` §16.1).
const PONG_AFTER: Duration = Duration::from_secs(6);
const PONG_CHECK: Duration = Duration::from_secs(3);

/// Milliseconds between warnings of queries that clients spelled out.
const WARN_OF_SPELLED: f64 = 600_000.0;

/// Does what time brings: expiries, what is idle or old, what memory is short for, numbers.
pub async fn tick(core: Rc<Core>) {
    let (mut peak, mut calm, mut warned) = (false, 0, f64::NEG_INFINITY);
    loop {
        sleep(TICK).await;
        core.answers.borrow_mut().forget(core.clock());
        // Once the hydrations of a peak are done and their encoded views are gone.
        let busy = core.hydrating() > 0 || core.with(|s| !s.shared.encoded.is_empty()).unwrap_or(false);
        calm = if busy { 0 } else { calm + 1 };
        peak |= busy;
        if peak && calm >= CALM {
            kelvin_io::memory::give_back();
            peak = false;
        }
        overload::shed(&core);
        let now = core.clock();
        if let Some(question) = core.status.views_wanted(core.index) {
            let explain = |s: &mut Syncer| s.shared.views.explain(MAX_EXPLAINED, &s.shared.catalogue);
            core.status.set_views(core.index, question, core.with(explain).unwrap_or_default());
        }
        // The calendar may have been set, or the machine asleep.
        let clock_zero = core.clock_zero();
        let purged = core.with(|syncer| {
            syncer.shared.clock_zero = clock_zero;
            syncer.purge(now)
        });
        let purged = purged.unwrap_or(0);
        if purged > 0 {
            crate::info!(core = core.index; "purged {purged} inactive CVRs");
        }
        core.with(|syncer| {
            syncer.tick(now);
            core.metrics.set_groups(syncer.groups.len());
            core.metrics.set_clients(syncer.connected());
            core.metrics.set_queries(syncer.desired_queries());
            core.metrics.set_views(syncer.shared.views.len());
        });
        if now - warned >= WARN_OF_SPELLED && warn_of_spelled(&core) {
            warned = now;
        }
        if core.index == 0 {
            core.metrics.set_memory(core.budget.in_use(), core.budget.held(), core.budget.bytes());
        }
    }
}

/// Warns of queries that clients spelled out, if there were some.
fn warn_of_spelled(core: &Core) -> bool {
    let count = core.with(|s| std::mem::take(&mut s.shared.spelled)).unwrap_or_default();
    if count > 0 {
        crate::warn!(core = core.index, queries = count; "queries were not answered: {SPELLED}");
    }
    count > 0
}

/// Clients count only pongs, and may wait for one while a long poke is on its way.
pub async fn pongs(core: Rc<Core>) {
    loop {
        sleep(PONG_CHECK).await;
        let idle: Vec<Rc<Outbox>> =
            core.sessions.borrow().values().filter(|o| o.idle() > PONG_AFTER).cloned().collect();
        for outbox in idle {
            outbox.urgent(PONG);
        }
    }
}
