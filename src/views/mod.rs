//! Shared views: who holds which rows, and what changed.
