//! Postgres: shard objects, publications, initial sync, pgoutput, types.
