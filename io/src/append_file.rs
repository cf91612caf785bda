//! A file that only grows, written through a ring.
//!
//! Room is reserved ahead, so that an append seldom has to change the file's metadata, and a
//! sync seldom has to write them. Appends have a ring of their own beside the executor's: they are
//! under way from the moment they begin, while the executor goes on with what it is at, and whether they
//! are done can be seen without leaving it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::rc::Rc;

use glommio::GlommioError;
use glommio::io::{BufferedFile, PollableFd};
use io_uring::{IoUring, opcode, types};

/// Bytes reserved at a time.
const ROOM: u64 = 16 << 20;

/// Entries of the ring: there is one write at a time.
const ENTRIES: u32 = 2;

/// Most bytes of one write; what is more is written in several.
const MAX_WRITE: usize = 1 << 30;

/// A file that is appended to by one task.
pub struct AppendFile {
    file: BufferedFile,
    writes: Writes,
    done: Rc<Done>,
    at: u64,
    reserved: u64,
}

/// The ring, and what it writes.
struct Writes {
    ring: IoUring,
    under_way: Option<UnderWay>,
}

struct UnderWay {
    bytes: Vec<u8>,
    written: usize,
}

impl Drop for Writes {
    fn drop(&mut self) {
        // The kernel may still read it.
        std::mem::forget(self.under_way.take());
    }
}

/// Tells when an append may be done.
pub struct Done(PollableFd<OwnedFd>);

impl Done {
    /// Waits until the append that is under way may be done: ask [`AppendFile::poll`].
    pub async fn wait(&self) -> io::Result<()> {
        self.0.readable().await.map_err(plain)
    }
}

