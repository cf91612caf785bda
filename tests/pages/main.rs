//! What the pages say of the code, and the code of the reference.

mod arrows;
mod circles;
mod compatibility;
mod pages;
