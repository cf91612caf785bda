//! TCP sockets: listening on one port from every core, reading and writing in halves,
//! and handing a connection to another core.

use std::cell::RefCell;
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_lite::{AsyncRead, AsyncReadExt, AsyncWrite};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::executor::{Sleep, sleep};
use crate::turn::Turn;

/// Connections that may wait to be accepted. A thousand tabs that come back together after
/// a restart must not see refusals; the kernel caps this at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Most bytes that the kernel takes for a connection before it can send them. The default
/// is some megabytes: what is urgent would wait behind them for many seconds on a slow
/// line, and ten thousand slow lines would take gigabytes.
const MAX_UNSENT: u32 = 256 << 10;

/// Bytes that are read at a time when they are thrown away.
pub const DISCARD: usize = 64 << 10;

/// Most bytes that are thrown away of a peer that was refused: whoever still sends after so many does not stop
/// to read why.
const MAX_DISCARDED: usize = 16 << 20;

/// Whether the port can be had at all.
///
/// `SO_REUSEPORT` lets our own cores share a port, and would silently share it with
/// another process of the same user too; so one plain bind comes first.
pub fn check_port_free(port: u16) -> io::Result<()> {
    let socket = new_socket()?;
    socket.bind(&any_address(port).into())
}

fn new_socket() -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    Ok(socket)
}

fn any_address(port: u16) -> SocketAddr {
    SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0))
}

/// Listens on a port, both stacks, together with the other cores.
pub struct Listener {
    listener: glommio::net::TcpListener,
    /// The same socket, to end a wait on it.
    stopper: Socket,
}

impl Listener {
    /// Binds with `SO_REUSEPORT`. Port 0 takes a free one.
    pub fn bind(port: u16) -> io::Result<Listener> {
        let socket = new_socket()?;
        socket.set_reuse_port(true)?;
        socket.bind(&any_address(port).into())?;
        socket.listen(BACKLOG)?;
        let stopper = socket.try_clone()?;
        // SAFETY: the descriptor was just taken out of `socket`, so the listener is its only owner.
        let listener = unsafe { glommio::net::TcpListener::from_raw_fd(socket.into_raw_fd()) };
        Ok(Listener { listener, stopper })
    }

    /// Takes no more connections: whoever waits in [`Listener::accept`] is told an error. To drop the wait
    /// instead would lose the connection that came at that moment, and leave its client waiting.
    pub fn stop(&self) -> io::Result<()> {
        self.stopper.shutdown(std::net::Shutdown::Both)
    }

    /// The address that was bound.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr().map_err(io_error)
    }

    /// Waits for a connection; it has TCP_NODELAY, and a limit to what the kernel holds.
    pub async fn accept(&self) -> io::Result<TcpStream> {
        let stream = self.listener.accept().await.map_err(io_error)?;
        stream.set_nodelay(true).map_err(io_error)?;
        let stream = TcpStream::new(stream, None);
        // A kernel that does not know it serves all the same.
        let _ = stream.with_socket(|s| s.set_tcp_notsent_lowat(MAX_UNSENT));
        Ok(stream)
    }
}

fn io_error(error: glommio::GlommioError<()>) -> io::Error {
    error.into()
}

/// A connection that belongs to no executor at the moment, and may be sent to one.
pub struct DetachedStream {
    /// Closed when nobody takes it over.
    descriptor: OwnedFd,
}

impl DetachedStream {
    /// Takes the connection over on this executor.
    pub fn attach(self) -> TcpStream {
        // SAFETY: the descriptor is a connected socket that only `self` owned, and it is given up here.
        let stream = unsafe { glommio::net::TcpStream::from_raw_fd(self.descriptor.into_raw_fd()) };
        TcpStream::new(stream, None)
    }
}

/// A connected socket of this executor.
pub struct TcpStream {
    stream: glommio::net::TcpStream,
    /// Only on connections that we opened: a client that is not heard sends a ping, but a
    /// server that is not heard waits for ever.
    watch: Option<Box<Watch>>,
    reads: Turn,
    writes: Turn,
}

/// Looks at a silent socket itself now and then.
///
/// A readiness that was never reported has been seen: megabytes lay unread in a socket while
/// the executor slept (`docs/decisions/002-unreported-readiness.md`). It cannot be told from
/// a silent peer but by reading.
struct Watch {
    timer: Sleep,
    /// Data was found that had not been reported: reports of this socket are not relied on
    /// any more.
    distrust: bool,
}

