//! Many connections on one thread: one epoll loop, one read buffer.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};

use super::connection::{Away, Connection, Counts};
use super::error::BenchError;
use super::handshake::{Identity, Opening, Target};
use super::message::{Needles, Poke, Search};
use super::query::Query;

/// Bytes that one read takes. A hydration comes in as large pieces as the kernel has.
const READ_BUFFER: usize = 256 << 10;
/// Events that one wait takes.
const EVENTS: usize = 256;
/// How often the connections are looked at for pings that are due. A stock client's timer is
/// exact; a quarter of a second on five changes no figure.
const TICK: Duration = Duration::from_millis(250);
/// Most connections of one swarm: descriptors and ports of one machine.
pub const CONNECTIONS_MAX: usize = 20_000;

/// The connections of one thread.
pub struct Swarm {
    epoll: OwnedFd,
    buffer: Vec<u8>,
    needles: Needles,
    next_tick: Instant,
    open_writes: bool,
    /// What is looked for in pokes.
    pub search: Search,
    /// A connection that closes is noted in `closed`, and the others go on. Otherwise it is
    /// the end of the run.
    pub lenient: bool,
    /// Numbers of the connections that were closed.
    pub closed: Vec<usize>,
    /// The connections, in the order in which they were added.
    pub connections: Vec<Connection>,
}

