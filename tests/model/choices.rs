//! The decisions of a random test: numbers drawn one after another from a seed.
//!
//! A failing test shrinks their number. When they are used up every answer is 0, so 0 is
//! always the simplest choice.

use proptest::prelude::*;

/// A stream of decisions.
#[derive(Clone)]
pub struct Choices {
    state: u64,
    left: usize,
}

impl Choices {
    pub fn new((seed, count): (u64, usize)) -> Choices {
        Choices { state: seed, left: count }
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        if self.left == 0 {
            return 0;
        }
        self.left -= 1;
        // SplitMix64.
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    /// True in that many of a hundred cases.
    pub fn percent(&mut self, percent: usize) -> bool {
        self.below(100) >= 100 - percent
    }

    pub fn pick<'t, T>(&mut self, from: &'t [T]) -> &'t T {
        &from[self.below(from.len())]
    }

    /// Whether all decisions are used up.
    pub fn is_over(&self) -> bool {
        self.left == 0
    }
}

/// A seed and a number of decisions.
pub fn decisions(most: usize) -> impl Strategy<Value = (u64, usize)> {
    (any::<u64>().no_shrink(), most / 4..most)
}

/// Settings of a property test. `PROPTEST_CASES` asks for another number of cases.
pub fn cases(cases: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok());
    let cases = asked.unwrap_or(cases);
    ProptestConfig { cases, max_shrink_iters: 300, ..ProptestConfig::default() }
}
