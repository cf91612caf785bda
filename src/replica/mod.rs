//! The SQLite replica: catalogue, writer, readers.
