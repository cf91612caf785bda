//! What a core does when a hydration asks for more than there is room for (decision 008).
//!
//! Clients are told `ServerOverloaded`: they come back by themselves, after a time that differs
//! from one to the next, so that they do not come back together.

use super::host::Pressure;
use super::state::CoreState;
use crate::groups::reading::HydrationRequest;
use crate::protocol::error::ProtocolError;
use crate::replica::reader::ReadError;
use crate::views::assemble::Assembly;

/// Least time until a client comes back, and how far the times of several lie apart, in milliseconds.
pub const BACK_AFTER: u64 = 5_000;
const BACK_WITHIN: u64 = 10_000;

/// What a client is told that there is no room for. `of`: spreads the times at which they return.
pub fn overloaded(message: &str, of: &str) -> ProtocolError {
    let after = BACK_AFTER + xxhash_rust::xxh3::xxh3_64(of.as_bytes()) % BACK_WITHIN;
    ProtocolError::overloaded(message, after)
}

/// What a client is told that there is no memory for.
pub fn no_memory(of: &str) -> ProtocolError {
    overloaded("the server has no memory left for more clients; it is tried again", of)
}

/// What a client is told that has sent more than the core can keep.
pub fn too_much_inbound() -> ProtocolError {
    let message = "the server has more messages of clients than it can handle; they are sent again";
    ProtocolError::overloaded(message, BACK_AFTER)
}

/// Whether there is no memory for a view that nobody has yet. Those who wait for it are sent away.
pub(super) fn refuse(state: &CoreState, request: HydrationRequest) -> bool {
    if state.host.memory().pressure < Pressure::Full {
        return false;
    }
    let (now, error) = (state.now(), no_memory(&request.generation.to_string()));
    let Some(groups) = state.with(|s| s.refuse_reading(request, &error, now)) else { return false };
    state.metrics.shed_for_load(groups);
    true
}

/// Whether a hydration has to end: what it reads is more than one view may have, or than
/// there is memory for.
pub(super) fn check(
    state: &CoreState,
    request: HydrationRequest,
    assembly: &Assembly,
) -> Result<(), ReadError> {
    let most = state.host.memory().of_view;
    if assembly.bytes() > most {
        return Err(ReadError::Unsupported(format!(
            "the query's rows take more than {} MiB, a quarter of the server's memory: ask for fewer, or give \
             the server more",
            most >> 20
        )));
    }
    if assembly.len() >= state.limits.get().large_rows && refuse(state, request) {
        return Err(ReadError::Interrupted);
    }
    Ok(())
}

/// Whether all who wait for a view have as much already as one group may have.
pub(super) fn check_groups(state: &CoreState, request: HydrationRequest) -> Result<(), ReadError> {
    let most = state.host.memory().of_group;
    if state.with(|s| s.is_read_for_large_groups(request, most)) {
        return Err(ReadError::Unsupported(format!(
            "the client group's queries take more than {} MiB, half of the server's memory: close some",
            most >> 20
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_come_back_at_different_times() {
        let after = |of: &str| overloaded("", of).fields["minBackoffMs"].as_u64().unwrap();
        let times: std::collections::BTreeSet<u64> = (0..100).map(|n| after(&n.to_string())).collect();
        assert!(times.len() > 80);
        assert!(times.iter().all(|time| (BACK_AFTER..BACK_AFTER + BACK_WITHIN).contains(time)));
    }
}