/// Makes a file that nobody but this user can read, or empties one, which keeps the permissions that it has. Blocks.
pub fn create_private(path: &Path) -> io::Result<std::fs::File> {
    std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

impl AppendFile {
    /// Makes the file, or empties it. Nobody but this user can read one that was made.
    pub async fn create(path: &Path) -> io::Result<AppendFile> {
        let made = path.to_owned();
        drop(crate::executor::blocking(move || create_private(&made)).await?);
        let file = BufferedFile::create(path).await.map_err(plain)?;
        let ring = IoUring::new(ENTRIES)?;
        // SAFETY: the descriptor is that of the ring, which is there.
        let descriptor = unsafe { BorrowedFd::borrow_raw(ring.as_raw_fd()) };
        let done = PollableFd::new(descriptor.try_clone_to_owned()?).map_err(plain)?;
        let writes = Writes { ring, under_way: None };
        Ok(AppendFile { file, writes, done: Rc::new(Done(done)), at: 0, reserved: 0 })
    }

    /// Appends bytes. When this returns they survive the process, not yet the machine. After an
    /// error the file's end is not known: begin another one.
    pub async fn append(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        let end = self.at + bytes.len() as u64;
        if end > self.reserved {
            let more = (end - self.reserved).max(ROOM);
            // Where the file system cannot reserve, or has no room for so much ahead, the write
            // itself says whether there is room.
            let _ = self.file.pre_allocate(self.reserved + more, true).await;
            self.reserved += more;
        }
        if self.begin(bytes).is_err() {
            return Err(io::Error::other("one append began before the last was done"));
        }
        loop {
            if let Some(result) = self.poll() {
                return result;
            }
            self.done.wait().await?;
        }
    }

    /// Begins to append, without waiting. Gives the bytes back if it cannot: another append is under
    /// way, or no room is reserved for them.
    pub fn begin(&mut self, bytes: Vec<u8>) -> Result<(), Vec<u8>> {
        if self.writes.under_way.is_some() || self.at + bytes.len() as u64 > self.reserved {
            return Err(bytes);
        }
        self.writes.under_way = Some(UnderWay { bytes, written: 0 });
        self.submit();
        Ok(())
    }

    /// The result of the append that is under way, once it is done; `None` before that. Without one
    /// there is nothing that could fail.
    pub fn poll(&mut self) -> Option<io::Result<()>> {
        loop {
            let Some(under_way) = &mut self.writes.under_way else { return Some(Ok(())) };
            if under_way.written == under_way.bytes.len() {
                self.at += under_way.written as u64;
                self.writes.under_way = None;
                return Some(Ok(()));
            }
            let Some(completion) = self.writes.ring.completion().next() else { return self.submit_again() };
            match usize::try_from(completion.result()) {
                Ok(0) => return Some(Err(io::ErrorKind::WriteZero.into())),
                Ok(written) => under_way.written += written,
                Err(_) if matches!(-completion.result(), libc::EINTR | libc::EAGAIN) => {}
                Err(_) => return Some(Err(io::Error::from_raw_os_error(-completion.result()))),
            }
            if under_way.written < under_way.bytes.len() {
                self.submit();
            }
        }
    }

    /// Submits what the kernel did not take, if there is something.
    fn submit_again(&mut self) -> Option<io::Result<()>> {
        if self.writes.ring.submission().is_empty() {
            return None;
        }
        match self.writes.ring.submit() {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Some(Err(error)),
            _ => None,
        }
    }

    /// What to wait for while an append is under way.
    pub fn done(&self) -> Rc<Done> {
        self.done.clone()
    }

    fn submit(&mut self) {
        let Some(UnderWay { bytes, written }) = &self.writes.under_way else { return };
        let rest = &bytes[*written..];
        let write = opcode::Write::new(
            types::Fd(self.file.as_raw_fd()),
            rest.as_ptr(),
            rest.len().min(MAX_WRITE) as u32,
        );
        let write = write.offset(self.at + *written as u64).build();
        // SAFETY: the bytes stay where they are, and as they are, until the completion has been
        // seen; if that does not come to pass they are left to the kernel (see `drop`).
        let pushed = unsafe { self.writes.ring.submission().push(&write) };
        debug_assert!(pushed.is_ok(), "there is room for the only write");
        // What the kernel does not take now is submitted again.
        let _ = self.writes.ring.submit();
    }

    /// Waits until all that was appended survives a power cut.
    pub async fn sync(&self) -> io::Result<()> {
        self.file.fdatasync().await.map_err(plain)
    }

    /// Bytes appended.
    pub fn len(&self) -> u64 {
        self.at
    }

    /// Whether nothing was appended.
    pub fn is_empty(&self) -> bool {
        self.at == 0
    }

    /// Closes the file.
    pub async fn close(self) {
        // It is written; that its descriptor cannot be given back changes nothing about that.
        let _ = self.file.close().await;
    }
}

fn plain(error: GlommioError<()>) -> io::Error {
    error.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::start;

    #[test]
    fn what_is_appended_is_in_the_file_in_order() {
        let path = std::env::temp_dir().join(format!("kelvin-append-{}", std::process::id()));
        let file = path.clone();
        let executor = start("test", None, move || async move {
            let mut file = AppendFile::create(&file).await?;
            file.append(b"one ".to_vec()).await?;
            file.append(vec![b'x'; 3 << 20]).await?;
            file.append(b" two".to_vec()).await?;
            file.sync().await?;
            let length = file.len();
            file.close().await;
            io::Result::Ok(length)
        });
        let length = executor.unwrap().join().unwrap().unwrap();
        let found = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(found.len() as u64, length);
        assert!(found.starts_with(b"one xxx") && found.ends_with(b"xxx two"));
    }

    #[test]
    fn an_append_is_under_way_while_others_run() {
        let path = std::env::temp_dir().join(format!("kelvin-begin-{}", std::process::id()));
        let file = path.clone();
        let executor = start("test", None, move || async move {
            let mut file = AppendFile::create(&file).await?;
            assert!(file.begin(b"no room".to_vec()).is_err());
            file.append(b"one".to_vec()).await?;
            assert!(file.begin(b" two".to_vec()).is_ok());
            assert!(file.begin(b"not before it is done".to_vec()).is_err());
            // Without a turn of the executor.
            while file.poll().is_none() {
                std::thread::yield_now();
            }
            assert!(file.begin(b" three".to_vec()).is_ok());
            while file.poll().is_none() {
                file.done().wait().await?;
            }
            file.close().await;
            io::Result::Ok(())
        });
        executor.unwrap().join().unwrap().unwrap();
        let found = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(found, b"one two three");
    }

    #[test]
    fn a_full_disk_is_an_error_and_not_a_wait() {
        let executor = start("test", None, || async {
            let mut file = AppendFile::create(Path::new("/dev/full")).await?;
            file.append(b"x".to_vec()).await
        });
        let error = executor.unwrap().join().unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
