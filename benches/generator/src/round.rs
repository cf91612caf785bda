//! One round: commits on schedule, while clients are watched for when each is shown to those
//! who must see it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::args::{Args, Flag};
use super::arrivals::{ARRIVALS_MAX, Arrival, Commit, latencies};
use super::audience::Audience;
use super::common::Common;
use super::connection::{Connection, Counts};
use super::error::BenchError;
use super::message::Poke;
use super::meter::{Meter, Usage, thread_cpu_s};
use super::outcome::{Figure, Verdict, figure};
use super::schedule::{self, MARKERS_PER_SECOND, fresh_marker};
use super::sql::Sql;
use super::statistics::Latencies;
use super::swarm::Swarm;

/// Flags of the commands that commit on schedule.
pub const FLAGS: &[Flag] = &[
    Flag { name: "upstream", value: "URL", default: None, help: "Postgres, where the commits are made" },
    Flag { name: "rate", value: "N", default: Some("5"), help: "commits per second" },
    Flag { name: "seconds", value: "S", default: Some("20"), help: "how long, after the warm-up" },
    Flag { name: "warm-up", value: "S", default: Some("3"), help: "seconds of commits that do not count" },
    Flag {
        name: "drain",
        value: "S",
        default: Some("10"),
        help: "seconds after the last commit for the last poke",
    },
];

/// How long a receiver waits before it looks whether it is to stop.
const TURN: Duration = Duration::from_millis(50);

/// How many commits there are, and when.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// Commits per second.
    pub rate: f64,
    /// Commits before, at the same rate, which do not count.
    pub warm_up: u32,
    /// Commits that count.
    pub commits: u32,
    /// How long after the last commit its pokes are waited for.
    pub drain: Duration,
}

/// What the committing and the receiving threads share.
struct Shared {
    begun: Instant,
    /// Marker of the commit before the first.
    base: u64,
    /// Commits of the round, the warm-up included.
    total: u32,
    first: u32,
    audience: Audience,
    /// Deliveries so far, of all receivers.
    delivered: AtomicU64,
    /// Receivers stop, because the time is over or one of them failed.
    stop: AtomicBool,
}

/// What one thread received.
struct Received {
    swarm: Swarm,
    notes: Notes,
    counts: Counts,
    cpu_s: f64,
}

/// What one thread notes while it receives.
#[derive(Default)]
struct Notes {
    arrivals: Vec<Arrival>,
    /// Deliveries that count, in a poke that showed no other commit.
    alone: u64,
    /// Pokes that showed a commit to a client that need not see it.
    strays: u64,
}

/// What a round found.
pub struct Seen {
    /// Of all deliveries that count.
    pub latencies: Latencies,
    /// CPU and memory of all sides while it counted.
    pub usage: Usage,
    /// Deliveries that should have been.
    expected: u64,
    alone: u64,
    strays: u64,
    commits: u32,
    /// Commits with those of the warm-up; pokes and bytes are of all of them.
    total: u32,
    counts: Counts,
    receive_s: f64,
    commit_late: Duration,
    /// From the last acknowledgement to the last delivery.
    behind: Duration,
    /// The connections, for another round.
    pub swarms: Vec<Swarm>,
}

impl Round {
    /// Reads the flags.
    pub fn read(args: &Args) -> Result<Round, BenchError> {
        let rate: f64 = args.number("rate")?;
        let commits = |flag| args.number::<f64>(flag).map(|seconds| (seconds * rate) as u32);
        Ok(Round {
            rate,
            warm_up: commits("warm-up")?,
            commits: commits("seconds")?.max(1),
            drain: Duration::from_secs(args.number("drain")?),
        })
    }

    /// Refuses what cannot be measured.
    pub fn check(&self, audience: Audience) -> Result<(), BenchError> {
        if !(self.rate > 0.0 && self.rate <= MARKERS_PER_SECOND as f64) {
            return Err(BenchError::Usage(format!("--rate: more than 0, at most {MARKERS_PER_SECOND}")));
        }
        if audience.deliveries(self.total()) > ARRIVALS_MAX {
            return Err(BenchError::Usage(format!("clients x commits: at most {ARRIVALS_MAX}")));
        }
        Ok(())
    }

    fn total(&self) -> u32 {
        self.warm_up + self.commits
    }

