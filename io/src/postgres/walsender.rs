//! The streaming replication protocol: a session with the server's walsender.
//!
//! After [`Walsender::start`] the session is a stream in both directions: the [`Reader`]
//! gets what the output plugin wrote, the [`Writer`] reports how far we are. The two
//! halves belong to different tasks, so that reports go on while reading is held back.

use std::time::SystemTime;

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::Message as Backend;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use super::connect::Target;
use super::error::Error;
use super::farewell::Polite;
use super::startup::{self, Framed, server_error};

/// Bytes that one read may return. The walsender writes every change as a message of its
/// own, so a large buffer turns thousands of messages into one read.
const READ_BUFFER: usize = 256 << 10;

/// Largest replication message in bytes; Postgres allocates at most 1 GiB for one.
const MAX_MESSAGE: usize = (1 << 30) + 4;

/// Microseconds between the Unix epoch and that of Postgres (2000-01-01).
const POSTGRES_EPOCH: u64 = 946_684_800_000_000;

/// SQLSTATE of what names an object that is not there.
const UNDEFINED_OBJECT: &str = "42704";

/// SQLSTATE of the warning that a publication is not there and is passed over.
const PASSED_OVER: &str = "55000";

/// One row of an answer to a replication command, as text.
pub type SimpleRow = Vec<Option<String>>;

/// A replication session that takes commands.
pub struct Walsender {
    framed: Framed,
}

impl Walsender {
    /// Connects with `replication=database`.
    pub async fn connect(target: &Target, application_name: &str) -> Result<Walsender, Error> {
        let framed = target.within(startup::start(target, application_name)).await?;
        Ok(Walsender { framed })
    }

    /// Runs a replication command (IDENTIFY_SYSTEM, CREATE_REPLICATION_SLOT, SHOW) or a
    /// simple SQL statement. After an `Err` that is not [`Error::Server`] the session is lost.
    pub async fn query(&mut self, command: &str) -> Result<Vec<SimpleRow>, Error> {
        self.send_query(command).await?;
        let mut rows = Vec::new();
        let mut failure = None;
        loop {
            match self.framed.message().await {
                Ok(Backend::DataRow(row)) => rows.push(texts(&row)?),
                Ok(Backend::ReadyForQuery(_)) => break,
                Ok(_) => {}
                // ReadyForQuery still follows an error.
                Err(e @ Error::Server(_)) => failure = Some(e),
                Err(e) => return Err(e),
            }
        }
        failure.map_or(Ok(rows), Err)
    }

    async fn send_query(&mut self, command: &str) -> Result<(), Error> {
        let mut out = BytesMut::new();
        frontend::query(command, &mut out).map_err(|e| Error::Protocol(e.to_string()))?;
        self.framed.send(&out).await
    }

    /// Runs START_REPLICATION and turns the session into a stream.
    pub async fn start(mut self, command: &str) -> Result<(Reader, Writer), Error> {
        self.send_query(command).await?;
        loop {
            let (tag, mut frame) = self.framed.frame().await?;
            match tag {
                // CopyBothResponse: the formats in it say nothing that matters.
                b'W' => break,
                b'E' => {
                    return match Backend::parse(&mut frame) {
                        Ok(Some(Backend::ErrorResponse(body))) => {
                            Err(Error::Server(server_error(body.fields())))
                        }
                        _ => Err(Error::Protocol("an unreadable error".into())),
                    };
                }
                b'N' | b'S' => {}
                other => return Err(Error::Protocol(format!("message {:?} for a stream", other as char))),
            }
        }
        let Framed { stream, buffer } = self.framed;
        let (read, write) = tokio::io::split(stream);
        let mut reader = Reader { stream: read, buffer: vec![0; READ_BUFFER], start: 0, end: 0 };
        reader.preload(&buffer);
        Ok((reader, Writer { stream: write }))
    }
}

fn texts(row: &postgres_protocol::message::backend::DataRowBody) -> Result<SimpleRow, Error> {
    let bytes = row.buffer();
    row.ranges()
        .map(|range| Ok(range.map(|r| String::from_utf8_lossy(&bytes[r]).into_owned())))
        .collect()
        .map_err(|e: std::io::Error| Error::Protocol(e.to_string()))
}

/// One message of the stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// What the output plugin wrote.
    Data {
        /// The plugin's message.
        payload: &'a [u8],
    },
    /// The server is alive.
    Keepalive {
        /// Position up to which everything has been sent.
        position: u64,
        /// The server wants a status at once.
        reply: bool,
    },
    /// The server ends the stream in order: it is being stopped.
    End,
}

/// The receiving half of a stream.
pub struct Reader {
    stream: ReadHalf<Polite>,
    buffer: Vec<u8>,
    /// Unread bytes are `buffer[start..end]`.
    start: usize,
    end: usize,
}

impl Reader {
    fn preload(&mut self, bytes: &[u8]) {
        if self.buffer.len() < bytes.len() {
            self.buffer.resize(bytes.len(), 0);
        }
        self.buffer[..bytes.len()].copy_from_slice(bytes);
        self.end = bytes.len();
    }

