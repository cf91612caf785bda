//! `bench reconnect`: all clients lose their connections at once, rows change while they are away, and
//! all come back with their cookies. How long until the last of them is up to date?

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use super::args::{Args, Flag};
use super::change::Change;
use super::common::Common;
use super::connection::{Away, Connection};
use super::error::BenchError;
use super::message::Search;
use super::meter::{Meter, Pids, Usage};
use super::outcome::{Figure, Measured, Verdict, figure, usage_figures, who_was_full};
use super::query::Query;
use super::schedule::fresh_marker;
use super::sql::Sql;
use super::successor::{self, Successor};
use super::swarm::Swarm;

/// Flags of `bench reconnect`.
pub const FLAGS: &[Flag] = &[
    Flag { name: "upstream", value: "URL", default: None, help: "Postgres, where the commits are made" },
    Flag { name: "clients", value: "N", default: Some("1000"), help: "clients, each a group of its own" },
    Flag { name: "shared", value: "N", default: Some("100"), help: "rows of the query that all have" },
    Flag { name: "own", value: "N", default: Some("20"), help: "rows of the query that each has alone" },
    Flag {
        name: "commits",
        value: "N",
        default: Some("50"),
        help: "commits while they are away, each of another row that all have",
    },
    Flag {
        name: "kind",
        value: "KIND",
        default: Some("drop"),
        help: "drop: only the connections are lost; restart: the server is killed and started again",
    },
    Flag {
        name: "restart-command",
        value: "SH",
        default: None,
        help: "restart: starts the server; run by sh -c, and ended with the run",
    },
];

/// Clients that may wait for their first rows at the same time.
const CONNECTING: usize = 32;
/// Time between the last rows and the loss of the connections: everybody is up to date, and the
/// server has nothing left to do.
const SETTLE: Duration = Duration::from_secs(2);
/// How often connecting is tried again while nobody listens.
const RETRY: Duration = Duration::from_millis(10);
/// Errors that tell a client to throw away what it has.
const START_OVER: [&str; 2] = ["ClientNotFound", "InvalidConnectionRequestBaseCookie"];

struct Plan {
    clients: usize,
    shared: u64,
    own: u64,
    commits: u64,
    restart: Option<Restart>,
}

struct Restart {
    /// The server that is killed.
    pid: u32,
    command: String,
}

impl Plan {
    fn read(args: &Args, common: &Common) -> Result<Plan, BenchError> {
        let missing = |flag| BenchError::Usage(format!("--kind restart needs {flag}"));
        let restart = match args.text("kind")? {
            "drop" => None,
            "restart" => Some(Restart {
                pid: common.pids.server.ok_or_else(|| missing("--server-pid"))?,
                command: args
                    .optional("restart-command")
                    .ok_or_else(|| missing("--restart-command"))?
                    .to_owned(),
            }),
            other => return Err(BenchError::Usage(format!("--kind {other}: drop or restart"))),
        };
        let plan = Plan {
            clients: args.number("clients")?,
            shared: args.number("shared")?,
            own: args.number("own")?,
            commits: args.number("commits")?,
            restart,
        };
        if plan.clients == 0 || plan.commits == 0 || plan.commits > plan.shared {
            let text = "--clients and --commits: at least 1, and no more commits than shared rows";
            return Err(BenchError::Usage(text.to_owned()));
        }
        Ok(plan)
    }

    fn queries(&self, client: usize) -> Vec<Query> {
        vec![Query::recent(self.shared), Query::project(client as u64, self.own)]
    }
}

/// Runs `bench reconnect`.
pub fn run(args: &Args) -> Result<(), BenchError> {
    let common = Common::new(args)?;
    let plan = Plan::read(args, &common)?;
    let mut sql = Sql::connect(args.text("upstream")?)?;
    let projects = sql.number("select count(*) from projects")?;
    if (plan.clients as u64) > projects {
        return Err(BenchError::Usage(format!("--clients: there are only {projects} projects")));
    }
    let measured = measure(&common, &mut sql, &plan);
    common.conclude(format!("reconnect {} clients {}", plan.clients, args.text("kind")?), measured)
}

