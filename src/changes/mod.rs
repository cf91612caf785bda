//! Commits: what one upstream transaction changed, and how cores hear of it.