/// Time between looks at a silent socket, and at one whose reports are not relied on.
const LOOK: Duration = Duration::from_millis(250);
const LOOK_OFTEN: Duration = Duration::from_millis(5);

impl Watch {
    fn new() -> Watch {
        Watch { timer: sleep(LOOK), distrust: false }
    }

    /// Whether it is time to look; if not, the task is woken when it is.
    fn is_due(&mut self, cx: &mut Context<'_>) -> bool {
        if Pin::new(&mut self.timer).poll(cx).is_pending() {
            return false;
        }
        self.timer.reset(if self.distrust { LOOK_OFTEN } else { LOOK });
        // Registers it, unless the thread was set aside until it is over again: then it is time for the next look.
        if Pin::new(&mut self.timer).poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        true
    }
}

impl TcpStream {
    fn new(stream: glommio::net::TcpStream, watch: Option<Box<Watch>>) -> TcpStream {
        TcpStream { stream, watch, reads: Turn::default(), writes: Turn::default() }
    }

    /// Connects. Names are resolved beside the executor.
    pub async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, format!("no address for host {host}"));
        for address in resolve(host, port).await? {
            match glommio::net::TcpStream::connect(address).await {
                Ok(stream) => {
                    stream.set_nodelay(true).map_err(io_error)?;
                    return Ok(TcpStream::new(stream, Some(Box::new(Watch::new()))));
                }
                Err(e) => last = io_error(e),
            }
        }
        Err(last)
    }

    /// Releases the connection so that another executor can take it. Nothing may be in
    /// flight: no reader and no writer may be waiting on it.
    pub fn detach(self) -> DetachedStream {
        // SAFETY: the descriptor was just taken out of the stream, so nobody else owns it.
        DetachedStream { descriptor: unsafe { OwnedFd::from_raw_fd(self.stream.into_raw_fd()) } }
    }

    /// Splits into halves that two tasks of this executor may use.
    pub fn split(self) -> (ReadHalf, WriteHalf) {
        let shared = Rc::new(RefCell::new(self));
        (ReadHalf { stream: shared.clone() }, WriteHalf { stream: shared })
    }

    /// Ends the connection so that what was written last arrives: closing a socket while
    /// the peer still sends would reset it. Takes what comes for at most `limit`, and no more than some megabytes.
    pub async fn finish(mut self, limit: Duration) {
        if self.with_socket(|s| s.shutdown(std::net::Shutdown::Write)).is_err() {
            return;
        }
        let mut chunk = vec![0; DISCARD];
        let discard = async {
            let mut taken = 0;
            while let Ok(count @ 1..) = self.read(&mut chunk).await {
                taken += count;
                if taken >= MAX_DISCARDED {
                    return;
                }
            }
        };
        crate::executor::timeout(limit, discard).await;
    }

    /// Address of the other side.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr().map_err(io_error)
    }

    /// Reads what is there, without waiting; `None` if nothing is.
    fn look(&self, buf: &mut [u8]) -> Option<io::Result<usize>> {
        // SAFETY: `MaybeUninit<u8>` has the layout of `u8`, and `recv` only writes bytes that
        // are initialised.
        let buf = unsafe { &mut *(buf as *mut [u8] as *mut [std::mem::MaybeUninit<u8>]) };
        let read = self.with_socket(|socket| socket.recv_with_flags(buf, libc::MSG_DONTWAIT));
        match read {
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => None,
            other => Some(other),
        }
    }

    fn with_socket<T>(&self, f: impl FnOnce(SockRef<'_>) -> T) -> T {
        // SAFETY: the descriptor stays open while `self` is borrowed, which outlives the call.
        let fd = unsafe { BorrowedFd::borrow_raw(self.stream.as_raw_fd()) };
        f(SockRef::from(&fd))
    }
}

async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    if let Ok(ip) = host.parse() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    // getaddrinfo blocks.
    crate::executor::blocking(move || {
        use std::net::ToSocketAddrs;
        (host.as_str(), port).to_socket_addrs().map(Iterator::collect)
    })
    .await
}

