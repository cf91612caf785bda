//! Errors that a client must not be told yet (`docs/spec/sync-protocol.md` §4.3).
//!
//! When a stock client has taken `connected` it reads its store, and only then counts itself as connected.
//! An error that it takes in between ends its connection, and is forgotten when the store has answered: it
//! goes on as connected, without a socket. Whatever it sends on a connection it sends after that, so the
//! first message shows that an error may be told. Until then it is kept.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_lite::AsyncReadExt;
use kelvin_io::executor::now;
use kelvin_io::socket::ReadHalf;
use kelvin_io::websocket::{FrameReader, Message};

/// How long after `connected` an error may be kept. A stock client gives an attempt up after ten seconds, of
/// which some have passed when it is told `connected`; one second more for the way there.
pub const SETTLES_WITHIN: Duration = Duration::from_secs(11);

/// Most bytes that are read while an error is kept and no message has come.
const MAX_READ: usize = 64 << 10;

/// Whether a client has shown that it can be told an error, and the error that it will be told.
#[derive(Default)]
pub struct Settling {
    /// When it was told `connected`; `None`: it was not, or it has shown it.
    since: Cell<Option<Instant>>,
    kept: RefCell<Vec<Bytes>>,
}

impl Settling {
    /// The client has been told `connected`.
    pub fn begin(&self) {
        self.since.set(Some(now()));
    }

    /// How long an error would be kept at most.
    pub fn left(&self) -> Duration {
        let since = self.since.get();
        since.map_or(Duration::ZERO, |since| {
            SETTLES_WITHIN.saturating_sub(now().saturating_duration_since(since))
        })
    }

    /// Keeps the last frames of a connection.
    pub fn keep(&self, frames: &[Bytes]) {
        self.kept.borrow_mut().extend_from_slice(frames);
    }

    /// Whether something is kept.
    pub fn keeps_any(&self) -> bool {
        !self.kept.borrow().is_empty()
    }

    /// The client has shown it, or has had the time. Returns what was kept.
    pub fn end(&self) -> Vec<Bytes> {
        self.since.set(None);
        self.kept.take()
    }
}

/// Waits until a message comes, or nothing can come any more.
pub async fn until_shown(reader: &mut ReadHalf, frames: &mut FrameReader) {
    let mut chunk = vec![0u8; 4 << 10];
    let mut read = 0;
    while read <= MAX_READ {
        loop {
            match frames.next_message() {
                Ok(None) => break,
                // Proxies and libraries send these by themselves.
                Ok(Some(Message::Ping(_) | Message::Nothing(_))) => {}
                Ok(Some(Message::Data(_) | Message::Close)) | Err(_) => return,
            }
        }
        match reader.read(&mut chunk).await {
            Ok(count @ 1..) => {
                frames.feed(&chunk[..count]);
                read += count;
            }
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::AsyncWriteExt;
    use kelvin_io::executor::{start, timeout};
    use kelvin_io::socket::{Listener, TcpStream};

    use super::*;

    /// Whether it is over that nothing was shown, after so many empty pongs.
    fn is_over_after(pongs: usize) -> bool {
        let executor = start("test", None, move || async move {
            let listener = Listener::bind(0).expect("a port");
            let port = listener.local_addr().expect("an address").port();
            let mut client = TcpStream::connect("127.0.0.1", port).await.expect("connected");
            let mut reader = listener.accept().await.expect("accepted").split().0;
            client.write_all(&[0x8a, 0x80, 1, 2, 3, 4].repeat(pongs)).await.expect("sent");
            let mut frames = FrameReader::new(1_000, Vec::new());
            timeout(Duration::from_millis(300), until_shown(&mut reader, &mut frames)).await.is_some()
        });
        executor.unwrap().join().unwrap()
    }

    #[test]
    fn who_sends_without_an_end_and_says_nothing_is_not_waited_for() {
        assert!(!is_over_after(10));
        assert!(is_over_after(2 * MAX_READ / 6));
    }
}
