//! How far the replica is behind upstream, as far as that can be known; and whether the stream stands still
//! although upstream moves. Sans-IO: time is given.
//!
//! Every now and then a heartbeat, a message of ours, is written to upstream's log; it comes back by the stream
//! and passes all that a row passes. The walsender says how far upstream's log goes when it has nothing to send.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::model::version::StateVersion;

/// How long a heartbeat may be on its way while nothing else moves. A stream that was lost is connected again
/// within seconds; a server that decodes a large transaction says how far it is every half minute or more often.
const STANDSTILL: Duration = Duration::from_secs(60);

/// Heartbeats that are remembered. Of more, the oldest tell enough.
const MAX_BEATS: usize = 16;

/// Written by what replicates, read by metrics and health endpoints.
#[derive(Debug, Default)]
pub struct Lag(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    connected: bool,
    /// When upstream last said something on the stream.
    heard: Option<Instant>,
    /// When something last moved: upstream's position, or the replica's.
    moved: Option<Instant>,
    /// Furthest position of upstream's log that was heard of.
    upstream: StateVersion,
    /// Furthest position that the stream has come to.
    streamed: StateVersion,
    /// Position of the replica.
    written: StateVersion,
    /// Heartbeats that are on their way, with when each was sent.
    beats: VecDeque<(StateVersion, Instant)>,
    /// How long the last heartbeat took.
    last: Duration,
}

/// What is known at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// There is a stream.
    pub connected: bool,
    /// Bytes of upstream's log that the replica does not have.
    pub bytes: u64,
    /// Age of the oldest heartbeat that is on its way, or else how long the last one took.
    pub time: Duration,
    /// Time since upstream last said something on the stream; zero before it ever did.
    pub silence: Duration,
}

impl Lag {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stream began, or was lost.
    pub fn connected(&self, connected: bool, now: Instant) {
        let mut state = self.state();
        state.connected = connected;
        if connected {
            state.moved = Some(now);
        }
    }

    /// Upstream said something on the stream; `position`: how far it has come, if it says so.
    pub fn heard(&self, position: Option<StateVersion>, now: Instant) {
        let mut state = self.state();
        state.heard = Some(now);
        match position {
            Some(position) if position > state.streamed => {
                state.streamed = position;
                state.upstream = state.upstream.max(position);
                state.moved = Some(now);
            }
            Some(_) => {}
            // A change: the stream moves.
            None => state.moved = Some(now),
        }
    }

    /// Upstream's log goes as far as this.
    pub fn upstream_is_at(&self, position: StateVersion) {
        let mut state = self.state();
        state.upstream = state.upstream.max(position);
    }

    /// A heartbeat was written at this position of upstream's log.
    pub fn sent(&self, position: StateVersion, now: Instant) {
        let mut state = self.state();
        state.upstream = state.upstream.max(position);
        if position > state.written && state.beats.len() < MAX_BEATS {
            state.beats.push_back((position, now));
        }
    }

    /// The writer of the replica has done something, if only a part of a transaction.
    pub fn worked(&self, now: Instant) {
        self.state().moved = Some(now);
    }

    /// The replica is at this position. Returns how long the newest heartbeat took that it has.
    pub fn reached(&self, position: StateVersion, now: Instant) -> Option<Duration> {
        let mut state = self.state();
        state.written = state.written.max(position);
        state.upstream = state.upstream.max(position);
        let mut took = None;
        while let Some((_, sent)) = state.beats.front().filter(|(beat, _)| *beat <= position) {
            took = Some(now.saturating_duration_since(*sent));
            state.beats.pop_front();
        }
        state.last = took.unwrap_or(state.last);
        took
    }

    /// What is known now.
    pub fn known(&self, now: Instant) -> Known {
        let state = self.state();
        let oldest = state.beats.front().map(|(_, sent)| now.saturating_duration_since(*sent));
        Known {
            connected: state.connected,
            bytes: state.upstream.0.saturating_sub(state.written.0),
            time: oldest.map_or(state.last, |age| age.max(state.last)),
            silence: state.heard.map_or(Duration::ZERO, |at| now.saturating_duration_since(at)),
        }
    }

    /// `Err`: the stream stands still although upstream moves, and says since when.
    pub fn health(&self, now: Instant) -> Result<(), String> {
        let state = self.state();
        let since = |at: Instant| now.saturating_duration_since(at);
        let Some(age) = state.beats.front().map(|(_, sent)| since(*sent)) else { return Ok(()) };
        let still = state.moved.map_or(age, since);
        if age < STANDSTILL || still < STANDSTILL {
            return Ok(());
        }
        Err(format!(
            "replication stands still: the replica has been at {} for {} seconds, upstream is at {}",
            state.written.to_lsn(),
            still.as_secs(),
            state.upstream.to_lsn()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(position: u64) -> StateVersion {
        StateVersion(position)
    }

    #[test]
    fn a_heartbeat_that_comes_back_tells_the_lag_and_one_that_does_not_its_age() {
        let (lag, start) = (Lag::default(), Instant::now());
        lag.connected(true, start);
        lag.sent(at(100), start);
        assert_eq!(lag.known(start + SECOND * 3).time, SECOND * 3);
        assert_eq!(lag.known(start).bytes, 100);
        assert_eq!(lag.reached(at(99), start + SECOND * 4), None);
        assert_eq!(lag.reached(at(100), start + SECOND * 5), Some(SECOND * 5));
        let known = lag.known(start + SECOND * 60);
        assert_eq!((known.time, known.bytes, known.connected), (SECOND * 5, 0, true));
    }

    #[test]
    fn a_stream_that_stands_still_while_upstream_moves_shows() {
        let (lag, start) = (Lag::default(), Instant::now());
        lag.connected(true, start);
        lag.heard(Some(at(5)), start);
        lag.sent(at(10), start);
        assert_eq!(lag.health(start + STANDSTILL / 2), Ok(()));
        assert!(lag.health(start + STANDSTILL).is_err_and(|why| why.contains("for 60 seconds")));
        // Keepalives that say the same again are no progress.
        lag.heard(Some(at(5)), start + STANDSTILL);
        assert!(lag.health(start + STANDSTILL).is_err());
        lag.reached(at(10), start + STANDSTILL);
        assert_eq!(lag.health(start + STANDSTILL * 9), Ok(()));
    }

    #[test]
    fn a_large_transaction_that_comes_or_is_applied_is_progress() {
        for moves in [
            (|lag: &Lag, now| lag.heard(None, now)) as fn(&Lag, Instant),
            |lag, now| lag.worked(now),
            |lag, now| lag.heard(Some(at(6)), now),
            |lag, now| lag.connected(true, now),
        ] {
            let (lag, start) = (Lag::default(), Instant::now());
            lag.heard(Some(at(5)), start);
            lag.sent(at(10), start);
            let later = start + STANDSTILL;
            moves(&lag, later - SECOND);
            assert_eq!(lag.health(later), Ok(()));
        }
    }

    #[test]
    fn without_heartbeats_nothing_is_known_to_stand_still_and_few_are_remembered() {
        let (lag, start) = (Lag::default(), Instant::now());
        assert_eq!(lag.health(start + STANDSTILL * 9), Ok(()));
        (0..100).for_each(|beat| lag.sent(at(beat + 1), start));
        assert_eq!(lag.state().beats.len(), MAX_BEATS);
        assert_eq!(lag.reached(at(100), start + SECOND), Some(SECOND));
        assert!(lag.state().beats.is_empty());
    }
}
