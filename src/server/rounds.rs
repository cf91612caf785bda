//! What a core does again and again: what time brings, pongs.

use std::rc::Rc;
use std::time::Duration;

use kelvin_io::executor::sleep;

use super::core::Core;
use super::serving::Serving;
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
pub async fn tick(serving: Rc<Serving>) {
    loop {
        sleep(TICK).await;
        let pace = serving.pace("what time brings");
        serving.tell(Event::Tick { clock_zero: serving.clock_zero() });
        pace.end();
        if let Some(question) = serving.status.views_wanted(serving.index) {
            let explain = |s: &mut Syncer| s.shared.views.explain(MAX_EXPLAINED, &s.shared.catalogue);
            serving.status.set_views(serving.index, question, serving.with(explain));
        }
        if serving.index == 0 {
            serving.metrics.set_memory(
                serving.budget.in_use(),
                serving.budget.held(),
                serving.budget.bytes(),
            );
        }
    }
}

/// Clients count only pongs, and may wait for one while a long poke is on its way.
pub async fn pongs(core: Rc<Core>) {
    loop {
        sleep(PONG_CHECK).await;
        for outbox in core.entrance.connections.all().iter().filter(|outbox| outbox.idle() > PONG_AFTER) {
            outbox.urgent(PONG);
        }
    }
}
