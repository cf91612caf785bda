//! Somebody sends without an end what costs little to send: frames that are no messages, messages that mean nothing,
//! what follows a connection's end, requests of pages. Others on the same core are served as if he were not there.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::support::app::items;
use crate::support::client::Client;
use crate::support::frames::{PING, TEXT, frame, unmasked};
use crate::support::stage::Stage;

const PONG: u8 = 0x8a;
/// A text that goes on, and what goes on with it.
const BEGINNING: u8 = 0x01;
const CONTINUATION: u8 = 0x00;

/// Questions of the bystander.
const ROUNDS: usize = 60;

/// Longest time that is always good enough. On a busy machine the bystander is compared with itself.
const PROMPT: Duration = Duration::from_millis(100);

/// Half of the bystander's pings are answered within this time.
fn median_ping(bystander: &mut Client) -> Duration {
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let began = Instant::now();
            bystander.round_trip();
            began.elapsed()
        })
        .collect();
    times.sort();
    times[ROUNDS / 2]
}

/// Somebody who opens a connection, sends the same bytes over and over and reads nothing, and begins anew when he is
/// sent away, until he is stopped.
struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Flood {
    fn start(open: impl Fn() -> TcpStream + Send + 'static, bytes: Vec<u8>) -> Flood {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (stop.clone(), sent.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let mut stream = open();
                let _ = stream.set_write_timeout(Some(Duration::from_millis(50)));
                let mut at = 0;
                while !stopped.load(Ordering::Relaxed) {
                    match stream.write(&bytes[at..]) {
                        Ok(count) => {
                            at = (at + count) % bytes.len();
                            counted.fetch_add(count as u64, Ordering::Relaxed);
                        }
                        // The server does not read for the moment.
                        Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock) => {}
                        Err(_) => break,
                    }
                }
                let _ = stream.shutdown(Shutdown::Both);
            }
        });
        Flood { stop, sent, thread: Some(thread) }
    }

    fn until_flowing(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.sent.load(Ordering::Relaxed) < 128 << 10 {
            assert!(Instant::now() < deadline, "nothing is sent");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// Checks that a bystander is answered as promptly beside a flood as without.
fn check(stage: &Stage, what: &str, flood: impl FnOnce() -> Flood) {
    let mut bystander = stage.tab(&[items()]);
    let quiet = median_ping(&mut bystander);
    let flood = flood();
    flood.until_flowing();
    let beside = median_ping(&mut bystander);
    drop(flood);
    assert!(beside < PROMPT.max(quiet * 20), "{what}: a ping took {beside:?}, and {quiet:?} without");
}

/// Checks it for a client that sends these bytes over and over.
fn check_client(stage: &Stage, what: &str, bytes: Vec<u8>) {
    let mut client = stage.client();
    client.connect(&[]);
    let template = client.sibling();
    let first = std::sync::Mutex::new(Some(client));
    check(stage, what, move || {
        let open = move || {
            let mut client = first.lock().unwrap().take().unwrap_or_else(|| {
                let mut client = template.sibling();
                // It is not let in at once when it comes too often.
                while client.try_open(Some(&client.init_body(Vec::new()))).is_err() {}
                client
            });
            client.raw().try_clone().expect("a descriptor")
        };
        Flood::start(open, bytes)
    });
}

#[test]
fn pongs_that_nobody_asked_for() {
    let stage = Stage::new(&[]);
    check_client(&stage, "empty pongs", frame(PONG, b"").repeat(10_000));
    check_client(&stage, "pongs", frame(PONG, &[7; 100]).repeat(1_000));
}

#[test]
fn frames_without_a_mask() {
    let stage = Stage::new(&[]);
    check_client(&stage, "unmasked pongs", unmasked(PONG, b"").repeat(100_000));
}

#[test]
fn a_message_that_never_ends() {
    let stage = Stage::new(&[]);
    // The beginning comes once, so it has a connection of its own.
    let mut client = stage.client();
    client.connect(&[]);
    client.raw().write_all(&frame(BEGINNING, b"")).expect("it can be sent");
    let stream = client.raw().try_clone().expect("a descriptor");
    let open = move || stream.try_clone().expect("a descriptor");
    let parts = frame(CONTINUATION, b"").repeat(10_000);
    check(&stage, "empty parts", || Flood::start(open, parts));
}

#[test]
fn messages_and_pings_that_are_empty() {
    let stage = Stage::new(&[]);
    check_client(&stage, "empty messages", frame(TEXT, b"").repeat(10_000));
    check_client(&stage, "empty pings", frame(PING, b"").repeat(10_000));
    check_client(&stage, "messages without a meaning", frame(TEXT, br#"["pull",{}]"#).repeat(10_000));
}

#[test]
fn what_follows_a_refusal() {
    let stage = Stage::new(&[]);
    let port = stage.server.port;
    let open = move || TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
    check(&stage, "no HTTP", || Flood::start(open, vec![0; 1 << 20]));
    check(&stage, "empty lines", || Flood::start(open, vec![b'\n'; 1 << 20]));
    let body = b"POST / HTTP/1.1\r\nContent-Length: 1000000000000\r\n\r\n".to_vec();
    check(&stage, "a body that nobody takes", || {
        Flood::start(
            move || {
                let mut stream = open();
                let _ = stream.write_all(&body);
                stream
            },
            vec![b'x'; 1 << 20],
        )
    });
}

#[test]
fn pages_without_an_end() {
    let stage = Stage::new(&[]);
    let port = stage.server.port;
    let open = move || {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
        let mut answers = stream.try_clone().expect("a descriptor");
        std::thread::spawn(move || {
            let mut chunk = vec![0; 64 << 10];
            while matches!(answers.read(&mut chunk), Ok(1..)) {}
        });
        stream
    };
    let requests = b"GET /metrics HTTP/1.1\r\n\r\n".repeat(10_000);
    check(&stage, "pages", || Flood::start(open, requests));
}
