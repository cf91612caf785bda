//! Series, what is done to them, and what they must show then.

pub mod acts;
pub mod page;
pub mod shows;
pub mod table;
pub mod world;