fn measure(common: &Common, sql: &mut Sql, plan: &Plan) -> Result<Measured, BenchError> {
    let deadline = common.deadline();
    let change = Change::in_turn(sql, plan.shared)?;
    let away = connect(common, plan, deadline)?.leave();
    let base = fresh_marker();
    let last = base + plan.commits;
    let commit = |sql: &mut Sql| (base + 1..=last).try_for_each(|marker| sql.execute(&change.sql(marker)));
    let (mut successor, meter, begun);
    match &plan.restart {
        None => {
            commit(sql)?;
            successor = None;
            meter = Meter::start(common.pids);
            begun = Instant::now();
        }
        Some(restart) => {
            successor::kill(restart.pid, &common.target, deadline)?;
            commit(sql)?;
            let mut new = Meter::start(Pids { server: None, ..common.pids });
            let started = Successor::start(&restart.command)?;
            new.server_began(started.pid());
            begun = started.begun;
            meter = new;
            successor = Some(started);
        }
    }
    let mut back = Return::new(begun, last)?;
    back.come(common, &away, successor.as_mut(), deadline)?;
    back.wait(away.len(), deadline)?;
    let usage = meter.stop();
    Ok(back.judge(away.len(), plan.commits, &usage))
}

/// All the clients, with all their rows.
fn connect(common: &Common, plan: &Plan, deadline: Instant) -> Result<Swarm, BenchError> {
    let wanted: Vec<Vec<Query>> = (0..plan.clients).map(|client| plan.queries(client)).collect();
    let mut swarm = Swarm::new(Search::Queries)?;
    swarm.gather(&common.target, &wanted, CONNECTING, deadline)?;
    swarm.idle(SETTLE)?;
    // A row that is in both is sent once.
    if let Some(short) = swarm.connections.iter().find(|c| c.counts.rows < plan.shared) {
        let (number, rows) = (short.number, short.counts.rows);
        return Err(BenchError::NotFinished(format!(
            "client {number} was sent {rows} rows for {} and more (are there as many?)",
            plan.shared
        )));
    }
    Ok(swarm)
}

/// The clients on their way back.
struct Return {
    swarm: Swarm,
    /// The time counts from here.
    begun: Instant,
    /// Marker of the last commit.
    last: u64,
    /// When each was shown the last commit, in order.
    shown: Vec<Duration>,
    /// By number, those that were sent a `clear`.
    cleared: Vec<usize>,
    /// Why connecting failed, for each with which it did.
    failed: Vec<String>,
    /// When the first connection was made, and the last.
    connected: Option<(Duration, Duration)>,
}

impl Return {
    fn new(begun: Instant, last: u64) -> Result<Return, BenchError> {
        let mut swarm = Swarm::new(Search::Return)?;
        swarm.lenient = true;
        Ok(Return {
            swarm,
            begun,
            last,
            shown: Vec::new(),
            cleared: Vec::new(),
            failed: Vec::new(),
            connected: None,
        })
    }

    /// Opens all the connections at once. While a server is starting, nobody listens at first.
    fn come(
        &mut self,
        common: &Common,
        away: &[Away],
        mut successor: Option<&mut Successor>,
        deadline: Instant,
    ) -> Result<(), BenchError> {
        for client in away {
            loop {
                let Err(e) = self.swarm.come_back(&common.target, client) else {
                    let now = self.begun.elapsed();
                    self.connected = Some((self.connected.map_or(now, |(first, _)| first), now));
                    break;
                };
                let Some(starting) = successor.as_mut().filter(|_| e.kind() == ErrorKind::ConnectionRefused)
                else {
                    self.failed.push(e.to_string());
                    break;
                };
                if starting.ended() {
                    return Err(BenchError::NotFinished("the server that was started ended".to_owned()));
                }
                if Instant::now() >= deadline {
                    return Err(BenchError::NotFinished(
                        "the server that was started never listened".to_owned(),
                    ));
                }
                std::thread::sleep(RETRY);
            }
        }
        Ok(())
    }

