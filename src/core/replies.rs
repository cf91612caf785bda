//! What comes in for tasks that have asked for it: reports of readings, answers of the app, verdicts on tokens.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// Number of a question.
pub type QuestionId = u64;

/// Of one question: there is one reply at most that nobody has taken, since the next one comes when it is asked for.
struct Place<T> {
    reply: Option<T>,
    waiting: Option<Waker>,
}

/// Questions of one kind that wait for replies.
pub struct Replies<T> {
    places: RefCell<BTreeMap<QuestionId, Place<T>>>,
    next: Cell<QuestionId>,
}

impl<T> Default for Replies<T> {
    fn default() -> Replies<T> {
        Replies { places: RefCell::default(), next: Cell::new(0) }
    }
}

/// A question, until it is dropped: replies that come later are of no use.
pub struct Open<'r, T> {
    replies: &'r Replies<T>,
    /// Its number.
    pub id: QuestionId,
}

impl<T> Replies<T> {
    /// A new question.
    pub fn open(&self) -> Open<'_, T> {
        let id = self.next.replace(self.next.get() + 1);
        self.places.borrow_mut().insert(id, Place { reply: None, waiting: None });
        Open { replies: self, id }
    }

    /// Takes a reply. Returns it if nobody waits for it any more.
    pub fn reply(&self, id: QuestionId, reply: T) -> Option<T> {
        let mut places = self.places.borrow_mut();
        let Some(place) = places.get_mut(&id) else { return Some(reply) };
        debug_assert!(place.reply.is_none(), "the next comes only when it is asked for");
        place.reply = Some(reply);
        if let Some(waker) = place.waiting.take() {
            waker.wake();
        }
        None
    }
}

impl<T> Open<'_, T> {
    /// Waits for the next reply.
    pub async fn next(&self) -> T {
        poll_fn(|cx| {
            let mut places = self.replies.places.borrow_mut();
            let place = places.entry(self.id).or_insert_with(|| Place { reply: None, waiting: None });
            if let Some(reply) = place.reply.take() {
                return Poll::Ready(reply);
            }
            place.waiting = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

impl<T> Drop for Open<'_, T> {
    fn drop(&mut self) {
        self.replies.places.borrow_mut().remove(&self.id);
    }
}
