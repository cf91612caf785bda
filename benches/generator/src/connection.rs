//! One client: a socket, what has come over it, and when it has to say something.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::frame::{CLOSE, CONTROL_MAX, FrameParser, PING, PONG, Piece, TEXT, client_frame};
use super::handshake::{Identity, Opening, Target, Upgrade, upgrade};
use super::message::{Message, MessageReader, Needles, Poke, Search};

/// Most that the answer to the upgrade may be long, in bytes.
const HEAD_MAX: usize = 16 << 10;
/// Most that may wait to be sent to the server, in bytes: `initConnection` with hundreds of
/// queries, and some pings.
const OUT_MAX: usize = 1 << 20;
/// A stock client that has had no poke for so long sends a ping.
pub const PING_AFTER: Duration = Duration::from_secs(5);
/// A stock client that gets no pong for so long drops the connection.
pub const PONG_WITHIN: Duration = Duration::from_secs(5);

/// Where the connection is in its life.
enum State {
    Upgrading {
        upgrade: Upgrade,
        head: Vec<u8>,
    },
    Open,
    /// The reason is for people.
    Closed(String),
}

/// What came over one connection so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Pokes that were not cancelled.
    pub pokes: u64,
    /// Bytes on the socket.
    pub bytes: u64,
    /// Row operations (only while searching for queries).
    pub rows: u64,
    /// Pings that had no answer in time: a stock client would have reconnected.
    pub late_pongs: u64,
}

impl Counts {
    /// Both together.
    pub fn plus(self, other: Counts) -> Counts {
        Counts {
            pokes: self.pokes + other.pokes,
            bytes: self.bytes + other.bytes,
            rows: self.rows + other.rows,
            late_pongs: self.late_pongs + other.late_pongs,
        }
    }

    /// What came since `before`.
    pub fn minus(self, before: Counts) -> Counts {
        Counts {
            pokes: self.pokes - before.pokes,
            bytes: self.bytes - before.bytes,
            rows: self.rows - before.rows,
            late_pongs: self.late_pongs - before.late_pongs,
        }
    }
}

/// A client without a connection: what its tab keeps meanwhile.
#[derive(Clone, Debug)]
pub struct Away {
    /// Who it is.
    pub identity: Identity,
    /// What it has.
    pub cookie: String,
}

/// One client of one group.
pub struct Connection {
    socket: TcpStream,
    identity: Identity,
    state: State,
    frames: FrameParser,
    messages: MessageReader,
    control: Vec<u8>,
    out: Vec<u8>,
    first_message: Option<String>,
    quiet_since: Instant,
    ping_sent: Option<Instant>,
    /// Its place in its swarm.
    pub number: usize,
    /// Queries that are wanted and not yet got.
    pub missing: Vec<u64>,
    /// When the poke ended that had the last missing query got.
    pub got_at: Option<Instant>,
    /// The greatest marker that it has been shown.
    pub seen: u64,
    /// What it has: the cookie of its last poke.
    pub cookie: String,
    /// What came so far.
    pub counts: Counts,
}

impl Connection {
    /// Connects, and sends the upgrade request.
    pub fn open(target: &Target, identity: Identity, opening: Opening<'_>) -> io::Result<Connection> {
        let mut socket = TcpStream::connect(target.address)?;
        socket.set_nodelay(true)?;
        let mut upgrade = upgrade(target, &identity, opening);
        let (missing, cookie) = match opening {
            Opening::First(queries) => (queries.iter().map(|q| q.id).collect(), String::new()),
            Opening::Again(cookie) => (Vec::new(), cookie.to_owned()),
        };
        let first_message = upgrade.first_message.take();
        let now = Instant::now();
        // A fresh socket's buffer takes more than the longest request.
        socket.write_all(&upgrade.request)?;
        socket.set_nonblocking(true)?;
        Ok(Connection {
            socket,
            identity,
            state: State::Upgrading { upgrade, head: Vec::new() },
            frames: FrameParser::default(),
            messages: MessageReader::new(),
            control: Vec::new(),
            out: Vec::new(),
            first_message,
            quiet_since: now,
            ping_sent: None,
            number: 0,
            missing,
            got_at: None,
            seen: 0,
            cookie,
            counts: Counts::default(),
        })
    }

    /// Drops the socket without a goodbye, as a network does.
    pub fn leave(self) -> Away {
        Away { identity: self.identity, cookie: self.cookie }
    }

    /// Who it is, and what it has.
    pub fn who(&self) -> (Identity, String) {
        (self.identity.clone(), self.cookie.clone())
    }

    /// The socket, to register it.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Why it is closed, if it is.
    pub fn closed(&self) -> Option<&str> {
        match &self.state {
            State::Closed(reason) => Some(reason),
            _ => None,
        }
    }

    /// Whether it still has something to send.
    pub fn wants_to_write(&self) -> bool {
        !self.out.is_empty() && self.closed().is_none()
    }