    /// Receives until all have been shown the last commit, or have been closed.
    fn wait(&mut self, clients: usize, deadline: Instant) -> Result<(), BenchError> {
        while self.settled() < clients && Instant::now() < deadline {
            let Return { swarm, shown, cleared, last, begun, .. } = self;
            swarm.turn(deadline, &mut |client, poke, now| {
                if poke.cleared && !cleared.contains(&client.number) {
                    cleared.push(client.number);
                }
                if client.seen < *last && poke.marker >= *last {
                    shown.push(now.duration_since(*begun));
                }
                client.seen = client.seen.max(poke.marker);
            })?;
        }
        Ok(())
    }

    /// Clients from whom nothing more is to come.
    fn settled(&self) -> usize {
        let unseen = |index: &&usize| self.swarm.connections[**index].seen < self.last;
        self.shown.len() + self.failed.len() + self.swarm.closed.iter().filter(unseen).count()
    }

    /// Why clients were refused, and how many were told to start over.
    fn refusals(&self) -> (Vec<String>, usize) {
        let closed = self.swarm.closed.iter().filter_map(|i| self.swarm.connections[*i].closed());
        let start_over = |reason: &&str| START_OVER.iter().any(|kind| reason.contains(kind));
        let (over, refused): (Vec<&str>, Vec<&str>) = closed.partition(start_over);
        let refused = refused.into_iter().map(str::to_owned).chain(self.failed.iter().cloned());
        (refused.collect(), over.len() + self.cleared.len())
    }

    fn judge(&self, clients: usize, commits: u64, usage: &Usage) -> Measured {
        let (refused, started_over) = self.refusals();
        let unseen = clients - self.shown.len();
        let short = |c: &&Connection| c.seen >= self.last && c.counts.rows < commits;
        let verdict = if let Some(reason) = refused.first() {
            Verdict::NotFinished(format!("{} clients were refused, as with {reason:?}", refused.len()))
        } else if unseen > 0 {
            Verdict::NotFinished(format!(
                "{unseen} of {clients} clients were never shown the last commit{}",
                self.example()
            ))
        } else if let Some(c) = self.swarm.connections.iter().find(short) {
            // A server that is fast because it sends less has not won anything.
            Verdict::NotFinished(format!("client {} was sent {} rows for {commits}", c.number, c.counts.rows))
        } else {
            Verdict::Valid
        };
        let figures = self.figures(refused.len(), started_over, usage);
        Measured { figures, verdict, notes: vec![who_was_full(usage)] }
    }

    /// What came over one of the connections that are open and wait.
    fn example(&self) -> String {
        let waits = |c: &&Connection| c.seen < self.last && c.closed().is_none();
        let one = self.swarm.connections.iter().find(waits);
        one.map_or(String::new(), |c| {
            format!(", as client {}: {} pokes, {} bytes", c.number, c.counts.pokes, c.counts.bytes)
        })
    }

