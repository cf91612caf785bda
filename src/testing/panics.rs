//! Panics on purpose, so that the tests can prove that each of them is noticed.
//!
//! A place that may panic has a name and asks here. In builds without debug assertions the answer is a
//! constant: nothing panics, and nothing is paid.

#[cfg(debug_assertions)]
mod order {
    use std::future::poll_fn;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Mutex, MutexGuard, PoisonError};
    use std::task::{Poll, Waker};

    /// A place that is to panic, and the places that wait.
    struct Order {
        place: Option<String>,
        waiting: Vec<(&'static str, Waker)>,
    }

    static ORDER: Mutex<Order> = Mutex::new(Order { place: None, waiting: Vec::new() });
    /// Looked at first: places on hot paths ask, too.
    static GIVEN: AtomicBool = AtomicBool::new(false);

    fn lock() -> MutexGuard<'static, Order> {
        ORDER.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the place of this name panic, once.
    pub fn order(place: &str) {
        let mut order = lock();
        order.place = Some(place.to_owned());
        GIVEN.store(true, Ordering::Release);
        order.waiting.drain(..).for_each(|(_, waker)| waker.wake());
    }

    /// Whether this place is to panic; it is asked once for each order.
    fn take(place: &str) -> bool {
        if !GIVEN.load(Ordering::Acquire) {
            return false;
        }
        let taken = lock().place.take_if(|ordered| ordered == place).is_some();
        if taken {
            GIVEN.store(false, Ordering::Release);
        }
        taken
    }

    /// Panics if this place is to.
    pub fn here(place: &str) {
        assert!(!take(place), "on purpose: {place}");
    }

    /// Panics when this place is to; never ends before.
    pub async fn when_ordered(place: &'static str) {
        poll_fn(|cx| {
            let mut order = lock();
            // Under the lock, or an order that is given now would wake nobody.
            if order.place.take_if(|ordered| ordered == place).is_some() {
                GIVEN.store(false, Ordering::Release);
                drop(order);
                panic!("on purpose: {place}");
            }
            order.waiting.retain(|(name, waker)| *name != place || !waker.will_wake(cx.waker()));
            order.waiting.push((place, cx.waker().clone()));
            Poll::Pending
        })
        .await
    }
}

#[cfg(not(debug_assertions))]
mod order {
    /// Has nothing panic: this is no build for tests.
    pub fn order(_: &str) {}

    /// Does nothing.
    #[inline(always)]
    pub fn here(_: &str) {}

    /// Never ends.
    pub async fn when_ordered(_: &'static str) {
        std::future::pending().await
    }
}

pub use order::{here, order, when_ordered};
