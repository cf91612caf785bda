//! Postgres over this crate's sockets: queries (tokio-postgres) and the replication protocol.
