//! Executors: one thread per core, tasks that never leave it, timers.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_lite::FutureExt;
use glommio::timer::Timer;
use glommio::{LocalExecutorBuilder, Placement};

use crate::watchdog::Pulse;

/// How long a task may run before `need_preempt` says that others wait.
/// Socket work is measured in tens of microseconds, so a millisecond is the most that a
/// slice of long work may add to somebody's latency.
pub const PREEMPT_AFTER: Duration = Duration::from_millis(1);

/// Memory registered with the ring for direct file I/O, per executor, in bytes.
/// Kelvin reads its files elsewhere for now; the default of 10 MiB would only be locked.
const IO_MEMORY: usize = 256 << 10;

/// What closing files may take when an executor ends.
const CLOSING: Duration = Duration::from_millis(2);

/// Least locked memory (`RLIMIT_MEMLOCK`) that an executor needs, in bytes.
pub const MEMLOCK_NEEDED: u64 = 512 << 10;

/// Why an executor could not start; the text says what to do.
#[derive(Debug)]
pub enum StartError {
    /// The kernel or a sandbox refuses io_uring.
    NoRing(String),
    /// `RLIMIT_MEMLOCK` is below [`MEMLOCK_NEEDED`]; holds the limit in bytes.
    LockedMemory(u64),
    /// The thread could not be started.
    Thread(String),
    /// Its main future panicked; the panic hook has logged it.
    Panicked,
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StartError::NoRing(cause) => write!(
                f,
                "io_uring is not available: {cause}. Kelvin needs Linux 5.8 or newer and permission to \
                 use io_uring. In a container, allow the system calls io_uring_setup, io_uring_enter and \
                 io_uring_register (for Docker: --security-opt seccomp=<profile that allows them>); on a \
                 host, check that sysctl kernel.io_uring_disabled is 0"
            ),
            StartError::LockedMemory(limit) => write!(
                f,
                "too little memory may be locked: the limit is {limit} bytes, {MEMLOCK_NEEDED} are needed \
                 per core. Raise it (ulimit -l unlimited, LimitMEMLOCK=infinity in a systemd unit, \
                 --ulimit memlock=-1 for a container)"
            ),
            StartError::Thread(cause) => write!(f, "an executor thread could not be started: {cause}"),
            StartError::Panicked => f.write_str("an executor thread panicked: the log says where"),
        }
    }
}

impl std::error::Error for StartError {}

/// Checks that an executor can run here at all, by running one.
pub fn probe() -> Result<(), StartError> {
    start("probe", None, || async {})?.join()
}

/// A running executor.
pub struct Executor<T: Send + 'static> {
    thread: JoinHandle<Result<T, StartError>>,
}

impl<T: Send + 'static> Executor<T> {
    /// Waits for its main future. Blocks the calling thread; never call it on an executor.
    pub fn join(self) -> Result<T, StartError> {
        self.thread.join().unwrap_or(Err(StartError::Panicked))
    }
}

/// Starts an executor on a thread of its own and runs `main` there until it returns. Tasks that
/// are not done then end where they wait.
///
/// `cpu` binds the thread to one CPU; `None` leaves the choice to the kernel.
pub fn start<F, Fut, T>(name: &str, cpu: Option<usize>, main: F) -> Result<Executor<T>, StartError>
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = T> + 'static,
    T: Send + 'static,
{
    let placement = cpu.map_or(Placement::Unbound, Placement::Fixed);
    let run = move || {
        let executor = LocalExecutorBuilder::new(placement)
            .preempt_timer(PREEMPT_AFTER)
            .io_memory(IO_MEMORY)
            .make()
            .map_err(|e| explain(&e))?;
        // Before its first round: it may sleep without having begun.
        let pulse = Pulse::of_this_thread();
        executor.run(pulse.beside(async move {
            RUNNING.set(true);
            // Caught here, so that what waits on this executor is ended in order then, too.
            let out = AssertUnwindSafe(async move { main().await }).catch_unwind().await;
            RUNNING.set(false);
            end_tasks();
            // Files that they held are closed through the ring.
            sleep(CLOSING).await;
            out.map_err(|_| StartError::Panicked)
        }))
    };
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    thread.map(|thread| Executor { thread }).map_err(|e| StartError::Thread(e.to_string()))
}

