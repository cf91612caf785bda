//! Every option, once: flag, `ZERO_` name, default, documentation.