    /// Waits for bytes. The walsender flushes every message, and to let some more of a transaction come
    /// first would be cheaper for bulk; but a timer rings up to two milliseconds late, which is more than
    /// everything else on the way of a commit. Dropping the future loses nothing.
    pub async fn fill(&mut self) -> Result<(), Error> {
        self.make_room();
        let n = self.stream.read(&mut self.buffer[self.end..]).await?;
        if n == 0 {
            return Err(Error::Closed);
        }
        self.end += n;
        Ok(())
    }

    /// Moves unread bytes to the front and sees that the message they begin fits.
    fn make_room(&mut self) {
        let unread = self.end - self.start;
        let needed = self.header().map_or(0, |(_, length)| length + 1);
        if needed > self.buffer.len() {
            let mut larger = vec![0; needed];
            larger[..unread].copy_from_slice(&self.buffer[self.start..self.end]);
            self.buffer = larger;
        } else if self.buffer.len() > READ_BUFFER && unread <= READ_BUFFER && needed <= READ_BUFFER {
            // A huge row has passed; its memory is not kept.
            let mut smaller = vec![0; READ_BUFFER];
            smaller[..unread].copy_from_slice(&self.buffer[self.start..self.end]);
            self.buffer = smaller;
        } else {
            self.buffer.copy_within(self.start..self.end, 0);
        }
        self.start = 0;
        self.end = unread;
    }

    /// Tag and length (itself included) of the next message.
    fn header(&self) -> Option<(u8, usize)> {
        let bytes = &self.buffer[self.start..self.end];
        let length = bytes.get(1..5)?;
        Some((bytes[0], u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize))
    }

    /// The next message that is wholly buffered; `None`: call [`Reader::fill`]. That a publication is missing is an error,
    /// also of servers that say so in a warning and send nothing of what was written meanwhile (18 and newer).
    pub fn buffered(&mut self) -> Result<Option<Message<'_>>, Error> {
        loop {
            let Some((tag, length)) = self.header() else { return Ok(None) };
            if !(4..MAX_MESSAGE).contains(&length) {
                return Err(Error::Protocol(format!("a message of {length} bytes")));
            }
            if self.end - self.start < length + 1 {
                return Ok(None);
            }
            let from = self.start;
            self.start += length + 1;
            match tag {
                b'd' => return message(&self.buffer[from + 5..from + 1 + length]).map(Some),
                b'c' | b'C' => return Ok(Some(Message::End)),
                b'E' => {
                    let mut frame = BytesMut::from(&self.buffer[from..from + 1 + length]);
                    return match Backend::parse(&mut frame) {
                        Ok(Some(Backend::ErrorResponse(body))) => {
                            Err(Error::Server(server_error(body.fields())))
                        }
                        _ => Err(Error::Protocol("an unreadable error".into())),
                    };
                }
                b'N' => {
                    let mut frame = BytesMut::from(&self.buffer[from..from + 1 + length]);
                    if let Ok(Some(Backend::NoticeResponse(body))) = Backend::parse(&mut frame) {
                        let mut notice = server_error(body.fields());
                        if notice.code == PASSED_OVER {
                            // As older servers call it.
                            notice.code = UNDEFINED_OBJECT.to_owned();
                            return Err(Error::Server(notice));
                        }
                    }
                }
                b'S' => {}
                other => return Err(Error::Protocol(format!("message {:?} in a stream", other as char))),
            }
        }
    }
}

fn message(body: &[u8]) -> Result<Message<'_>, Error> {
    let position = |at: usize| {
        body.get(at..at + 8).map(|b| u64::from_be_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]))
    };
    match body.first() {
        // XLogData: start, end, time, then the plugin's bytes.
        Some(b'w') => body.get(25..).map(|payload| Message::Data { payload }),
        // Primary keepalive: end, time, reply.
        Some(b'k') => match (position(1), body.get(17)) {
            (Some(position), Some(reply)) => Some(Message::Keepalive { position, reply: *reply == 1 }),
            _ => None,
        },
        _ => None,
    }
    .ok_or_else(|| Error::Protocol("an unreadable replication message".into()))
}

/// The sending half of a stream.
pub struct Writer {
    stream: WriteHalf<Polite>,
}

impl Writer {
    /// Standby status update: everything below `position` is safe with us. Zero says that
    /// we live and claims nothing.
    pub async fn status(&mut self, position: u64) -> Result<(), Error> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let micros = (now.as_micros() as u64).saturating_sub(POSTGRES_EPOCH);
        let mut out = [0u8; 39];
        out[0] = b'd';
        out[1..5].copy_from_slice(&38u32.to_be_bytes());
        out[5] = b'r';
        // Written, flushed, applied.
        for at in [6, 14, 22] {
            out[at..at + 8].copy_from_slice(&position.to_be_bytes());
        }
        out[30..38].copy_from_slice(&micros.to_be_bytes());
        self.stream.write_all(&out).await?;
        self.stream.flush().await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replication_messages_are_told_apart() {
        let mut data = vec![b'w'];
        data.extend([0; 24]);
        data.extend(b"plugin");
        assert_eq!(message(&data).unwrap(), Message::Data { payload: b"plugin" });
        let mut alive = vec![b'k'];
        alive.extend(7u64.to_be_bytes());
        alive.extend([0; 8]);
        alive.push(1);
        assert_eq!(message(&alive).unwrap(), Message::Keepalive { position: 7, reply: true });
        assert!(message(b"w").is_err());
        assert!(message(b"k1234").is_err());
        assert!(message(b"").is_err());
    }
}
