//! Performs what a core asks of others: calls of the app, verdicts on tokens, the inspector.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;

use futures_lite::FutureExt;
use kelvin_io::executor::{Task, spawn};

use super::inspect;
use super::serving::Serving;
use crate::backend::call::CallError;
use crate::backend::turns::CallKind;
use crate::core::effect::{AppCall, Event, QuestionId};
use crate::core::session::{Session, panicked};
use crate::protocol::inspect::Request;
use crate::testing::panics;

/// Calls of the app that are under way.
#[derive(Default)]
pub struct AppCalls(RefCell<HashMap<QuestionId, Task<()>>>);

impl AppCalls {
    /// Nobody waits for the answer any more: the connection to the app is closed, and its place is free.
    pub fn drop_call(&self, id: QuestionId) {
        // Not while the others are borrowed: what is dropped may come back here.
        let task = self.0.borrow_mut().remove(&id);
        drop(task);
    }

    /// The task goes on to its end by itself.
    fn let_go(&self, id: QuestionId) {
        if let Some(task) = self.0.borrow_mut().remove(&id) {
            task.detach();
        }
    }
}

/// Calls the app, and tells the core of the answer.
pub fn call(serving: &Rc<Serving>, id: QuestionId, call: AppCall) {
    let (caller, is_over) = (serving.clone(), Rc::new(Cell::new(false)));
    let over = is_over.clone();
    let task = spawn(async move {
        let posting = Box::pin(async {
            panics::here("calling the app");
            let config = &caller.config;
            let endpoint = match call.kind {
                CallKind::Transform => &config.query,
                CallKind::Push | CallKind::CleanUp => &config.mutate,
            };
            caller.caller.post((call.kind, &call.group), endpoint, &call.context, call.body).await
        });
        // Somebody waits for an answer in any case.
        let answer = AssertUnwindSafe(posting).catch_unwind().await;
        over.set(true);
        caller.app_calls.let_go(id);
        let answer = answer.unwrap_or_else(|_| Err(CallError::internal("internal", panicked().message)));
        caller.tell(Event::Answered(id, answer));
    });
    // It may have come to its end at once.
    match is_over.get() {
        true => task.detach(),
        false => drop(serving.app_calls.0.borrow_mut().insert(id, task)),
    }
}

/// Has a token judged.
pub fn judge(serving: &Rc<Serving>, id: QuestionId, token: String, user_id: Option<String>) {
    let serving = serving.clone();
    spawn(async move {
        let judging = Box::pin(serving.authenticator.admit(Some(&token), user_id.as_deref()));
        let verdict = AssertUnwindSafe(judging).catch_unwind().await;
        serving.tell(Event::Judged(id, verdict.unwrap_or_else(|_| Err(panicked()))));
    })
    .detach();
}

/// Answers the inspector.
pub fn inspect(
    serving: &Rc<Serving>,
    id: QuestionId,
    session: Rc<Session>,
    (request_id, request): (String, Request),
) {
    let serving = serving.clone();
    spawn(async move {
        let answering = Box::pin(inspect::handle(&session, &serving, &request_id, request));
        if AssertUnwindSafe(answering).catch_unwind().await.is_err() {
            session.fail(&panicked());
        }
        serving.tell(Event::Inspected(id));
    })
    .detach();
}
