//! Commits since the oldest hydration under way began: what it has read is brought forward by them (rule 10).

use std::collections::VecDeque;
use std::sync::Arc;

use super::host::Commits;
use crate::model::commit::Commit;
use crate::model::version::StateVersion;
use crate::testing::met::{Limit, met};

/// Commits that are kept.
#[derive(Default)]
pub struct Recent {
    commits: VecDeque<Arc<Commit>>,
    bytes: usize,
    /// Some are missing.
    gap: bool,
}

impl Recent {
    /// Keeps commits, or forgets all if nobody needs them. `most`: bytes.
    pub fn keep(&mut self, taken: &Commits, wanted: bool, most: usize) {
        if !wanted {
            *self = Recent::default();
            return;
        }
        self.gap |= taken.gap;
        for commit in &taken.commits {
            self.bytes += commit.size;
            self.commits.push_back(commit.clone());
        }
        if self.bytes > most {
            met(Limit::RecentBytes);
            *self = Recent { gap: true, ..Recent::default() };
        }
    }

    /// Those after a version; all that there is, if there is a gap.
    pub fn since(&self, version: StateVersion) -> Commits {
        let after = self.commits.iter().filter(|commit| commit.version > version);
        Commits { commits: after.cloned().collect(), gap: self.gap }
    }
}
