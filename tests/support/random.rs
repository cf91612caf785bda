//! Reproducible randomness: a seed names a whole run.

/// A small generator (splitmix64). Good enough to choose test data.
pub struct Random(u64);

impl Random {
    /// The seed is `KELVIN_TEST_SEED`, or the one given; it is printed, so that a failed
    /// run can be repeated.
    pub fn new(seed: u64) -> Random {
        let seed = std::env::var("KELVIN_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(seed);
        println!("KELVIN_TEST_SEED={seed}");
        Random(seed)
    }

    /// Another one, for another thread.
    pub fn fork(&mut self) -> Random {
        Random(self.next())
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub fn between(&mut self, from: i64, to: i64) -> i64 {
        from + self.below((to - from) as u64) as i64
    }

    pub fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len() as u64) as usize]
    }

    pub fn chance(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }
}
