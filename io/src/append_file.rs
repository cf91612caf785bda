//! A file that only grows, written through the ring.
//!
//! Room is reserved ahead, so that an append seldom has to change the file's metadata, and a
//! sync seldom has to write them.

use std::io;
use std::path::Path;

use glommio::GlommioError;
use glommio::io::BufferedFile;

/// Bytes reserved at a time.
const ROOM: u64 = 16 << 20;

/// A file that is appended to by one task.
pub struct AppendFile {
    file: BufferedFile,
    at: u64,
    reserved: u64,
}

impl AppendFile {
    /// Makes the file, or empties it.
    pub async fn create(path: &Path) -> io::Result<AppendFile> {
        let file = BufferedFile::create(path).await.map_err(plain)?;
        Ok(AppendFile { file, at: 0, reserved: 0 })
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
        let mut rest = bytes;
        loop {
            let written = self.file.write_at(rest.clone(), self.at).await.map_err(plain)?;
            self.at += written as u64;
            if written == rest.len() {
                return Ok(());
            }
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            rest.drain(..written);
        }
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
    fn a_full_disk_is_an_error_and_not_a_wait() {
        let executor = start("test", None, || async {
            let mut file = AppendFile::create(Path::new("/dev/full")).await?;
            file.append(b"x".to_vec()).await
        });
        let error = executor.unwrap().join().unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
