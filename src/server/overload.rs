//! What a core does when it is asked for more than it has room for (decision 008).

use super::core::Core;
use super::warnings::Warning;
use crate::core::host::Pressure;
use crate::core::overload::{BACK_AFTER, no_memory, overloaded};
use crate::protocol::connect::ConnectRequest;
use crate::protocol::error::ProtocolError;

/// Files that are open beside the sockets of clients: replica, logs, Postgres, the app.
const OTHER_FILES: usize = 1_024;

/// Most connections of a core, however many files the process may open: each takes some kilobytes
/// here and in the kernel.
const MAX_CONNECTIONS: usize = 100_000;

/// Connections of each of so many cores, if the process may have so many files open.
pub fn most_connections(files: usize, cores: usize) -> usize {
    (files.saturating_sub(OTHER_FILES) / cores.max(1)).clamp(16, MAX_CONNECTIONS)
}

/// Why a connection is not let in, if it is not.
pub fn refusal(core: &Core, request: &ConnectRequest) -> Option<ProtocolError> {
    if core.connections.len() >= core.most_connections {
        let message = "the server has as many connections as it takes; it is tried again";
        let most = core.most_connections;
        core.warnings
            .warn(Warning::Connections, format_args!("a core has {most} connections, as many as it takes"));
        return refused(core, overloaded(message, &request.wsid));
    }
    let pressure = core.budget.pressure();
    let is_here = || {
        let Some(serving) = core.serving() else { return false };
        serving.with(|s| s.groups.get(request.group_id.as_str()).is_some_and(|group| group.has_views()))
    };
    match pressure {
        Pressure::Calm => None,
        // What it needs is mostly here.
        Pressure::Tight if is_here() => None,
        Pressure::Tight | Pressure::Full => refused(core, no_memory(&request.wsid)),
    }
}

fn refused(core: &Core, error: ProtocolError) -> Option<ProtocolError> {
    core.metrics.refused_for_load();
    Some(error)
}

/// What a client is told that has sent more than the core can keep.
pub fn too_much_inbound() -> ProtocolError {
    let message = "the server has more messages of clients than it can handle; they are sent again";
    ProtocolError::overloaded(message, BACK_AFTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_room_for_the_other_files() {
        assert_eq!(most_connections(1_024, 4), 16);
        assert_eq!(most_connections(21_024, 4), 5_000);
        assert_eq!(most_connections(usize::MAX, 4), MAX_CONNECTIONS);
    }
}
