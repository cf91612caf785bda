//! The difference between what a view held and what an evaluation found.

use super::journal::Delta;
use super::pace::Pace;
use super::rows::RowSet;
use super::state::ViewState;
use crate::model::version::StateVersion;
use crate::testing::met::{Limit, met};

/// What came, went and changed. `edited`: rows whose contents changed, if they stay. `None`:
/// more than `most`, which is what a journal keeps.
pub async fn difference(
    before: &ViewState,
    after: &ViewState,
    edited: &RowSet,
    (end, most): (StateVersion, usize),
    pace: &mut impl Pace,
) -> Option<Delta> {
    let mut delta = Delta { end, ..Delta::default() };
    for id in before.iter() {
        if !after.contains(id) {
            delta.left.push(id);
        } else if edited.contains(&id) {
            delta.edited.push(id);
        }
        if pace.due() {
            pace.rest().await;
        }
    }
    for id in after.iter().filter(|id| !before.contains(*id)) {
        delta.entered.push(id);
        if pace.due() {
            pace.rest().await;
        }
    }
    if delta.len() > most {
        met(Limit::Difference);
        return None;
    }
    [&mut delta.entered, &mut delta.left, &mut delta.edited].into_iter().for_each(|ids| ids.sort_unstable());
    Some(delta)
}

#[cfg(test)]
mod tests {
    use futures_lite::future::block_on;

    use super::*;
    use crate::views::pace::NoPace;
    use crate::views::rows::RowId;

    fn state(ids: &[u32]) -> ViewState {
        let mut state = ViewState::new(1, None);
        for id in ids {
            state.enter(RowId(*id));
        }
        state
    }

    #[test]
    fn a_difference_names_what_came_went_and_changed() {
        let ids = |ids: &[u32]| -> Vec<RowId> { ids.iter().map(|i| RowId(*i)).collect() };
        let edited: RowSet = ids(&[1, 3, 4]).into_iter().collect();
        let (before, after) = (state(&[1, 2, 3, 9]), state(&[2, 3, 4]));
        let end = StateVersion(5);
        let delta = block_on(difference(&before, &after, &edited, (end, 4), &mut NoPace)).unwrap();
        assert_eq!(delta.left, ids(&[1, 9]));
        assert_eq!(delta.entered, ids(&[4]));
        assert_eq!(delta.edited, ids(&[3]), "only rows that stay are edited");
    }

    #[test]
    fn more_than_a_journal_keeps_is_not_listed() {
        let (before, after) = (state(&[1, 2, 3, 4]), state(&[]));
        let edited = RowSet::default();
        assert_eq!(block_on(difference(&before, &after, &edited, (StateVersion(5), 3), &mut NoPace)), None);
    }
}
