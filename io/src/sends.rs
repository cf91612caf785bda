//! Many small sends in one system call: what one commit has to tell a thousand sockets.
//!
//! A ring of its own beside the executor's. Every send is asked not to wait, so the kernel
//! completes all of them within the one call that submits them; what a full socket does not
//! take comes back as not sent, and its owner goes on with it by the executor's own means.

use std::io::{self, IoSlice};

use io_uring::{IoUring, opcode, types};

use super::socket::WriteHalf;

/// Sends of one call. More are cut into several.
pub const MAX_SENDS: usize = 1024;

/// A ring for sends. Belongs to one thread.
pub struct Sends {
    ring: IoUring,
    messages: Vec<libc::msghdr>,
}

/// What one socket is to be sent.
pub struct Job<'a> {
    to: &'a WriteHalf,
    slices: Vec<IoSlice<'a>>,
    /// Bytes that it took; zero if it is full.
    pub sent: io::Result<usize>,
}

impl<'a> Job<'a> {
    /// These bytes, in order, to this socket.
    pub fn new(to: &'a WriteHalf, slices: Vec<IoSlice<'a>>) -> Job<'a> {
        Job { to, slices, sent: Ok(0) }
    }
}

impl Sends {
    /// Makes the ring. Fails where the kernel, or a sandbox, has no io_uring.
    pub fn new() -> io::Result<Sends> {
        let ring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(MAX_SENDS as u32);
        // Both are newer than the rest.
        let ring = ring.or_else(|_| IoUring::new(MAX_SENDS as u32))?;
        Ok(Sends { ring, messages: Vec::new() })
    }

    /// Sends what the sockets take at once. A socket must not be in two jobs. After an error
    /// the ring is of no use any more, and of some jobs it is not known what was sent: these
    /// have an error of their own.
    pub fn send(&mut self, jobs: &mut [Job<'_>]) -> io::Result<()> {
        jobs.chunks_mut(MAX_SENDS).try_for_each(|jobs| self.send_some(jobs))
    }

    fn send_some(&mut self, jobs: &mut [Job<'_>]) -> io::Result<()> {
        self.messages.clear();
        for job in jobs.iter_mut() {
            // SAFETY: a message header of zeros is one without anything.
            let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
            message.msg_iov = job.slices.as_mut_ptr().cast();
            message.msg_iovlen = job.slices.len() as _;
            self.messages.push(message);
        }
        let mut pushed = 0;
        for (at, (job, message)) in jobs.iter_mut().zip(&self.messages).enumerate() {
            let flags = (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as u32;
            let entry = opcode::SendMsg::new(types::Fd(job.to.descriptor()), message).flags(flags).build();
            // SAFETY: a send that must not wait is done, or refused, within the call that submits
            // it, and that call is made below, where the header, the slices and their bytes are
            // still borrowed. What an error leaves in the queue goes with the ring.
            if unsafe { self.ring.submission().push(&entry.user_data(at as u64)) }.is_err() {
                break;
            }
            job.sent = Err(io::Error::other("it is not known what was sent"));
            pushed += 1;
        }
        let mut completed = 0;
        while completed < pushed {
            match self.ring.submit_and_wait(pushed - completed) {
                Err(e) if e.kind() != io::ErrorKind::Interrupted => return Err(e),
                _ => {}
            }
            for completion in self.ring.completion() {
                completed += 1;
                jobs[completion.user_data() as usize].sent = outcome(completion.result());
            }
        }
        Ok(())
    }
}

fn outcome(result: i32) -> io::Result<usize> {
    match usize::try_from(result) {
        Ok(sent) => Ok(sent),
        Err(_) if result == -libc::EAGAIN || result == -libc::EINTR => Ok(0),
        Err(_) => Err(io::Error::from_raw_os_error(-result)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_lite::AsyncReadExt;

    use super::*;
    use crate::executor::{sleep, start};
    use crate::socket::{Listener, TcpStream};

    #[test]
    fn what_a_socket_does_not_take_is_told_and_the_rest_arrives_in_order() {
        let executor = start("test", None, || async {
            let mut sends = Sends::new().expect("a ring");
            let listener = Listener::bind(0).expect("a port");
            let port = listener.local_addr().expect("an address").port();
            let (mut readers, mut writers) = (Vec::new(), Vec::new());
            for _ in 0..3 {
                readers.push(TcpStream::connect("127.0.0.1", port).await.expect("connected"));
                writers.push(listener.accept().await.expect("accepted").split().1);
            }
            // The second takes only a part; the third has gone.
            let large = vec![b'x'; 64 << 20];
            drop(readers.pop());
            // Until its reset has come.
            while writers[2].try_send(&[IoSlice::new(b"reset")]).is_ok() {
                sleep(Duration::from_millis(5)).await;
            }
            let small = |writer| Job::new(writer, vec![IoSlice::new(b"ab"), IoSlice::new(b"cd")]);
            let filling = Job::new(&writers[1], vec![IoSlice::new(&large)]);
            let mut jobs = vec![small(&writers[0]), filling, small(&writers[2])];
            sends.send(&mut jobs).expect("the ring works");
            let sent: Vec<Option<usize>> = jobs.iter().map(|job| job.sent.as_ref().ok().copied()).collect();
            let mut first = [0; 4];
            readers[0].read_exact(&mut first).await.expect("it arrives");
            (sent, first)
        });
        let (sent, first) = executor.unwrap().join().unwrap();
        assert_eq!((sent[0], sent[2], &first), (Some(4), None, b"abcd"));
        assert!(sent[1].is_some_and(|count| count > 0 && count < 64 << 20), "{sent:?}");
    }
}
