//! The replica file: what is at its path, and replacing it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::error::{Doing, Error};
use super::live_indexes;
use super::metadata::{self, APPLICATION_ID, Metadata};
use crate::model::catalogue::Catalogue;

/// Files that SQLite, or a zero-cache, keeps beside a database.
const SIDECARS: [&str; 4] = ["-wal", "-shm", "-wal2", "-journal"];

/// What is at the replica's path.
#[derive(Debug)]
pub enum FoundFile {
    /// Nothing.
    Nothing,
    /// A file that Kelvin did not make.
    Foreign,
    /// A file of ours that cannot be continued, and why.
    Unusable(String),
    /// A replica.
    Replica(Box<Metadata>),
}

/// Path of a file beside the replica.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// Looks at the file without changing it, except that SQLite recovers its log.
pub fn inspect(path: &Path) -> Result<FoundFile, Error> {
    match fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(FoundFile::Nothing),
        Err(source) => return Err(Error::Io { doing: "looking for", path: path.to_owned(), source }),
        Ok(meta) if meta.is_file() && meta.len() == 0 => return Ok(FoundFile::Nothing),
        Ok(_) => {}
    }
    if application_id(path)? != Some(APPLICATION_ID) {
        return Ok(FoundFile::Foreign);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let read = Connection::open_with_flags(path, flags)
        .doing("opening the replica")
        .and_then(|connection| metadata::read(&connection));
    match read {
        Ok(Some(metadata)) => match metadata.resync {
            Some(reason) => Ok(FoundFile::Unusable(reason)),
            None => Ok(FoundFile::Replica(Box::new(metadata))),
        },
        Ok(None) => Ok(FoundFile::Unusable("the replica was written by another version of Kelvin".into())),
        Err(e) if e.is_corruption() => Ok(FoundFile::Unusable(format!("the replica is damaged: {e}"))),
        Err(e) => Err(e),
    }
}

/// The application id in the header of a database file; `None` if it is no database.
///
/// Read from the bytes and not through SQLite, which would touch the log of a foreign
/// database (a zero-cache's wal2 mode is one that stock SQLite cannot open at all).
fn application_id(path: &Path) -> Result<Option<i32>, Error> {
    use std::io::Read;
    let mut header = [0u8; 100];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut header));
    match read {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(source) => return Err(Error::Io { doing: "reading", path: path.to_owned(), source }),
    }
    if &header[..16] != b"SQLite format 3\0" {
        return Ok(None);
    }
    Ok(Some(i32::from_be_bytes([header[68], header[69], header[70], header[71]])))
}

/// Renames a file that is not ours, with its sidecars. Returns its new path.
pub fn set_aside(path: &Path) -> Result<PathBuf, Error> {
    let mut to = beside(path, ".aside");
    let mut n = 1;
    while to.exists() {
        n += 1;
        to = beside(path, &format!(".aside{n}"));
    }
    rename(path, &to)?;
    for suffix in SIDECARS {
        let sidecar = beside(path, suffix);
        if sidecar.exists() {
            rename(&sidecar, &beside(&to, suffix))?;
        }
    }
    Ok(to)
}

/// Makes an empty file that nobody but this user can read: it will hold the app's data. SQLite gives its log and the
/// log's index the same permissions.
pub(super) fn create(path: &Path) -> Result<(), Error> {
    kelvin_io::append_file::create_private(path).map(drop).map_err(|source| Error::Io {
        doing: "creating",
        path: path.to_owned(),
        source,
    })
}

/// Removes a replica of ours, with its sidecars.
pub fn remove(path: &Path) -> Result<(), Error> {
    // The database first: a log without its database is nothing, the reverse is a
    // database that has lost its newest transactions.
    remove_one(path)?;
    SIDECARS.iter().try_for_each(|suffix| remove_one(&beside(path, suffix)))
}

fn remove_one(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(Error::Io { doing: "removing", path: path.to_owned(), source: e })
        }
        _ => Ok(()),
    }
}

/// Puts a finished file in the replica's place and makes that durable.
pub fn replace(finished: &Path, path: &Path) -> Result<(), Error> {
    remove(path)?;
    rename(finished, path)?;
    sync_directory(path)
}

fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    fs::rename(from, to).map_err(|source| Error::Io { doing: "renaming", path: from.to_owned(), source })
}

/// Makes the names in the directory of a file durable.
pub(super) fn sync_directory(path: &Path) -> Result<(), Error> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(|source| Error::Io {
        doing: "syncing the directory",
        path: directory.to_owned(),
        source,
    })
}

/// The catalogue of a replica with the indexes that it was given beside upstream's.
pub fn with_live_indexes(path: &Path, catalogue: &Catalogue) -> Result<Catalogue, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).doing("opening the replica")?;
    live_indexes::find(&connection, catalogue)
}

/// Marks a replica so that the next start syncs anew. Opens the file by itself; call it
/// when the writer has ended.
pub fn mark_for_resync(path: &Path, reason: &str) -> Result<(), Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).doing("opening the replica")?;
    metadata::mark_for_resync(&connection, reason)
}