    /// Makes the commits and receives what they cause. `text` is the statement of a commit, by
    /// its number and its marker.
    pub fn run(
        &self,
        common: &Common,
        sql: &mut Sql,
        swarms: Vec<Swarm>,
        audience: Audience,
        text: impl Fn(u32, u64) -> String,
    ) -> Result<Seen, BenchError> {
        let shared = Shared {
            begun: Instant::now(),
            base: fresh_marker(),
            total: self.total(),
            first: self.warm_up,
            audience,
            delivered: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        };
        std::thread::scope(|scope| {
            let receivers: Vec<_> = swarms.into_iter().map(|s| scope.spawn(|| shared.receive(s))).collect();
            let committed = self.commit_all(common, sql, &shared, text);
            shared.stop.store(true, Ordering::Relaxed);
            let mut received = Vec::new();
            for receiver in receivers {
                let joined = receiver.join();
                received.push(joined.map_err(|_| BenchError::Failed("a receiver panicked".to_owned()))??);
            }
            let (commits, usage) = committed?;
            Ok(self.sum_up(audience, &commits, usage, received))
        })
    }

    /// The warm-up, then the commits that count; waits until everybody has seen what they must,
    /// or the time for that is over.
    fn commit_all(
        &self,
        common: &Common,
        sql: &mut Sql,
        shared: &Shared,
        text: impl Fn(u32, u64) -> String,
    ) -> Result<(Vec<Commit>, Usage), BenchError> {
        // The first marker belongs to commit number 0.
        let marker = |number: u32| shared.base + 1 + u64::from(number);
        let text = |marker: u64| text((marker - shared.base - 1) as u32, marker);
        let [from, first, end] = [0, shared.first, shared.total].map(marker);
        schedule::commit(sql, shared.begun, self.rate, from..first, &shared.stop, &text)?;
        let meter = Meter::start(common.pids);
        let commits = schedule::commit(sql, shared.begun, self.rate, first..end, &shared.stop, &text)?;
        let until = Instant::now() + self.drain;
        let expected = shared.audience.deliveries(shared.total);
        while shared.delivered.load(Ordering::Relaxed) < expected
            && Instant::now() < until
            && !shared.stop.load(Ordering::Relaxed)
        {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok((commits, meter.stop()))
    }

    fn sum_up(&self, audience: Audience, commits: &[Commit], usage: Usage, received: Vec<Received>) -> Seen {
        let last = commits.last().map_or(Duration::ZERO, |c| c.acknowledged);
        let mut seen = Seen {
            latencies: Latencies::new(),
            usage,
            expected: audience.deliveries(self.commits),
            alone: 0,
            strays: 0,
            commits: self.commits,
            total: self.total(),
            counts: Counts::default(),
            receive_s: 0.0,
            commit_late: commits.iter().map(|c| c.sent.saturating_sub(c.due)).max().unwrap_or_default(),
            behind: Duration::ZERO,
            swarms: Vec::new(),
        };
        for part in received {
            let arrivals = &part.notes.arrivals;
            latencies(commits, self.warm_up, arrivals, &mut seen.latencies);
            let at = arrivals.iter().map(|a| a.1).max().unwrap_or(0);
            seen.behind = seen.behind.max(Duration::from_micros(u64::from(at)).saturating_sub(last));
            seen.alone += part.notes.alone;
            seen.strays += part.notes.strays;
            seen.counts = seen.counts.plus(part.counts);
            seen.receive_s += part.cpu_s;
            seen.swarms.push(part.swarm);
        }
        seen
    }
}

impl Shared {
    /// Receives until everybody has seen what they must, or it is told to stop.
    fn receive(&self, mut swarm: Swarm) -> Result<Received, BenchError> {
        let cpu_before = thread_cpu_s();
        let before = swarm.counts();
        let expected = self.audience.deliveries(self.total);
        let mut notes = Notes::default();
        while self.delivered.load(Ordering::Relaxed) < expected && !self.stop.load(Ordering::Relaxed) {
            let turned = swarm.turn(Instant::now() + TURN, &mut |client, poke, now| {
                self.shown(client, poke, now, &mut notes);
            });
            if let Err(e) = turned {
                self.stop.store(true, Ordering::Relaxed);
                return Err(e);
            }
        }
        let counts = swarm.counts().minus(before);
        Ok(Received { swarm, notes, counts, cpu_s: thread_cpu_s() - cpu_before })
    }

