//! What the readings of whole views report, on its way to the tasks that take it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::task::{Poll, Waker};

use super::effect::{ReadingId, Reported};

/// Of one reading: there is one report at most, since the next one comes when it is asked for.
#[derive(Default)]
struct Place {
    report: Option<Reported>,
    waiting: Option<Waker>,
}

/// Readings under way.
#[derive(Default)]
pub struct Readings {
    places: RefCell<BTreeMap<ReadingId, Place>>,
    next: Cell<ReadingId>,
}

/// A reading, until it is dropped: reports that come later are of no use.
pub struct Open<'r> {
    readings: &'r Readings,
    /// Its number.
    pub id: ReadingId,
}

impl Readings {
    /// A new one.
    pub fn open(&self) -> Open<'_> {
        let id = self.next.replace(self.next.get() + 1);
        self.places.borrow_mut().insert(id, Place::default());
        Open { readings: self, id }
    }

    /// Takes a report. Returns it if nobody waits for it any more.
    pub fn report(&self, id: ReadingId, report: Reported) -> Option<Reported> {
        let mut places = self.places.borrow_mut();
        let Some(place) = places.get_mut(&id) else { return Some(report) };
        debug_assert!(place.report.is_none(), "the next comes only when it is asked for");
        place.report = Some(report);
        if let Some(waker) = place.waiting.take() {
            waker.wake();
        }
        None
    }
}

impl Open<'_> {
    /// Waits for the next report.
    pub async fn next(&self) -> Reported {
        poll_fn(|cx| {
            let mut places = self.readings.places.borrow_mut();
            let place = places.entry(self.id).or_default();
            if let Some(report) = place.report.take() {
                return Poll::Ready(report);
            }
            place.waiting = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.readings.places.borrow_mut().remove(&self.id);
    }
}
