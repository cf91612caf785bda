//! What tests do to the code that serves: they switch rules off, and order panics. Nothing of it is in a release.

pub mod faults;
pub mod met;
pub mod panics;
