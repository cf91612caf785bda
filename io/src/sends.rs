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
