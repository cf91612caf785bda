//! The wire: handshake, messages up and down, LexiVersion, errors.
