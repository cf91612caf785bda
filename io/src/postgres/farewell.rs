//! Saying goodbye. A session that just vanishes leaves a line in the server's log, each time.
//!
//! Sessions are dropped in many places, by cancelled tasks, too, and whoever drops one cannot wait. So what is
//! left to say is said by a task of its own, and whoever ends an executor waits for those tasks
//! ([`until_closed`]).

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::stream::Stream;
use crate::channel::{Receiver, Sender, bounded};
use crate::executor::{self, sleep};

/// Longest time that a goodbye may take. A server that is gone, or sends the rest of a large answer first,
/// must not hold up the end of the process.
const LIMIT: Duration = Duration::from_secs(2);

/// Bytes that are read at a time while the server has not closed, and the pause after each. A walsender looks
/// for messages when it cannot send, so what it sends is not taken as fast as it can.
const DISCARD: usize = 64 << 10;
const PAUSE: Duration = Duration::from_millis(5);

/// The Terminate message.
const TERMINATE: [u8; 5] = [b'X', 0, 0, 0, 4];

thread_local! {
    /// Every goodbye that is under way holds a clone of the sender.
    static UNDER_WAY: RefCell<(Sender<()>, Receiver<()>)> = RefCell::new(bounded(1));
}

/// Has something said in the background, within [`LIMIT`]. Nothing is said where no executor runs.
pub(super) fn say(goodbye: impl Future<Output = ()> + 'static) {
    if !executor::is_running() {
        return;
    }
    let under_way = UNDER_WAY.with_borrow(|(sender, _)| sender.clone());
    executor::spawn(async move {
        executor::timeout(LIMIT, goodbye).await;
        drop(under_way);
    })
    .detach();
}

/// Waits until all sessions of this executor that were dropped so far are closed, for two seconds at most.
/// Whoever ends an executor calls this, since tasks that are not done end with it.
pub async fn until_closed() {
    let (sender, closed) = UNDER_WAY.replace(bounded(1));
    drop(sender);
    // Nothing is ever sent: it fails when the last clone has gone.
    let _ = closed.recv().await;
}

/// The bytes of a session that says goodbye when it is dropped.
pub(super) struct Polite {
    /// `None` only while it is dropped.
    stream: Option<Stream>,
    /// The server takes messages: before that, a goodbye would itself be an error.
    is_open: bool,
}

impl Polite {
    /// A connection whose session has not begun.
    pub(super) fn new(stream: Stream) -> Polite {
        Polite { stream: Some(stream), is_open: false }
    }

    /// The session has begun.
    pub(super) fn opened(&mut self) {
        self.is_open = true;
    }

    fn with<T>(
        self: Pin<&mut Self>,
        f: impl FnOnce(Pin<&mut Stream>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match &mut self.get_mut().stream {
            Some(stream) => f(Pin::new(stream)),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl Drop for Polite {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take().filter(|_| self.is_open) {
            say(terminate(stream));
        }
    }
}

/// Says goodbye and waits until the server has closed: closing first, with bytes that were not read, would
/// take back what was just said.
async fn terminate(mut stream: Stream) {
    let said = async {
        stream.write_all(&TERMINATE).await?;
        stream.flush().await?;
        stream.shutdown().await
    };
    if said.await.is_err() {
        return;
    }
    let mut rest = vec![0; DISCARD];
    while matches!(stream.read(&mut rest).await, Ok(1..)) {
        sleep(PAUSE).await;
    }
}

impl AsyncRead for Polite {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Polite {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.with(|stream| stream.poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_shutdown(cx))
    }
}
