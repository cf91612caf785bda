//! An outbox and the socket that it is written to: the task that writes, until the connection is over.

use std::cell::{Ref, RefCell};
use std::io::{self, IoSlice};
use std::ops::Deref;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_lite::AsyncWrite;
use futures_lite::future::poll_fn;
use kelvin_io::executor::{sleep, timeout, yield_now};
use kelvin_io::socket::WriteHalf;

use crate::core::inbox::Inbox;
use crate::core::outbox::{Outbox, Task};
use crate::core::send_buffer::SendBuffer;
use crate::core::socket::{Change, Socket};
use crate::model::ids::ConnectionId;
use crate::observe::metrics::Metrics;
use crate::testing::panics;

/// How long a socket may take nothing at all before it is given up. The client would have
/// missed two pongs by then.
const STALL: Duration = Duration::from_secs(30);

/// How long a client may go on sending after its connection was ended. Closing the socket
/// before it has stopped would reset the connection, and the last frames, with the reason
/// in them, could be lost on the way.
const LINGER: Duration = Duration::from_secs(5);

/// Whoever waits for something of an outbox: one task at a time.
#[derive(Default)]
struct Waiting(RefCell<Option<Waker>>);

impl Waiting {
    fn wait(&self, cx: &Context<'_>) {
        *self.0.borrow_mut() = Some(cx.waker().clone());
    }

    fn wake(&self) {
        if let Some(waker) = self.0.borrow_mut().take() {
            waker.wake();
        }
    }
}

/// A socket of this server.
pub struct ServerSocket {
    half: RefCell<WriteHalf>,
    /// The other direction, for as long as messages of it are handled.
    inbox: RefCell<Weak<Inbox>>,
    more: Waiting,
    ended: Waiting,
}

impl ServerSocket {
    /// Where it is written to.
    pub fn half(&self) -> Ref<'_, WriteHalf> {
        self.half.borrow()
    }
}

impl Socket for ServerSocket {
    fn try_send(&self, frames: &[IoSlice<'_>]) -> io::Result<usize> {
        self.half.borrow().try_send(frames)
    }

    fn changed(&self, change: Change) {
        match change {
            Change::More => self.more.wake(),
            Change::Ended => self.ended.wake(),
        }
    }

    fn shutdown(&self) {
        self.half.borrow().shutdown();
    }

    fn inbound(&self) -> usize {
        self.inbox.borrow().upgrade().map_or(0, |inbox| inbox.bytes())
    }
}

/// The way out of one connection.
pub struct Outlet {
    outbox: Rc<Outbox>,
    socket: Rc<ServerSocket>,
}

impl Deref for Outlet {
    type Target = Rc<Outbox>;

    fn deref(&self) -> &Rc<Outbox> {
        &self.outbox
    }
}

impl Outlet {
    /// Of a socket; errors are told in the dialect of `protocol_version`.
    pub fn new(
        id: ConnectionId,
        half: WriteHalf,
        protocol_version: u32,
        metrics: Arc<Metrics>,
        send_buffer: Rc<SendBuffer>,
    ) -> Rc<Outlet> {
        let socket = Rc::new(ServerSocket {
            half: RefCell::new(half),
            inbox: RefCell::default(),
            more: Waiting::default(),
            ended: Waiting::default(),
        });
        let outbox = Outbox::new(id, socket.clone(), protocol_version, metrics, send_buffer);
        Rc::new(Outlet { outbox, socket })
    }

    /// The outbox, for whoever sends.
    pub fn shared(&self) -> Rc<Outbox> {
        self.outbox.clone()
    }

    /// Messages of the same connection wait there.
    pub fn belongs_to(&self, inbox: &Rc<Inbox>) {
        *self.socket.inbox.borrow_mut() = Rc::downgrade(inbox);
    }

    /// Waits until nothing more will be queued. One task at a time may wait.
    pub async fn until_ended(&self) {
        poll_fn(|cx| {
            if self.has_ended() {
                return Poll::Ready(());
            }
            self.socket.ended.wait(cx);
            Poll::Pending
        })
        .await;
    }