    /// Reads what is there, at most one buffer full, and calls `on_poke` for each poke that
    /// ended in it. Gives the number of bytes read.
    pub fn readable(
        &mut self,
        buffer: &mut [u8],
        search: Search,
        needles: &Needles,
        on_poke: &mut impl FnMut(&mut Connection, &Poke, Instant),
    ) -> usize {
        let n = match self.socket.read(buffer) {
            Ok(n) => n,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => return 0,
            Err(e) => {
                self.close(e.to_string());
                return 0;
            }
        };
        let now = Instant::now();
        self.counts.bytes += n as u64;
        let input = &buffer[..n];
        match &mut self.state {
            State::Open if n > 0 => self.frames_in(input, now, search, needles, on_poke),
            State::Upgrading { .. } if n > 0 => {
                if let Some(rest) = self.upgraded(input) {
                    self.frames_in(&rest, now, search, needles, on_poke);
                }
            }
            _ => self.close("the server closed the connection".to_owned()),
        }
        n
    }

    /// Takes bytes of the answer to the upgrade; gives what follows it once it is complete.
    fn upgraded(&mut self, input: &[u8]) -> Option<Vec<u8>> {
        let State::Upgrading { upgrade, head } = &mut self.state else { return None };
        head.extend_from_slice(input);
        let Some(end) = memchr::memmem::find(head, b"\r\n\r\n") else {
            if head.len() > HEAD_MAX {
                self.close("the answer to the upgrade does not end".to_owned());
            }
            return None;
        };
        let checked = upgrade.check(&String::from_utf8_lossy(&head[..end]));
        let rest = head.split_off(end + 4);
        match checked {
            Ok(()) => self.state = State::Open,
            Err(why) => self.close(why),
        }
        Some(rest)
    }

    fn frames_in(
        &mut self,
        input: &[u8],
        now: Instant,
        search: Search,
        needles: &Needles,
        on_poke: &mut impl FnMut(&mut Connection, &Poke, Instant),
    ) {
        // Both move out for the call, because the closure needs the rest of the connection.
        let mut frames = std::mem::take(&mut self.frames);
        let mut messages = std::mem::replace(&mut self.messages, MessageReader::new());
        let result = frames.feed(input, |piece| {
            if piece.opcode >= CLOSE {
                self.control(&piece);
            } else if let Some(message) = messages.read(&piece, search, needles) {
                self.message(message, now, on_poke);
            }
        });
        self.frames = frames;
        self.messages = messages;
        if let Err(e) = result {
            self.close(e.0.to_owned());
        }
    }

    fn message(
        &mut self,
        message: Message<'_>,
        now: Instant,
        on_poke: &mut impl FnMut(&mut Connection, &Poke, Instant),
    ) {
        match message {
            Message::Poke(poke) => {
                self.quiet_since = now;
                self.counts.pokes += 1;
                self.counts.rows += poke.rows;
                self.cookie.clone_from(&poke.cookie);
                if !poke.got.is_empty() && !self.missing.is_empty() {
                    self.missing.retain(|q| !poke.got.contains(q));
                    if self.missing.is_empty() {
                        self.got_at = Some(now);
                    }
                }
                on_poke(self, poke, now);
            }
            Message::Connected => {
                if let Some(first) = self.first_message.take() {
                    self.send(TEXT, first.as_bytes());
                }
            }
            Message::Pong => {
                self.ping_sent = None;
                self.quiet_since = now;
            }
            Message::Error(text) => self.close(text.to_owned()),
            Message::Other => {}
        }
    }

    fn control(&mut self, piece: &Piece<'_>) {
        if piece.first {
            self.control.clear();
        }
        let room = CONTROL_MAX - self.control.len();
        self.control.extend_from_slice(&piece.bytes[..piece.bytes.len().min(room)]);
        if !piece.last {
            return;
        }
        match piece.opcode {
            PING => {
                let payload = std::mem::take(&mut self.control);
                self.send(PONG, &payload);
            }
            CLOSE => {
                let code = self.control.get(..2).map(|c| u16::from_be_bytes([c[0], c[1]])).unwrap_or(1005);
                let reason = String::from_utf8_lossy(self.control.get(2..).unwrap_or_default()).into_owned();
                self.close(format!("the server closed with code {code} {reason}"));
            }
            _ => {}
        }
    }

    /// Sends a ping when a stock client would, and notices a pong that is late.
    pub fn tick(&mut self, now: Instant) {
        if !matches!(self.state, State::Open) {
            return;
        }
        match self.ping_sent {
            Some(at) if now.duration_since(at) > PONG_WITHIN => {
                self.counts.late_pongs += 1;
                self.ping_sent = None;
                self.quiet_since = now;
            }
            Some(_) => {}
            None if now.duration_since(self.quiet_since) >= PING_AFTER => {
                self.send(TEXT, b"[\"ping\",{}]");
                self.ping_sent = Some(now);
            }
            None => {}
        }
    }

    fn send(&mut self, opcode: u8, payload: &[u8]) {
        client_frame(&mut self.out, opcode, payload);
        if self.out.len() > OUT_MAX {
            return self.close("the server does not read".to_owned());
        }
        self.writable();
    }

    /// Sends what the socket takes.
    pub fn writable(&mut self) {
        match self.socket.write(&self.out) {
            Ok(n) => drop(self.out.drain(..n)),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(e) => self.close(e.to_string()),
        }
    }

    fn close(&mut self, reason: String) {
        // The first reason counts: an error message says more than the close after it.
        if self.closed().is_none() {
            self.state = State::Closed(reason);
        }
    }
}
