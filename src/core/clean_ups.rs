//! Lets the app forget results of mutations that clients have taken note of (`docs/spec/view-syncer.md` §9.6).

use std::panic::AssertUnwindSafe;
use std::rc::Rc;

use futures_lite::FutureExt;

use super::asking;
use super::effect::AppCall;
use super::session::Session;
use super::state::CoreState;
use super::warning::Warning;
use crate::backend::clean_up::{CleanUp, CleanUps, Forget};
use crate::backend::turns::CallKind;

/// Has the app asked, now or when what is under way is done.
pub fn clean_up(state: &Rc<CoreState>, session: &Session, forget: Forget) {
    if !state.entrance.settings.has_mutations {
        return;
    }
    let group: Rc<str> = session.request.group_id.as_str().into();
    let request_id = format!("cleanup-{}-{}", session.request.wsid, state.unix_milliseconds());
    let context = session.push_context.borrow().clone();
    let add = |all: &mut CleanUps| all.add(CleanUp { context, request_id, forget });
    if state.clean_ups.add(&group, add) {
        let shared = state.clone();
        state.spawn("clean-ups", async move {
            let cleaning = AssertUnwindSafe(Box::pin(clean_up_all(&shared, &group))).catch_unwind();
            if cleaning.await.is_err() {
                // The next acknowledgement begins anew.
                shared.clean_ups.remove(&group);
            }
        });
    }
}

/// Sends a group's requests, one at a time. Failures are only logged.
async fn clean_up_all(state: &CoreState, group: &Rc<str>) {
    while let Some(next) = state.clean_ups.next(group, CleanUps::take) {
        let body = next.body(group, state.unix_milliseconds());
        let call = AppCall { kind: CallKind::CleanUp, group: group.clone(), context: next.context, body };
        if let Err(error) = asking::call(state, call).await {
            let text = format_args!("results of mutations were not cleaned up: {}", error.message);
            state.host.warn(Warning::CleanUp, text);
        }
    }
}
