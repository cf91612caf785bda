//! The process starts anew within itself, because the schema changed, while somebody connects.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::app::{THREE, items};
use crate::support::stage::Stage;
use kelvin::server::handshakes::{AT_A_TIME, MAX_HANDSHAKES};

/// Time in which a connection is answered or closed: more than a request may take to come.
const LIMIT: Duration = Duration::from_secs(15);

/// Longest time of a new start within the process: it copies a small database.
const ANEW: Duration = Duration::from_secs(60);

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: kelvin\r\n\r\n";

/// What has become of a connection.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Answered,
    Closed,
    Hangs,
}

fn connect(port: u16) -> Option<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(LIMIT)).expect("it can be limited");
    Some(stream)
}

fn fate(stream: &mut TcpStream) -> Fate {
    match stream.read(&mut [0; 4096]) {
        Ok(0) => Fate::Closed,
        Ok(_) => Fate::Answered,
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Fate::Hangs,
        Err(_) => Fate::Closed,
    }
}

/// What the server says it is waiting for.
fn waiting_for(port: u16) -> String {
    let mut answer = [0; 4096];
    let read = connect(port).map(|mut stream| {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: kelvin\r\n\r\n").and_then(|()| stream.read(&mut answer))
    });
    format!("{read:?}: {}", String::from_utf8_lossy(&answer).trim_end_matches('\0'))
}

/// What it does in the database.
fn sessions(stage: &mut Stage) -> String {
    let select = "SELECT string_agg(concat_ws(' | ', application_name, state, wait_event_type, wait_event, \
                  pg_blocking_pids(pid)::text, query_start, query), E'\\n') \
                  FROM pg_stat_activity WHERE datname = current_database()";
    stage.sql.value(select)
}

fn resync(stage: &mut Stage, times: usize) {
    stage.sql.run("DROP PUBLICATION \"_zero_public_0\"");
    let deadline = Instant::now() + ANEW;
    let count = |what: &str| stage.server.log().matches(what).count();
    while count("the replica is made anew") < times || count("zero-cache ready") <= times {
        if Instant::now() > deadline {
            panic!("it does not start anew: {:?}\n{}", waiting_for(stage.server.port), sessions(stage));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_connection_that_has_said_nothing_yet_is_closed() {
    let mut stage = Stage::prepared(THREE, &[]);
    let mut silent = connect(stage.server.port).expect("connected");
    let mut kept = connect(stage.server.port).expect("connected");
    kept.write_all(REQUEST).expect("written");
    assert_eq!(fate(&mut kept), Fate::Answered);
    let mut half = connect(stage.server.port).expect("connected");
    half.write_all(&REQUEST[..20]).expect("written");
    std::thread::sleep(Duration::from_millis(100));
    resync(&mut stage, 1);
    let fates = [&mut silent, &mut kept, &mut half].map(fate);
    assert_eq!(fates, [Fate::Closed, Fate::Closed, Fate::Closed]);
}

/// Ends the knocking, also when the test has failed: it would go on for ever.
struct Knocks<'k>(&'k AtomicBool);

impl Drop for Knocks<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_connection_that_comes_at_that_moment_is_answered_or_closed() {
    const TIMES: usize = 2;
    let mut stage = Stage::prepared(THREE, &[]);
    // A client that is connected makes the stop take its time.
    let mut client = stage.tab(&[items()]);
    let (port, ended) = (stage.server.port, AtomicBool::new(false));
    let fates: Vec<Fate> = std::thread::scope(|scope| {
        let knock = || {
            let mut streams = Vec::new();
            while !ended.load(Ordering::Relaxed) {
                if let Some(mut stream) = connect(port) {
                    let _ = stream.write_all(REQUEST);
                    streams.push(stream);
                }
                std::thread::sleep(Duration::from_micros(500));
                // Those that were answered long ago say nothing about this.
                if streams.len() > 400 {
                    streams.drain(..200).for_each(|mut stream| assert_ne!(fate(&mut stream), Fate::Hangs));
                }
            }
            streams.iter_mut().map(fate).collect::<Vec<Fate>>()
        };
        let knocking: Vec<_> = (0..2).map(|_| scope.spawn(knock)).collect();
        let knocks = Knocks(&ended);
        for times in 1..=TIMES {
            resync(&mut stage, times);
        }
        drop(knocks);
        knocking.into_iter().flat_map(|thread| thread.join().expect("none hangs")).collect()
    });
    let hang = fates.iter().filter(|fate| **fate == Fate::Hangs).count();
    assert_eq!(hang, 0, "of {} connections", fates.len());
    client.settle(Duration::from_millis(10));
}

#[test]
fn nothing_of_the_run_before_is_left() {
    let mut stage = Stage::prepared(THREE, &[]);
    let _before = stage.tab(&[items()]);
    let mut left = Vec::new();
    for times in 1..=4 {
        resync(&mut stage, times);
        let mut client = stage.tab(&[items()]);
        client.settle(Duration::from_millis(50));
        // Its threads go a moment later, and some things are only there now and then.
        let looks = (0..10).map(|_| {
            std::thread::sleep(Duration::from_millis(100));
            (stage.server.descriptors(), stage.server.threads())
        });
        left.push(looks.min().expect("ten looks"));
    }
    // One comes and goes; one for each start would be two more.
    let [_, (descriptors, threads), _, mut last] = left[..] else { unreachable!("four starts") };
    let deadline = Instant::now() + ANEW;
    // Some that a run opens after seconds are not in the looks.
    while last.0 >= descriptors + 2 || last.1 > threads {
        assert!(Instant::now() < deadline, "descriptors and threads: {left:?}, and {last:?}");
        std::thread::sleep(Duration::from_millis(50));
        last = (stage.server.descriptors(), stage.server.threads());
    }
}

#[test]
fn peers_that_say_nothing_do_not_keep_others_out() {
    // More than may be heard at a time, and each of them may be silent for more than a minute.
    const SILENT: usize = 1_200;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).expect("more open files");
    let stage = Stage::prepared(THREE, &[]);
    let silent: Vec<TcpStream> = (0..SILENT).filter_map(|_| connect(stage.server.port)).collect();
    assert_eq!(silent.len(), SILENT);
    let began = Instant::now();
    stage.tab(&[items()]);
    assert!(began.elapsed() < LIMIT, "{:?}", began.elapsed());
    let mut page = connect(stage.server.port).expect("a connection");
    page.write_all(REQUEST).expect("it takes a request");
    assert_eq!(fate(&mut page), Fate::Answered);
    // Only as many were closed as had to make room: a round at a time, and the next one only when there were too many
    // again. The tab, the page, and who asks whether the server is ready, take a place each.
    let is_open = |stream: &&TcpStream| {
        stream.set_nonblocking(true).expect("it can be asked");
        matches!((&mut &**stream).read(&mut [0; 1]), Err(error) if error.kind() == ErrorKind::WouldBlock)
    };
    let left = silent.iter().filter(is_open).count();
    let rounds = (SILENT - MAX_HANDSHAKES).div_ceil(AT_A_TIME) + 1;
    let (least, most) = (SILENT - rounds * AT_A_TIME, MAX_HANDSHAKES);
    assert!((least..=most).contains(&left), "{left} of {SILENT} are left, not {least} to {most}");
}