impl TcpStream {
    fn poll_data(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.watch.as_ref().is_some_and(|watch| watch.distrust)
            && let Some(found) = self.look(buf)
        {
            return Poll::Ready(found);
        }
        if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, buf) {
            return Poll::Ready(read);
        }
        match self.watch.as_mut().is_some_and(|watch| watch.is_due(cx)).then(|| self.look(buf)).flatten() {
            None => Poll::Pending,
            Some(found) => {
                self.watch.iter_mut().for_each(|watch| watch.distrust = true);
                Poll::Ready(found)
            }
        }
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.reads.is_over(cx) {
            return Poll::Pending;
        }
        let outcome = self.poll_data(cx, buf);
        self.reads.count(outcome)
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.writes.is_over(cx) {
            return Poll::Pending;
        }
        let outcome = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.writes.count(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.writes.is_over(cx) {
            return Poll::Pending;
        }
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.writes.count(outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

/// The reading half. The `RefCell` is borrowed only inside a poll, never across an await.
pub struct ReadHalf {
    stream: Rc<RefCell<TcpStream>>,
}

impl AsyncRead for ReadHalf {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream.borrow_mut()).poll_read(cx, buf)
    }
}

/// The writing half.
pub struct WriteHalf {
    stream: Rc<RefCell<TcpStream>>,
}

impl WriteHalf {
    /// Sends what the socket takes at once, without waiting. Zero when it is full.
    pub fn try_send(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        let sent = self.stream.borrow().with_socket(|s| s.send_vectored_with_flags(bufs, flags));
        match sent {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(0),
            other => other,
        }
    }

    /// For a ring beside the executor's; open for as long as this half is.
    pub(crate) fn descriptor(&self) -> std::os::fd::RawFd {
        self.stream.borrow().stream.as_raw_fd()
    }

    /// Ends our direction: the peer reads what was sent, then an end of file.
    pub fn finish(&self) {
        let _ = self.stream.borrow().with_socket(|s| s.shutdown(std::net::Shutdown::Write));
    }

    /// Ends both directions at once; a waiting reader wakes with an end of file.
    pub fn shutdown(&self) {
        let _ = self.stream.borrow().with_socket(|s| s.shutdown(std::net::Shutdown::Both));
    }
}

impl AsyncWrite for WriteHalf {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream.borrow_mut()).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream.borrow_mut()).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream.borrow_mut()).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream.borrow_mut()).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::Write;

    use futures_lite::AsyncReadExt;

    use super::*;
    use crate::executor;

    /// Sends without an end until the other side has gone.
    fn flood(port: u16) -> std::thread::JoinHandle<()> {
        std::thread::spawn(move || {
            let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
            let frames = [0x8a, 0x00].repeat(1 << 20);
            while stream.write_all(&frames).is_ok() {}
        })
    }

    /// How often another task ran while `use_stream` did its work.
    fn turns_beside<F: Future<Output = ()> + 'static>(
        use_stream: impl FnOnce(TcpStream) -> F + Send + 'static,
    ) -> usize {
        let executor = executor::start("test", None, || async {
            let listener = Listener::bind(0).unwrap();
            let sender = flood(listener.local_addr().unwrap().port());
            let stream = listener.accept().await.unwrap();
            let (turns, ended) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
            let (counted, end) = (turns.clone(), ended.clone());
            executor::spawn(async move {
                while !end.get() {
                    counted.set(counted.get() + 1);
                    executor::yield_now().await;
                }
            })
            .detach();
            executor::yield_now().await;
            turns.set(0);
            use_stream(stream).await;
            ended.set(true);
            executor::blocking(move || sender.join().unwrap()).await;
            turns.get()
        });
        executor.unwrap().join().unwrap()
    }

    #[test]
    fn a_peer_that_never_stops_sending_does_not_keep_the_executor() {
        const READS: usize = 2_000;
        for chunk in [1, 64 << 10] {
            let turns = turns_beside(move |mut stream| async move {
                let mut chunk = vec![0; chunk];
                for _ in 0..READS {
                    assert!(stream.read(&mut chunk).await.unwrap() > 0);
                }
            });
            assert!(turns >= READS / 40, "in {READS} reads of {chunk} bytes others ran {turns} times");
        }
    }

    #[test]
    fn what_is_thrown_away_ends_and_does_not_keep_the_executor() {
        let turns = turns_beside(|stream| stream.finish(Duration::from_secs(3_600)));
        assert!(turns >= MAX_DISCARDED / (512 << 10), "others ran {turns} times");
    }
}
