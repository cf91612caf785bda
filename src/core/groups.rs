//! The work of groups between batches, and what is given up meanwhile.

use std::rc::Rc;

use futures_lite::future::yield_now;

use super::recording::RecordQueue;
use super::slices::Slices;
use super::state::CoreState;
use crate::testing::faults::{self, Fault};
use crate::testing::met::{Limit, met};

/// Does what is due for groups, between batches.
pub async fn work(state: Rc<CoreState>) {
    loop {
        state.signals.work.wait().await;
        // A batch that failed half way is tried again, and says when groups may go on. To ask for work meanwhile would
        // raise the signal again, and never rest.
        if state.torn.get() {
            continue;
        }
        while state.with(|s| s.has_work()) && !state.torn.get() {
            let held = match faults::is_on(Fault::Between) {
                true => None,
                false => Some(state.version_lock.lock().await),
            };
            if !state.torn.get() {
                work_for_a_slice(&state);
            }
            drop(held);
            yield_now().await;
        }
        sweep(&state).await;
    }
}

fn work_for_a_slice(state: &CoreState) {
    let work = || {
        let now = state.now();
        state.with(|syncer| syncer.next_due().map(|group| syncer.work(&group, now)))
    };
    while work().is_some() && !state.is_over() {}
}

/// Gives up what nobody needs any more.
async fn sweep(state: &CoreState) {
    let slices = Slices::of(state);
    while state.with(|s| s.shared.views.sweep()) {
        slices.rest_if_over().await;
    }
}

/// Fills the files of the record log, in slices beside everything else.
pub async fn fill_records(state: Rc<CoreState>) {
    loop {
        state.signals.fill.wait().await;
        let mut more = true;
        while more {
            match state.record_queue() {
                // When it takes records again the file is begun anew.
                RecordQueue::Failed => break,
                RecordQueue::Long | RecordQueue::Overfull => {
                    met(Limit::RecordFilling);
                    state.signals.recorded.wait().await;
                    continue;
                }
                RecordQueue::Short => {}
            }
            let held = state.version_lock.lock().await;
            let now = state.now();
            while more && !state.torn.get() {
                more = state.with(|s| s.fill_records(now));
                if state.is_over() {
                    break;
                }
            }
            drop(held);
            yield_now().await;
        }
    }
}
