//! `kelvin bench`: a load generator that speaks the sync protocol to any server.
pub fn main(_: &[String]) -> i32 {
    0
}
