//! What runs on which core; start, drain, stop.