fn explain(error: &glommio::GlommioError<()>) -> StartError {
    let text = error.to_string();
    if text.contains("memlock") || text.contains("MemLock") {
        let limit = text.split(|c: char| !c.is_ascii_digit()).find_map(|n| n.parse().ok()).unwrap_or(0);
        return StartError::LockedMemory(limit);
    }
    if text.contains("io_uring") || text.contains("Unsupported") || text.contains("probe") {
        return StartError::NoRing(text);
    }
    StartError::Thread(text)
}

/// A task of this executor. Dropping it cancels the task.
#[must_use = "dropping a task cancels it; detach() lets it run on"]
pub struct Task<T> {
    task: glommio::Task<Option<T>>,
}

impl<T: 'static> Task<T> {
    /// Lets the task run on without a handle.
    pub fn detach(self) {
        drop(self.task.detach());
    }

    /// Cancels the task and waits until it is gone.
    pub async fn cancel(self) {
        self.task.cancel().await;
    }
}

impl<T> Future for Task<T> {
    /// `None`: the task panicked. The panic hook has logged it.
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.task.poll(cx)
    }
}

/// Runs a future on this executor. A panic in it ends the task, never the core.
///
/// The future is first polled inside this call, so hold no `RefCell` borrow across it. That is
/// also why it is boxed first: on the way to its first poll the executor moves it from frame to
/// frame, and a task that starts a task has both ways on one stack.
pub fn spawn<T: 'static>(future: impl Future<Output = T> + 'static) -> Task<T> {
    let guarded = AssertUnwindSafe(Box::pin(future)).catch_unwind();
    let body = Rc::new(Body(RefCell::new(Some(guarded))));
    remember(body.clone());
    let run = std::future::poll_fn(move |cx| {
        let mut future = body.0.borrow_mut();
        let Some(running) = future.as_mut() else { return Poll::Pending };
        let out = ready!(Pin::new(running).poll(cx));
        *future = None;
        Poll::Ready(out.ok())
    });
    Task { task: glommio::spawn_local(run) }
}

/// What a task does, until it is done. It is borrowed while it runs; [`end_tasks`], which takes
/// it away, is called by no task.
struct Body<F>(RefCell<Option<F>>);

/// A task that can be ended.
trait End {
    fn end(&self);
}

impl<F> End for Body<F> {
    fn end(&self) {
        // What it holds may use it while it goes.
        let future = self.0.borrow_mut().take();
        drop(future);
    }
}

/// Tasks that may not be done.
struct Tasks {
    all: Vec<Weak<dyn End>>,
    /// At so many those that are done are forgotten.
    forget_at: usize,
}

/// So many tasks that are done may be remembered at any rate.
const FEW_TASKS: usize = 64;

const NO_TASKS: Tasks = Tasks { all: Vec::new(), forget_at: FEW_TASKS };

thread_local! {
    static TASKS: RefCell<Tasks> = const { RefCell::new(NO_TASKS) };
    static RUNNING: Cell<bool> = const { Cell::new(false) };
}

/// Whether the calling thread is an executor whose main future has not returned: a task that is begun
/// here gets to run.
pub(crate) fn is_running() -> bool {
    RUNNING.get()
}

fn remember(task: Rc<dyn End>) {
    TASKS.with_borrow_mut(|tasks| {
        if tasks.all.len() >= tasks.forget_at {
            tasks.all.retain(|task| task.strong_count() > 0);
            tasks.forget_at = (tasks.all.len() * 2).max(FEW_TASKS);
        }
        tasks.all.push(Rc::downgrade(&task));
    });
}

