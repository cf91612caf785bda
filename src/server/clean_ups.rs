//! Lets the app forget results of mutations that clients have taken note of (`docs/spec/view-syncer.md` §9.6).

use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_lite::FutureExt;
use kelvin_io::executor::spawn;

use super::core::Core;
use super::session::Session;
use super::warnings::Warning;
use crate::backend::clean_up::{CleanUp, Forget};
use crate::backend::turns::CallKind;

fn unix_milliseconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// Has the app asked, now or when what is under way is done.
pub fn clean_up(session: &Rc<Session>, forget: Forget) {
    let core = &session.core;
    if core.config.mutate.urls.is_empty() {
        return;
    }
    let group: Rc<str> = session.request.group_id.as_str().into();
    let request_id = format!("cleanup-{}-{}", session.request.wsid, unix_milliseconds());
    let context = session.push_context.borrow().clone();
    let start = {
        let mut all = core.clean_ups.borrow_mut();
        let of_group = all.entry(group.clone()).or_default();
        of_group.add(CleanUp { context, request_id, forget });
        !std::mem::replace(&mut of_group.busy, true)
    };
    if start {
        let core = core.clone();
        spawn(async move {
            let cleaning = AssertUnwindSafe(Box::pin(clean_up_all(&core, &group))).catch_unwind();
            if cleaning.await.is_err() {
                // The next acknowledgement begins anew.
                core.clean_ups.borrow_mut().remove(&group);
            }
        })
        .detach();
    }
}

/// Sends a group's requests, one at a time. Failures are only logged.
async fn clean_up_all(core: &Core, group: &Rc<str>) {
    loop {
        let next = {
            let mut all = core.clean_ups.borrow_mut();
            let Some(next) = all.get_mut(group).and_then(|of_group| of_group.take()) else {
                all.remove(group);
                return;
            };
            next
        };
        let call = (CallKind::CleanUp, &**group);
        let body = next.body(group, unix_milliseconds());
        if let Err(error) = core.caller.post(call, &core.config.mutate, &next.context, body).await {
            let text = format_args!("results of mutations were not cleaned up: {}", error.message);
            core.warnings.warn(Warning::CleanUp, text);
        }
    }
}
