//! How long work of a core makes room for other work.

use futures_lite::future::yield_now;

use super::state::CoreState;
use crate::views::pace::Pace;

/// Rests whenever a slice is over. A slice begins when the task goes on.
pub struct Slices<'s> {
    state: &'s CoreState,
    rows_per_look: u32,
    asked: u32,
}

impl Slices<'_> {
    /// Of the slices that the host gives, whose clock is looked at after some rows.
    pub fn of(state: &CoreState) -> Slices<'_> {
        Slices { state, rows_per_look: state.limits.get().rows_per_look, asked: 0 }
    }

    /// Rests if the slice is over, looking at the clock each time.
    pub async fn rest_if_over(&self) {
        if self.state.is_over() {
            yield_now().await;
        }
    }
}

impl Pace for Slices<'_> {
    fn due(&mut self) -> bool {
        self.asked += 1;
        self.asked.is_multiple_of(self.rows_per_look) && self.state.is_over()
    }

    async fn rest(&mut self) {
        yield_now().await;
    }
}