/// Ends all tasks. A task that waits and what it waits for keep each other, and the runtime, when
/// it ends, forgets both, with whatever they hold.
fn end_tasks() {
    // What goes may begin another.
    loop {
        let tasks = TASKS.with_borrow_mut(|tasks| std::mem::replace(tasks, NO_TASKS));
        if tasks.all.is_empty() {
            return;
        }
        tasks.all.iter().filter_map(Weak::upgrade).for_each(|task| task.end());
    }
}

/// The runtime counts whole milliseconds and rounds down: a timer may ring so much too early.
const TIMER_TICK: Duration = Duration::from_millis(1);

/// Waits for the given time.
pub fn sleep(duration: Duration) -> Sleep {
    Sleep { until: now() + duration, registered: None }
}

/// A wait for a point in time. It may be polled again when it is over: it is over then, too. Whoever polls it
/// by hand cannot know how long its thread was set aside between two looks at the clock.
///
/// The runtime's timer registers itself each time it is polled, and forgets the registration
/// before, which then stays until its time has come. Beside a future that is polled thousands
/// of times a second a limit of a minute would leave a hundred thousand, and the executor looks
/// at all of them in every round. So it is polled once for each waker; dropping it ends it.
#[must_use = "a wait does nothing unless it is awaited"]
pub struct Sleep {
    until: Instant,
    registered: Option<(Timer, Waker)>,
}

impl Sleep {
    /// Waits anew, for the given time from now on.
    pub fn reset(&mut self, duration: Duration) {
        self.registered = None;
        self.until = now() + duration;
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let left = self.until.saturating_duration_since(now());
        if left.is_zero() {
            self.registered = None;
            return Poll::Ready(());
        }
        // It rings no sooner than `until`, so a registration that is there has not rung.
        if self.registered.as_ref().is_some_and(|(_, waker)| waker.will_wake(cx.waker())) {
            return Poll::Pending;
        }
        self.registered = None;
        let timer = (Timer::new(left + TIMER_TICK), cx.waker().clone());
        let (timer, _) = self.registered.insert(timer);
        ready!(Pin::new(timer).poll(cx));
        // The thread was set aside for so long that the timer has rung already.
        self.registered = None;
        Poll::Ready(())
    }
}

/// Lets other tasks of this executor run.
pub async fn yield_now() {
    futures_lite::future::yield_now().await;
}

/// Processor's time that this thread has had.
pub fn thread_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a local. This clock is there on every Linux; if not, it stands.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The monotonic clock.
pub fn now() -> Instant {
    Instant::now()
}

/// Waits for `future` at most `limit`; `None` when the time is up.
///
/// What is waited for with a limit comes from outside, so it is rare and large: it is boxed, or
/// whoever awaits it would carry room for it for life.
pub fn timeout<T>(limit: Duration, future: impl Future<Output = T>) -> impl Future<Output = Option<T>> {
    let future = Box::pin(future);
    let timer = async move {
        sleep(limit).await;
        None
    };
    async move { Some(future.await) }.or(timer)
}

