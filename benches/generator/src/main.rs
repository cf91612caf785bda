//! `kelvin-bench`: a load generator that speaks the sync protocol to any server.
//!
//! It knows a server only by its URL, so Kelvin and the reference get exactly the same
//! load. It shares no code with the server's own protocol modules: a mistake made once
//! there must not be made again here, where it would cancel out.
//!
//! What always holds: latency is counted from the commit on a schedule that does not wait
//! for the server (no coordinated omission), every client and every commit counts once, and
//! a run whose cores were full says so instead of giving a number (`docs/performance.md`).

mod args;
mod arrivals;
mod asts;
mod audience;
mod change;
mod common;
mod compare;
mod connection;
mod crowd;
mod distinct;
mod disturbance;
mod error;
mod fanout;
mod frame;
mod goals;
mod handshake;
mod hydrate;
mod idle;
mod initial_sync;
mod live;
mod marker;
mod message;
mod meter;
mod needle;
mod null_server;
mod outcome;
mod page;
mod procfs;
mod query;
mod quiet;
mod reconnect;
mod responder;
mod round;
mod schedule;
mod seed;
mod self_test;
mod slices;
mod sql;
mod statistics;
mod successor;
mod swarm;
mod watched;
mod window;
mod write;

use args::{Args, Flag};
use error::BenchError;
use kelvin_io::allocator::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting::new();

/// One thing that it can do.
struct Command {
    name: &'static str,
    about: &'static str,
    flags: &'static [&'static [Flag]],
    /// What the arguments without a name are, if any are taken.
    positional: Option<&'static str>,
    run: fn(&Args) -> Result<(), BenchError>,
}

const COMMANDS: &[Command] = &[
    Command {
        name: "seed",
        about: "create the tables of the issue tracker and fill them",
        flags: &[seed::FLAGS],
        positional: None,
        run: seed::run,
    },
    Command {
        name: "responder",
        about: "answer /query for the queries that the other commands use",
        flags: &[responder::FLAGS],
        positional: None,
        run: responder::run,
    },
    Command {
        name: "initial-sync",
        about: "wait for a server that has just been started, and give rows per second",
        flags: &[common::FLAGS, initial_sync::FLAGS],
        positional: None,
        run: initial_sync::run,
    },
    Command {
        name: "hydrate",
        about: "groups that ask for many rows at once",
        flags: &[common::FLAGS, hydrate::FLAGS],
        positional: None,
        run: hydrate::run,
    },
    Command {
        name: "fanout",
        about: "one row changes, every client must hear of it: latency from the commit",
        flags: &[common::FLAGS, round::FLAGS, fanout::FLAGS],
        positional: None,
        run: fanout::run,
    },
    Command {
        name: "distinct",
        about: "views that nobody else has, and commits for one of them each: CPU per commit",
        flags: &[common::FLAGS, round::FLAGS, distinct::FLAGS],
        positional: None,
        run: distinct::run,
    },
    Command {
        name: "live",
        about: "the latency of a fan-out while others are sent large results",
        flags: &[common::FLAGS, round::FLAGS, live::FLAGS],
        positional: None,
        run: live::run,
    },
    Command {
        name: "crowd",
        about: "the latency of a fan-out while more clients come than there is memory for",
        flags: &[common::FLAGS, round::FLAGS, crowd::FLAGS],
        positional: None,
        run: crowd::run,
    },
    Command {
        name: "reconnect",
        about: "all clients lose their connections and come back with their cookies: seconds until all are up to date",
        flags: &[common::FLAGS, reconnect::FLAGS],
        positional: None,
        run: reconnect::run,
    },
    Command {
        name: "idle",
        about: "groups that are connected and quiet: memory and CPU of the server",
        flags: &[common::FLAGS, idle::FLAGS],
        positional: None,
        run: idle::run,
    },
    Command {
        name: "write",
        about: "many rows are inserted: rows per second until a marker is seen behind them",
        flags: &[common::FLAGS, write::FLAGS],
        positional: None,
        run: write::run,
    },
    Command {
        name: "window",
        about: "rows change outside a window, or move through it: rows per second until a marker is seen",
        flags: &[common::FLAGS, window::FLAGS],
        positional: None,
        run: window::run,
    },
    Command {
        name: "self-test",
        about: "what the generator itself costs, against a server that sends canned pokes",
        flags: &[self_test::FLAGS],
        positional: None,
        run: self_test::run,
    },
    Command {
        name: "wait-quiet",
        about: "wait until the machine is quiet enough for a run",
        flags: &[quiet::FLAGS],
        positional: None,
        run: quiet::run,
    },
    Command {
        name: "compare",
        about: "medians, ratios and the verdict on the goals, from the JSON files of many runs",
        flags: &[compare::FLAGS],
        positional: Some("FILE..."),
        run: compare::run,
    },
];

fn main() {
    let args: Vec<String> = std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    std::process::exit(run(&args));
}

/// Returns the exit status: 0 done, 1 failed or not finished, 2 wrong usage.
fn run(args: &[String]) -> i32 {
    let Some(name) = args.first() else {
        eprint!("{}", overview());
        return 2;
    };
    if name == "--help" || name == "help" {
        print!("{}", overview());
        return 0;
    }
    let Some(command) = COMMANDS.iter().find(|c| c.name == name) else {
        eprint!("kelvin-bench: there is no command {name:?}\n\n{}", overview());
        return 2;
    };
    if args.iter().any(|a| a == "--help") {
        print!("{}", help(command));
        return 0;
    }
    match Args::parse(&args[1..], command.flags, command.positional.is_some()).and_then(|a| (command.run)(&a))
    {
        Ok(()) => 0,
        Err(e) => {
            eprintln!("kelvin-bench {name}: {e}");
            e.exit_status()
        }
    }
}

fn overview() -> String {
    let mut text = String::from("usage: kelvin-bench COMMAND [--flag VALUE ...]\n\n");
    for c in COMMANDS {
        text += &format!("  {:<13} {}\n", c.name, c.about);
    }
    text + "\nkelvin-bench COMMAND --help lists the flags of a command.\n"
}

fn help(command: &Command) -> String {
    let positional = command.positional.map(|p| format!(" {p}")).unwrap_or_default();
    let mut text = format!("kelvin-bench {}{positional}: {}\n\n", command.name, command.about);
    for flag in command.flags.iter().flat_map(|f| f.iter()) {
        let default = flag.default.map(|d| format!(" (default {d})")).unwrap_or_default();
        text += &format!("  --{:<24} {}{default}\n", format!("{} {}", flag.name, flag.value), flag.help);
    }
    text
}
