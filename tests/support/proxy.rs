//! A slow line between a client and the server.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use super::ports::listen;

/// Most bytes that are passed on at a time.
const PORTION: usize = 16 << 10;

/// Forwards one connection; what the server sends passes at this many bytes per second.
/// Returns the port to connect to. The threads end with the connection.
pub fn slow(server: u16, bytes_per_second: u64) -> u16 {
    let listener = listen();
    let port = listener.local_addr().expect("it is bound").port();
    thread::spawn(move || {
        let Ok((client, _)) = listener.accept() else { return };
        let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else { return };
        let (up, down) = (client.try_clone().expect("a handle"), server.try_clone().expect("a handle"));
        thread::spawn(move || copy(up, server, None));
        copy(down, client, Some(bytes_per_second));
    });
    port
}

fn copy(mut from: TcpStream, mut to: TcpStream, bytes_per_second: Option<u64>) {
    let _ = to.set_nodelay(true);
    let mut chunk = vec![0; PORTION];
    let (began, mut passed) = (Instant::now(), 0u64);
    while let Ok(count @ 1..) = from.read(&mut chunk) {
        if to.write_all(&chunk[..count]).is_err() {
            break;
        }
        passed += count as u64;
        if let Some(rate) = bytes_per_second {
            let due = Duration::from_millis(passed * 1000 / rate);
            thread::sleep(due.saturating_sub(began.elapsed()));
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
}