impl Swarm {
    /// An empty swarm.
    pub fn new(search: Search) -> Result<Swarm, BenchError> {
        Ok(Swarm {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|e| BenchError::at("epoll", e))?,
            buffer: vec![0; READ_BUFFER],
            needles: Needles::new(),
            next_tick: Instant::now(),
            open_writes: false,
            search,
            lenient: false,
            closed: Vec::new(),
            connections: Vec::new(),
        })
    }

    /// Opens a connection of a new client in a new group.
    pub fn add(&mut self, target: &Target, queries: &[Query]) -> Result<(), BenchError> {
        if self.connections.len() >= CONNECTIONS_MAX {
            return Err(BenchError::Usage(format!("at most {CONNECTIONS_MAX} connections")));
        }
        Connection::open(target, Identity::fresh(), Opening::First(queries))
            .and_then(|connection| self.register(connection))
            .map_err(|e| BenchError::NotFinished(format!("connecting to {}: {e}", target.host)))
    }

    /// Opens a connection of a client that was connected before.
    pub fn come_back(&mut self, target: &Target, away: &Away) -> io::Result<()> {
        let connection = Connection::open(target, away.identity.clone(), Opening::Again(&away.cookie))?;
        self.register(connection)
    }

    /// Opens the connection of a client anew that was closed, in its place.
    pub fn reopen(&mut self, index: usize, target: &Target, queries: &[Query]) -> Result<(), BenchError> {
        let before = &self.connections[index];
        let (identity, cookie) = before.who();
        let opening = match cookie.as_str() {
            "" => Opening::First(queries),
            cookie => Opening::Again(cookie),
        };
        let opened = Connection::open(target, identity, opening).and_then(|mut connection| {
            connection.number = index;
            connection.missing = queries.iter().map(|query| query.id).collect();
            self.watch(&connection)?;
            Ok(connection)
        });
        let failed = |e| BenchError::NotFinished(format!("connecting to {}: {e}", target.host));
        self.connections[index] = opened.map_err(failed)?;
        Ok(())
    }

    /// Drops all the connections at once, as a network does.
    pub fn leave(self) -> Vec<Away> {
        self.connections.into_iter().map(Connection::leave).collect()
    }

    fn register(&mut self, mut connection: Connection) -> io::Result<()> {
        connection.number = self.connections.len();
        self.watch(&connection)?;
        self.connections.push(connection);
        Ok(())
    }

    fn watch(&self, connection: &Connection) -> io::Result<()> {
        let index = epoll::EventData::new_u64(connection.number as u64);
        // Edge-triggered: level-triggered, the kernel would look at each socket a second time
        // to see that it has been read empty.
        epoll::add(&self.epoll, connection.socket(), index, epoll::EventFlags::IN | epoll::EventFlags::ET)?;
        Ok(())
    }

    /// Waits for events until `until` at the latest, and handles them.
    pub fn turn(
        &mut self,
        until: Instant,
        on_poke: &mut impl FnMut(&mut Connection, &Poke, Instant),
    ) -> Result<(), BenchError> {
        let now = Instant::now();
        if now >= self.next_tick {
            self.tick(now)?;
        }
        let wait = until.min(self.next_tick).saturating_duration_since(now);
        let timeout = Timespec::try_from(wait).map_err(|e| BenchError::at("epoll timeout", e))?;
        let mut events = [const { MaybeUninit::<epoll::Event>::uninit() }; EVENTS];
        let ready = match epoll::wait(&self.epoll, &mut events, Some(&timeout)) {
            Ok((ready, _)) => ready,
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(e) => return Err(BenchError::at("epoll", e)),
        };
        for event in ready {
            let index = event.data.u64() as usize;
            let connection = &mut self.connections[index];
            if connection.wants_to_write() {
                connection.writable();
            }
            // A read that does not fill the buffer has emptied the socket; what comes after it
            // is a new edge.
            while connection.readable(&mut self.buffer, self.search, &self.needles, on_poke) == READ_BUFFER {}
            self.open_writes |= connection.wants_to_write();
            self.look_whether_closed(index)?;
        }
        // Rare: a first message larger than the socket's buffer. The next tick writes on.
        if self.open_writes {
            self.next_tick = Instant::now() + Duration::from_millis(1);
        }
        Ok(())
    }

    fn tick(&mut self, now: Instant) -> Result<(), BenchError> {
        self.next_tick = now + TICK;
        self.open_writes = false;
        for index in 0..self.connections.len() {
            let connection = &mut self.connections[index];
            connection.tick(now);
            if connection.wants_to_write() {
                connection.writable();
                self.open_writes |= connection.wants_to_write();
            }
            self.look_whether_closed(index)?;
        }
        Ok(())
    }

    fn look_whether_closed(&mut self, index: usize) -> Result<(), BenchError> {
        let Some(reason) = self.connections[index].closed() else { return Ok(()) };
        if !self.lenient {
            return Err(BenchError::NotFinished(format!("client {index}: {reason}")));
        }
        if !self.closed.contains(&index) {
            self.closed.push(index);
        }
        Ok(())
    }

    /// Turns until `done` says so; a scenario that is not done at `deadline` did not finish.
    pub fn run_until(
        &mut self,
        deadline: Instant,
        what: &str,
        mut done: impl FnMut(&Swarm) -> bool,
        mut on_poke: impl FnMut(&mut Connection, &Poke, Instant),
    ) -> Result<(), BenchError> {
        while !done(self) {
            if Instant::now() >= deadline {
                return Err(BenchError::NotFinished(format!("{what}: the time limit is over")));
            }
            self.turn(deadline, &mut on_poke)?;
        }
        Ok(())
    }

    /// Opens the connections of `groups`, at most `window` at a time that have not got their
    /// queries, and waits until all have got them.
    pub fn gather(
        &mut self,
        target: &Target,
        groups: &[Vec<Query>],
        window: usize,
        deadline: Instant,
    ) -> Result<(), BenchError> {
        let before = self.connections.len();
        let waiting = |s: &Swarm| s.connections.iter().filter(|c| !c.missing.is_empty()).count();
        for queries in groups {
            let what = format!("{} of {} groups connected", self.connections.len() - before, groups.len());
            self.run_until(deadline, &what, |s| waiting(s) < window, |_, _, _| ())?;
            self.add(target, queries)?;
        }
        self.run_until(deadline, "waiting for the queries of all groups", |s| waiting(s) == 0, |_, _, _| ())
    }

    /// Turns for so long and does nothing else: pings are sent, pokes are read.
    pub fn idle(&mut self, time: Duration) -> Result<(), BenchError> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.turn(until, &mut |_, _, _| ())?;
        }
        Ok(())
    }

    /// What came over all the connections.
    pub fn counts(&self) -> Counts {
        self.connections.iter().fold(Counts::default(), |sum, c| sum.plus(c.counts))
    }
}
