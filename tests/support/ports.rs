//! Ports on loopback that nobody uses, and that nobody else takes before they are listened on.

use std::fs::File;
use std::net::TcpListener;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

/// Ports below those that the kernel gives to outgoing connections: while a server is not there,
/// one of those would take its port.
const PORTS: std::ops::Range<u32> = 12_000..20_000;

/// Locks of the ports that this process has taken; they end with it. Tests run in many processes at a time.
static TAKEN: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// A port that nobody listens on, and that no other test takes for as long as this process lives.
pub fn free_port() -> u16 {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(61);
    for _ in PORTS {
        let number = first.wrapping_add(NUMBER.fetch_add(1, Ordering::Relaxed)) % PORTS.len() as u32;
        let port = (PORTS.start + number) as u16;
        if take(port) {
            return port;
        }
    }
    panic!("no port of {PORTS:?} is free");
}

/// Listens on such a port.
pub fn listen() -> TcpListener {
    TcpListener::bind(("127.0.0.1", free_port())).expect("it is free")
}

fn take(port: u16) -> bool {
    let directory = std::env::temp_dir().join("kelvin-test-ports");
    std::fs::create_dir_all(&directory).expect("a directory can be made");
    let lock = File::create(directory.join(port.to_string())).expect("a file can be made");
    // Of others than tests it is only known that they listen now.
    if lock.try_lock().is_err() || TcpListener::bind(("::", port)).is_err() {
        return false;
    }
    TAKEN.lock().expect("nothing panics while it is held").push(lock);
    true
}
