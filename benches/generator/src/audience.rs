//! Who has to see which commit.

/// Who has to see a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Every client: there are so many.
    All(usize),
    /// The one who has its key among `keys`, of which each client has `each` in a row.
    Owner {
        /// All the keys.
        keys: usize,
        /// Those of one client.
        each: usize,
    },
}

impl Audience {
    /// The key that a commit changes. Each comes once before one comes again, and neighbours
    /// in time are not neighbours in number.
    pub fn key(self, commit: u32) -> usize {
        let Audience::Owner { keys, .. } = self else { return 0 };
        let (at, keys) = (u64::from(commit) % keys as u64, keys as u64);
        (at * stride(keys) % keys) as usize
    }

    /// Whether a client has to see a commit.
    pub fn has(self, commit: u32, client: usize) -> bool {
        match self {
            Audience::All(_) => true,
            Audience::Owner { each, .. } => self.key(commit) / each == client,
        }
    }

    /// Deliveries that so many commits make.
    pub fn deliveries(self, commits: u32) -> u64 {
        match self {
            Audience::All(clients) => clients as u64 * u64::from(commits),
            Audience::Owner { .. } => u64::from(commits),
        }
    }
}

/// A step through `n` numbers that meets all: about their golden section, without a common divisor.
fn stride(n: u64) -> u64 {
    let coprime = |s: &u64| {
        let (mut a, mut b) = (*s, n);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a == 1
    };
    let wanted = (n as f64 * 0.618) as u64;
    (wanted.max(1)..=n.max(1)).find(coprime).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_changed_once_before_one_is_again_and_by_its_owner_seen() {
        for keys in [1, 2, 10, 100, 1_000, 1_009] {
            let audience = Audience::Owner { keys, each: 5 };
            let mut all: Vec<usize> = (0..keys as u32).map(|c| audience.key(c)).collect();
            assert!((0..keys as u32).all(|c| audience.has(c, audience.key(c) / 5)));
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), keys);
        }
    }

    #[test]
    fn deliveries_count_every_client_who_has_to_see_a_commit() {
        assert_eq!(Audience::All(10).deliveries(3), 30);
        assert_eq!(Audience::Owner { keys: 50, each: 5 }.deliveries(3), 3);
    }
}
