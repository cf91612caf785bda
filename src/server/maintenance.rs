//! Checks that are repeated while connections are open (`docs/spec/view-syncer.md` §11.6):
//! each connection is validated anew with the app, and each group's queries are transformed
//! anew. Only a refusal of identity ends a connection; other failures are tried again later.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use kelvin_io::executor::{sleep, spawn};

use super::core::Core;
use super::messages::{ask, transform_once};
use super::session::Session;

/// Time between looks at what is due.
const ROUND: Duration = Duration::from_secs(1);

/// Runs for as long as the core does.
pub async fn run(core: Rc<Core>) {
    if core.config.query.urls.is_empty() {
        return;
    }
    // When each group was last transformed; groups without connections fall out.
    let mut transformed: HashMap<String, f64> = HashMap::new();
    loop {
        sleep(ROUND).await;
        let sessions: Vec<Rc<Session>> =
            core.live.borrow().values().filter_map(std::rc::Weak::upgrade).collect();
        let now = core.clock();
        if let Some(interval) = core.config.auth.revalidate_interval {
            sessions.iter().filter(|s| due(s.validated_at.get(), now, interval)).for_each(revalidate);
        }
        if let Some(interval) = core.config.auth.retransform_interval {
            transformed.retain(|group, _| sessions.iter().any(|s| s.request.group_id == *group));
            for session in &sessions {
                let last = transformed.entry(session.request.group_id.clone()).or_insert(now);
                if due(*last, now, interval) {
                    *last = now;
                    retransform(session);
                }
            }
        }
    }
}

fn due(last: f64, now: f64, interval: Duration) -> bool {
    now - last >= interval.as_secs_f64() * 1000.0
}

fn revalidate(session: &Rc<Session>) {
    // Due again after an interval, whatever comes of it.
    session.validated_at.set(session.core.clock());
    let session = session.clone();
    spawn(async move {
        match ask(&session, &[]).await {
            Ok(_) => {}
            Err(error) if error.is_auth() => session.fail(&error),
            Err(error) => crate::warn!("a connection was not validated anew: {}", error.message),
        }
    })
    .detach();
}

fn retransform(session: &Rc<Session>) {
    let session = session.clone();
    spawn(async move {
        match transform_once(&session, true).await {
            Ok(()) => {}
            Err(error) if error.is_auth() => session.fail(&error),
            Err(error) => crate::warn!("queries were not transformed anew: {}", error.message),
        }
    })
    .detach();
}