    fn figures(&self, refused: usize, started_over: usize, usage: &Usage) -> Vec<Figure> {
        let counts = self.swarm.counts();
        let seconds = |name, time: Option<&Duration>| time.map(|time| figure(name, "s", time.as_secs_f64()));
        let mut figures: Vec<Figure> = seconds("wall", self.shown.last()).into_iter().collect();
        figures.push(figure("refused", "clients", refused as f64));
        figures.push(figure("started_over", "clients", started_over as f64));
        let each = self.swarm.connections.len().max(1) as f64;
        figures.push(figure("rows_per_client", "rows", counts.rows as f64 / each));
        figures.extend(seconds("first_client", self.shown.first()));
        figures.extend(seconds("median_client", self.shown.get(self.shown.len() / 2)));
        figures.extend(seconds("first_connected", self.connected.as_ref().map(|c| &c.0)));
        figures.extend(seconds("all_connected", self.connected.as_ref().map(|c| &c.1)));
        figures.push(figure("received", "MB", counts.bytes as f64 / 1e6));
        figures.extend(usage_figures(usage));
        figures
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::super::handshake::{Identity, Target};
    use super::*;

    fn away(clients: usize) -> Vec<Away> {
        (0..clients).map(|_| Away { identity: Identity::fresh(), cookie: "0b".to_owned() }).collect()
    }

    fn common(target: &Target) -> Common {
        let words = [format!("--url=ws://{}", target.host)];
        Common::new(&Args::parse(&words, &[super::super::common::FLAGS], false).unwrap()).unwrap()
    }

    /// What becomes of clients whom a server sends these messages after the upgrade.
    fn answered(messages: Vec<Vec<&'static str>>) -> Measured {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = Target::parse(&format!("ws://{}", listener.local_addr().unwrap())).unwrap();
        let clients = away(messages.len());
        let serving = std::thread::spawn(move || {
            let accept = |messages: Vec<&str>| {
                let (mut socket, _) = listener.accept().unwrap();
                super::super::null_server::accept(&mut socket).unwrap();
                let mut out = Vec::new();
                messages.iter().for_each(|m| super::super::frame::server_frame(&mut out, 0x81, m.as_bytes()));
                socket.write_all(&out).unwrap();
                socket
            };
            let sockets: Vec<_> = messages.into_iter().map(accept).collect();
            for mut socket in sockets {
                // Until the client goes.
                while socket.read(&mut [0; 64]).is_ok_and(|n| n > 0) {}
            }
        });
        let deadline = Instant::now() + Duration::from_secs(5);
        let meter = Meter::start(Pids::default());
        let mut back = Return::new(Instant::now(), 7).unwrap();
        back.come(&common(&target), &clients, None, deadline).unwrap();
        back.wait(clients.len(), deadline).unwrap();
        let measured = back.judge(clients.len(), 1, &meter.stop());
        drop(back);
        serving.join().unwrap();
        measured
    }

    const START: &str = r#"["pokeStart",{"pokeID":"1","baseCookie":"0b"}]"#;
    const ROW: &str = r#"["pokePart",{"pokeID":"1","rowsPatch":[{"op":"put","tableName":"issues","value":{"title":"kelvin-bench:0000000000007"}}]}]"#;
    const CLEAR: &str = r#"["pokePart",{"pokeID":"1","rowsPatch":[{"op":"clear"}]}]"#;
    const END: &str = r#"["pokeEnd",{"pokeID":"1","cookie":"0c"}]"#;
    const UNKNOWN: &str = r#"["error",{"kind":"ClientNotFound","message":"no"}]"#;
    const REHOME: &str = r#"["error",{"kind":"Rehome","message":"later"}]"#;

    fn value(measured: &Measured, name: &str) -> f64 {
        measured.figures.iter().find(|f| f.name == name).unwrap().value
    }

    #[test]
    fn all_are_back_when_the_poke_with_the_last_commit_has_ended() {
        let measured = answered(vec![vec![START, ROW, END], vec![START, END, START, ROW, END]]);
        assert_eq!(measured.verdict, Verdict::Valid);
        assert!(value(&measured, "wall") > 0.0);
        assert_eq!(value(&measured, "rows_per_client"), 1.0);
    }

    #[test]
    fn those_who_start_over_are_counted_and_those_who_are_refused_end_the_judgement() {
        let measured = answered(vec![vec![START, CLEAR, ROW, END], vec![START, ROW, END]]);
        assert_eq!((value(&measured, "started_over"), value(&measured, "refused")), (1.0, 0.0));
        assert_eq!(measured.verdict, Verdict::Valid);
        let measured = answered(vec![vec![REHOME], vec![UNKNOWN], vec![START, ROW, END]]);
        assert_eq!((value(&measured, "started_over"), value(&measured, "refused")), (1.0, 1.0));
        assert!(matches!(measured.verdict, Verdict::NotFinished(why) if why.contains("Rehome")));
        let measured = answered(vec![vec![UNKNOWN], vec![START, ROW, END]]);
        assert!(matches!(measured.verdict, Verdict::NotFinished(why) if why.starts_with("1 of 2")));
    }

    #[test]
    fn a_poke_without_the_rows_is_not_up_to_date() {
        let bare = r#"["pokePart",{"pokeID":"1","x":"kelvin-bench:0000000000007"}]"#;
        let measured = answered(vec![vec![START, bare, END]]);
        assert!(matches!(measured.verdict, Verdict::NotFinished(why) if why.contains("0 rows for 1")));
    }
}