    /// Writes what waits until the connection is over. `drained` is called whenever an
    /// outbox that was behind is no longer.
    pub async fn write(self: Rc<Self>, drained: impl Fn()) {
        loop {
            let task = self.until(|task| task != Task::Rest).await;
            panics::here("writing to a client");
            match task {
                Task::Stop => return,
                Task::Finish => {
                    self.socket.half().finish();
                    // Until the reader has seen the end of the connection.
                    timeout(LINGER, self.until(|task| task == Task::Stop)).await;
                    return self.hang_up();
                }
                Task::Rest | Task::Write => {}
            }
            let write = async { Some(self.write_some().await) };
            let stall = async {
                sleep(STALL).await;
                None
            };
            // In this order: a full socket that is asked once more takes a little.
            let Some(has_caught_up) = futures_lite::future::or(stall, write).await else {
                return self.hang_up();
            };
            // A fast reader must not have the core for as long as there is something to write.
            if self.task() == Task::Write {
                yield_now().await;
            }
            if has_caught_up {
                drained();
            }
        }
    }

    /// Waits until there is such a task.
    async fn until(&self, is_it: impl Fn(Task) -> bool) -> Task {
        poll_fn(|cx| {
            let task = self.task();
            if is_it(task) {
                return Poll::Ready(task);
            }
            self.socket.more.wait(cx);
            Poll::Pending
        })
        .await
    }

    /// Waits until the socket took something or broke. True: the outbox was behind, and is no longer.
    async fn write_some(&self) -> bool {
        let written = poll_fn(|cx| {
            if self.task() == Task::Stop {
                return Poll::Ready(None);
            }
            let mut half = self.socket.half.borrow_mut();
            self.offer(|frames| Pin::new(&mut *half).poll_write_vectored(cx, frames)).map(Some)
        });
        match written.await {
            Some(written) => self.written(written),
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::protocol::websocket::{close_frame, text_frame};
    use futures_lite::AsyncReadExt;
    use kelvin_io::executor::{now, spawn, start};
    use kelvin_io::socket::{Listener, TcpStream};

    use super::*;
    use crate::core::limits::OutboxLimits;
    use crate::groups::sink::Sink;
    use crate::protocol::downstream;
    use crate::protocol::error::{Kind, ProtocolError};
    use crate::server::sockets::ServerSockets;

    /// More than a socket takes at once.
    const LARGE: usize = 32 << 20;

    #[test]
    fn an_error_comes_after_a_frame_that_is_half_written_and_not_within_it() {
        let executor = start("test", None, || async {
            let listener = Listener::bind(0).expect("a port");
            let port = listener.local_addr().expect("an address").port();
            let mut client = TcpStream::connect("127.0.0.1", port).await.expect("connected");
            let (mut reader, writer) = listener.accept().await.expect("accepted").split();
            let buffer = SendBuffer::new(Rc::new(ServerSockets::new(now())), OutboxLimits::default());
            let outlet = Outlet::new(ConnectionId(1), writer, 51, Arc::new(Metrics::new(0)), Rc::new(buffer));
            spawn(outlet.clone().write(|| ())).detach();
            outlet.message(&vec![b'x'; LARGE]);
            outlet.message(b"of no use");
            outlet.fail(&ProtocolError::new(Kind::Internal, "over"));
            let mut come = Vec::new();
            client.read_to_end(&mut come).await.expect("all of it");
            drop(client);
            let _ = reader.read(&mut [0]).await;
            outlet.hang_up();
            come
        });
        let come = executor.unwrap().join().unwrap();
        let large = text_frame(&vec![b'x'; LARGE]);
        assert!(come.starts_with(&large), "the frame was cut off");
        let rest = &come[large.len()..];
        let error = text_frame(&downstream::error(&ProtocolError::new(Kind::Internal, "over").body(51)));
        assert_eq!(rest, [&*error, &*close_frame(None)].concat(), "{}", String::from_utf8_lossy(rest));
    }
}
