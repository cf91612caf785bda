//! What all the measuring commands have in common: where the server is, whose it is, who
//! takes part, how long it may take, and where the result goes.

use std::time::{Duration, Instant};

use super::args::{Args, Flag};
use super::error::BenchError;
use super::handshake::Target;
use super::meter::Pids;
use super::outcome::{Measured, Outcome, Verdict};
use super::procfs;

/// Flags of every measuring command.
pub const FLAGS: &[Flag] = &[
    Flag { name: "url", value: "URL", default: Some("ws://127.0.0.1:4848"), help: "the server" },
    Flag {
        name: "label",
        value: "NAME",
        default: Some("kelvin"),
        help: "whose server it is: kelvin or reference",
    },
    Flag { name: "commit", value: "HASH", default: Some("unknown"), help: "commit of this repository" },
    Flag { name: "server-pid", value: "PID", default: None, help: "root of the server's processes" },
    Flag { name: "postgres-pid", value: "PID", default: None, help: "root of Postgres' processes" },
    Flag { name: "backend-pid", value: "PID", default: None, help: "root of the backend's processes" },
    Flag {
        name: "time-limit",
        value: "SECONDS",
        default: Some("120"),
        help: "a run that is longer did not finish",
    },
    Flag { name: "json", value: "FILE", default: None, help: "also write the result there" },
];

/// The values of these flags.
pub struct Common {
    /// The server.
    pub target: Target,
    /// Who takes part.
    pub pids: Pids,
    time_limit: Duration,
    label: String,
    commit: String,
    json: Option<String>,
    load_before: f64,
}

impl Common {
    /// Reads the flags.
    pub fn new(args: &Args) -> Result<Common, BenchError> {
        let pids = Pids {
            server: args.optional_number("server-pid")?,
            postgres: args.optional_number("postgres-pid")?,
            backend: args.optional_number("backend-pid")?,
        };
        // The server may have ended already: that is a result, not a mistake.
        for pid in [pids.postgres, pids.backend].into_iter().flatten() {
            if procfs::usage(pid).is_none() {
                return Err(BenchError::Usage(format!("there is no process {pid}")));
            }
        }
        Ok(Common {
            target: Target::parse(args.text("url")?)?,
            pids,
            time_limit: Duration::from_secs(args.number("time-limit")?),
            label: args.text("label")?.to_owned(),
            commit: args.text("commit")?.to_owned(),
            json: args.optional("json").map(str::to_owned),
            load_before: procfs::load_average(),
        })
    }

    /// The end of the time limit for something that starts now.
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.time_limit
    }

    /// Prints and writes the result. A server that did not finish is a result too, and the
    /// command fails with it.
    pub fn conclude(
        &self,
        scenario: String,
        measured: Result<Measured, BenchError>,
    ) -> Result<(), BenchError> {
        let (measured, error) = match measured {
            Ok(measured) => (measured, None),
            Err(BenchError::NotFinished(why)) => {
                let verdict = Verdict::NotFinished(why.clone());
                (
                    Measured { figures: Vec::new(), verdict, notes: Vec::new() },
                    Some(BenchError::NotFinished(why)),
                )
            }
            Err(e) => return Err(e),
        };
        let outcome = Outcome {
            scenario,
            label: self.label.clone(),
            commit: self.commit.clone(),
            command: command_line(std::env::args().skip(1)),
            load_before: self.load_before,
            figures: measured.figures,
            verdict: measured.verdict,
            notes: measured.notes,
        };
        print!("{}", outcome.table());
        if let Some(path) = &self.json {
            outcome.write(path)?;
        }
        match outcome.verdict {
            // Figures of a part of the run may be there; the command fails all the same.
            Verdict::NotFinished(why) => Err(error.unwrap_or(BenchError::NotFinished(why))),
            _ => Ok(()),
        }
    }
}

/// The command as it can be repeated: without what names only this run of it.
fn command_line(words: impl Iterator<Item = String>) -> String {
    const OF_THIS_RUN: [&str; 7] = [
        "--json",
        "--server-pid",
        "--postgres-pid",
        "--backend-pid",
        "--commit",
        "--started",
        "--restart-command",
    ];
    let mut out = String::from("kelvin-bench");
    let mut words = words.peekable();
    while let Some(word) = words.next() {
        if OF_THIS_RUN.contains(&word.as_str()) {
            words.next();
        } else if !OF_THIS_RUN.iter().any(|f| word.strip_prefix(f).is_some_and(|rest| rest.starts_with('=')))
        {
            out += " ";
            out += &word;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_written_so_that_it_can_be_repeated() {
        let words = "fanout --json /tmp/x --clients 5 --server-pid=7 --commit abc --rate 2";
        let line = command_line(words.split(' ').map(str::to_owned));
        assert_eq!(line, "kelvin-bench fanout --clients 5 --rate 2");
    }
}
