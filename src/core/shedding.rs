//! What a core gives up while memory is short (decision 008).

use super::host::Pressure;
use super::overload::no_memory;
use super::state::CoreState;

/// Gives up what is cheapest to lose.
pub fn shed(state: &CoreState, now: f64) {
    let pressure = state.host.memory().pressure;
    state.connections.send_buffer.set_tight(pressure >= Pressure::Tight);
    // What was given up before is still on its way out.
    if pressure == Pressure::Calm || state.look().shared.views.has_deferred_drops() {
        return;
    }
    let bytes = state.host.excess();
    state.with(|s| s.drop_encoded());
    state.answers.borrow_mut().clear();
    let mut shed = state.with(|s| s.shed_idle(bytes));
    if shed == 0 {
        shed = state.with(|s| s.shed_large(bytes));
    }
    if shed == 0 {
        shed = state.with(|s| s.shed_unwanted());
    }
    if shed == 0
        && pressure == Pressure::Full
        && let Some(excess) = state.host.excess_in_use()
    {
        let error = no_memory(&now.to_string());
        let waiting = |group: &str| state.pushes.bytes_of(group);
        shed = state.with(|s| s.shed_connected(excess, waiting, &error, now));
    }
    state.metrics.shed_for_load(shed);
    // What is free now lies in pages that the system could have back.
    state.host.give_memory_back();
}