/// Runs blocking work on a thread beside the executor and waits for its result.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    glommio::executor().spawn_blocking(work).await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[test]
    fn a_panicking_task_does_not_take_the_core_with_it() {
        let executor = start("test", None, || async {
            let bad = spawn(async { panic!("on purpose") });
            let result: Option<()> = bad.await;
            let good = spawn(async { 7 }).await;
            (result, good)
        });
        assert_eq!(executor.unwrap().join().unwrap(), (None, Some(7)));
    }

    #[test]
    fn tasks_that_wait_when_an_executor_ends_let_go_of_what_they_hold() {
        let held = Arc::new(());
        let (detached, kept, begun) = (held.clone(), held.clone(), held.clone());
        let executor = start("test", None, || async move {
            // It waits for what it holds itself.
            let (sender, receiver) = crate::channel::bounded::<()>(1);
            spawn(async move {
                let _held = (detached, sender);
                receiver.recv().await
            })
            .detach();
            let task = spawn(async move {
                let _held = kept;
                std::future::pending::<()>().await;
            });
            std::mem::forget(task);
            spawn(async move { begun }).detach();
            yield_now().await;
        });
        executor.unwrap().join().unwrap();
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[test]
    fn a_sleep_beside_a_busy_task_never_ends() {
        let executor = start("test", None, || async {
            let sleeping: Vec<_> =
                (0..500).map(|i| spawn(sleep(Duration::from_micros(20_000 + i * 137)))).collect();
            // The executor looks at its timers all the time, not only when the next is due.
            let until = now() + Duration::from_secs(1);
            while now() < until {
                yield_now().await;
            }
            let mut ended = 0;
            for task in sleeping {
                ended += usize::from(timeout(Duration::from_millis(1), task).await.is_some());
            }
            ended
        });
        assert_eq!(executor.unwrap().join().unwrap(), 500);
    }

    #[test]
    fn an_executor_whose_main_future_panics_says_so_and_ends_its_tasks() {
        let held = Arc::new(());
        let kept = held.clone();
        let executor = start("test", None, || async move {
            spawn(async move {
                let _kept = kept;
                std::future::pending::<()>().await;
            })
            .detach();
            yield_now().await;
            panic!("on purpose");
        });
        let executor: Executor<()> = executor.unwrap();
        assert!(matches!(executor.join(), Err(StartError::Panicked)));
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[test]
    fn a_sleep_that_is_over_may_be_asked_again_and_set_anew() {
        let executor = start("test", None, || async {
            let mut waiting = std::pin::pin!(sleep(Duration::ZERO));
            let again = std::future::poll_fn(|cx| {
                let both = (waiting.as_mut().poll(cx), waiting.as_mut().poll(cx));
                waiting.reset(Duration::from_millis(3));
                Poll::Ready((both, waiting.as_mut().poll(cx)))
            });
            let states = again.await;
            waiting.await;
            states
        });
        let ready = Poll::Ready(());
        assert_eq!(executor.unwrap().join().unwrap(), ((ready, ready), Poll::Pending));
    }

    #[test]
    fn a_sleep_that_is_polled_often_leaves_its_registrations_behind() {
        struct Nobody;
        impl Wake for Nobody {
            fn wake(self: Arc<Self>) {}
        }
        let executor = start("test", None, || async {
            let nobody = Arc::new(Nobody);
            let waker = Waker::from(nobody.clone());
            let mut sleeping = std::pin::pin!(sleep(Duration::from_secs(60)));
            for _ in 0..100 {
                let _ = sleeping.as_mut().poll(&mut Context::from_waker(&waker));
            }
            Arc::strong_count(&nobody)
        });
        // The test, its waker, one registration, and the waker to compare others with.
        assert_eq!(executor.unwrap().join().unwrap(), 4);
    }

    #[test]
    fn a_sleep_wakes_whoever_asked_last() {
        #[derive(Default)]
        struct Asked(AtomicUsize);
        impl Wake for Asked {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let executor = start("test", None, || async {
            let (first, last) = (Arc::new(Asked::default()), Arc::new(Asked::default()));
            let mut sleeping = std::pin::pin!(sleep(Duration::from_millis(20)));
            for asked in [&first, &last] {
                let waker = Waker::from(asked.clone());
                assert!(sleeping.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            }
            let woken = async {
                while last.0.load(Ordering::Relaxed) == 0 {
                    sleep(Duration::from_millis(5)).await;
                }
            };
            let in_time = timeout(Duration::from_secs(10), woken).await.is_some();
            (in_time, first.0.load(Ordering::Relaxed))
        });
        assert_eq!(executor.unwrap().join().unwrap(), (true, 0));
    }

    #[test]
    fn a_timeout_ends_a_future_that_never_does() {
        let executor = start("test", None, || async {
            timeout(Duration::from_millis(5), std::future::pending::<()>()).await
        });
        assert_eq!(executor.unwrap().join().unwrap(), None);
    }
}
