//! What a core does again and again: what time brings, pongs.

use std::rc::Rc;
use std::time::Duration;

use kelvin_io::executor::sleep;

use super::core::Core;
use crate::core::effect::Event;
use crate::groups::syncer::Syncer;
use crate::protocol::downstream::PONG;

/// Time between rounds of the clock: expiries, lingering groups, metrics.
const TICK: Duration = Duration::from_millis(200);

/// Views of a core that are described to whoever asks: those that cost most.
const MAX_EXPLAINED: usize = 100;

/// Milliseconds of silence after which a pong is sent unasked, and how often that is looked at
/// (`docs/spec/sync-protocol.md` §16.1).
const PONG_AFTER: f64 = 6_000.0;
const PONG_CHECK: Duration = Duration::from_secs(3);

/// Tells the core of the time, and brings numbers to whoever asks.
pub async fn tick(core: Rc<Core>) {
    loop {
        sleep(TICK).await;
        core.answers.borrow_mut().forget(core.clock());
        let pace = core.pace("what time brings");
        core.tell(Event::Tick { clock_zero: core.clock_zero() });
        pace.end();
        if let Some(question) = core.status.views_wanted(core.index) {
            let explain = |s: &mut Syncer| s.shared.views.explain(MAX_EXPLAINED, &s.shared.catalogue);
            core.status.set_views(core.index, question, core.with(explain).unwrap_or_default());
        }
        if core.index == 0 {
            core.metrics.set_memory(core.budget.in_use(), core.budget.held(), core.budget.bytes());
        }
    }
}

/// Clients count only pongs, and may wait for one while a long poke is on its way.
pub async fn pongs(core: Rc<Core>) {
    loop {
        sleep(PONG_CHECK).await;
        for outbox in core.connections.all().iter().filter(|outbox| outbox.idle() > PONG_AFTER) {
            outbox.urgent(PONG);
        }
    }
}