    /// Notes what a poke shows: a commit, and all before it that this client must see.
    fn shown(&self, client: &mut Connection, poke: &Poke, now: Instant, notes: &mut Notes) {
        let seen = client.seen.max(self.base);
        let last = poke.marker.min(self.base + u64::from(self.total));
        if last <= seen {
            return;
        }
        let micros = now.duration_since(self.begun).as_micros() as u32;
        let before = notes.arrivals.len();
        for marker in seen + 1..=last {
            let commit = (marker - self.base - 1) as u32;
            if self.audience.has(commit, client.number) {
                notes.arrivals.push((commit, micros));
            }
        }
        client.seen = last;
        let new = &notes.arrivals[before..];
        self.delivered.fetch_add(new.len() as u64, Ordering::Relaxed);
        match new {
            // The greatest marker is of a commit that this client need not see.
            [] => notes.strays += 1,
            [(commit, _)] if *commit >= self.first => notes.alone += 1,
            _ => {}
        }
    }
}

impl Seen {
    /// The figures that every round has, latencies first.
    pub fn figures(&self) -> Vec<Figure> {
        let pokes = self.counts.pokes.max(1) as f64;
        let deliveries = self.latencies.count();
        let ms = |d: Duration| d.as_secs_f64() * 1e3;
        vec![
            figure("latency_p50", "ms", self.latencies.percentile_ms(50.0)),
            figure("latency_p90", "ms", self.latencies.percentile_ms(90.0)),
            figure("latency_p99", "ms", self.latencies.percentile_ms(99.0)),
            figure("latency_max", "ms", self.latencies.max_ms()),
            figure("behind_last", "ms", ms(self.behind)),
            figure("alone", "% of deliveries", self.alone as f64 * 100.0 / deliveries.max(1) as f64),
            figure("deliveries", "", deliveries as f64),
            figure("pokes", "", pokes),
            figure("poke_size", "B", self.counts.bytes as f64 / pokes),
            figure("commit_late_max", "ms", ms(self.commit_late)),
            figure("receive_per_poke", "us CPU", self.receive_s * 1e6 / pokes),
        ]
    }

    /// Pokes that came while the commits counted, as far as that can be told: they are counted
    /// from the start of the warm-up, which has the same rate.
    pub fn pokes(&self) -> f64 {
        self.counts.pokes as f64 * f64::from(self.commits) / f64::from(self.total)
    }

    /// Whether everybody saw what they must, and nobody what they must not.
    pub fn verdict(&self) -> Verdict {
        let missing = self.expected.saturating_sub(self.latencies.count());
        if missing > 0 {
            let expected = self.expected;
            return Verdict::NotFinished(format!(
                "{missing} of {expected} deliveries were missing at the end"
            ));
        }
        match self.strays {
            0 => Verdict::Valid,
            n => Verdict::NotFinished(format!(
                "{n} pokes showed a change to a client that had not asked for it"
            )),
        }
    }

    /// What a reader should know.
    pub fn notes(&self) -> Vec<String> {
        let late = self.counts.late_pongs;
        if late > 0 { vec![format!("{late} pongs came later than 5 s")] } else { Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::meter::Pids;
    use super::*;

    #[test]
    fn missing_deliveries_and_strays_are_not_numbers_to_judge() {
        let round = Round { rate: 1.0, warm_up: 0, commits: 1, drain: Duration::ZERO };
        let commit = Commit { due: Duration::ZERO, sent: Duration::ZERO, acknowledged: Duration::ZERO };
        let verdict = |arrivals: &[Arrival], strays| {
            let swarm = Swarm::new(super::super::message::Search::Nothing).unwrap();
            let notes = Notes { arrivals: arrivals.to_vec(), alone: 0, strays };
            let received = Received { swarm, notes, counts: Counts::default(), cpu_s: 0.0 };
            let usage = Meter::start(Pids::default()).stop();
            round.sum_up(Audience::All(2), &[commit], usage, vec![received]).verdict()
        };
        assert_eq!(verdict(&[(0, 5), (0, 6)], 0), Verdict::Valid);
        assert!(matches!(verdict(&[(0, 5)], 0), Verdict::NotFinished(_)));
        assert!(matches!(verdict(&[(0, 5), (0, 6)], 1), Verdict::NotFinished(_)));
    }
}
