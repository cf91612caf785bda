//! What a series must show.

use super::page::Page;
use super::world::World;

/// What a series must show.
pub enum Shows {
    /// This.
    Is(fn(&World) -> f64),
    /// So much more than before the act.
    Grows(fn(&World) -> f64),
    /// Something between these two.
    Within(fn(&World) -> (f64, f64)),
    /// Something between these two more than before the act.
    GrowsWithin(fn(&World) -> (f64, f64)),
    /// It cannot be driven from outside: the test that does, and the file that it is in.
    Elsewhere(&'static str, &'static str),
}
use Shows::{Elsewhere, Grows, GrowsWithin, Is, Within};

impl Shows {
    /// Why a series does not show it.
    pub fn misses(&self, world: &World, page: &Page, series: &str) -> Option<String> {
        let (value, before) = (page.value(series), world.before.value(series));
        let (low, high, base) = match self {
            Is(wanted) => (wanted(world), wanted(world), 0.0),
            Grows(wanted) => (wanted(world), wanted(world), before),
            Within(range) => (range(world).0, range(world).1, 0.0),
            GrowsWithin(range) => (range(world).0, range(world).1, before),
            Elsewhere(file, test) => {
                let source = std::fs::read_to_string(file).unwrap_or_default();
                let is_there = source.contains(&format!("fn {test}()"));
                return (!is_there).then(|| format!("{file} has no test {test}"));
            }
        };
        let seen = value - base;
        (seen < low || seen > high)
            .then(|| format!("{series} shows {value}, {seen} more than {base}; expected {low} to {high}"))
    }
}
