//! How many connections there is room for (decision 008).

use crate::core::limits::MAX_CONNECTIONS;

/// Files that are open beside the sockets of clients: replica, logs, Postgres, the app.
const OTHER_FILES: usize = 1_024;

/// Connections of each of so many cores, if the process may have so many files open.
pub fn most_connections(files: usize, cores: usize) -> usize {
    (files.saturating_sub(OTHER_FILES) / cores.max(1)).clamp(16, MAX_CONNECTIONS)
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
