//! Waits for the sign that a client can be told an error (`core/settling.rs`).

use futures_lite::AsyncReadExt;
use kelvin_io::socket::ReadHalf;
use kelvin_io::websocket::{FrameReader, Message};

/// Most bytes that are read while an error is kept and no message has come.
const MAX_READ: usize = 64 << 10;

/// Waits until a message comes, or nothing can come any more.
pub async fn until_shown(reader: &mut ReadHalf, frames: &mut FrameReader) {
    let mut chunk = vec![0u8; 4 << 10];
    let mut read = 0;
    while read <= MAX_READ {
        loop {
            match frames.next_message() {
                Ok(None) => break,
                // Proxies and libraries send these by themselves.
                Ok(Some(Message::Ping(_) | Message::Nothing(_))) => {}
                Ok(Some(Message::Data(_) | Message::Close)) | Err(_) => return,
            }
        }
        match reader.read(&mut chunk).await {
            Ok(count @ 1..) => {
                frames.feed(&chunk[..count]);
                read += count;
            }
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::AsyncWriteExt;
    use kelvin_io::executor::{start, timeout};
    use kelvin_io::socket::{Listener, TcpStream};

    use std::time::Duration;

    use super::*;

    /// Whether it is over that nothing was shown, after so many empty pongs.
    fn is_over_after(pongs: usize) -> bool {
        let executor = start("test", None, move || async move {
            let listener = Listener::bind(0).expect("a port");
            let port = listener.local_addr().expect("an address").port();
            let mut client = TcpStream::connect("127.0.0.1", port).await.expect("connected");
            let mut reader = listener.accept().await.expect("accepted").split().0;
            client.write_all(&[0x8a, 0x80, 1, 2, 3, 4].repeat(pongs)).await.expect("sent");
            let mut frames = FrameReader::new(1_000, Vec::new());
            timeout(Duration::from_millis(300), until_shown(&mut reader, &mut frames)).await.is_some()
        });
        executor.unwrap().join().unwrap()
    }

    #[test]
    fn who_sends_without_an_end_and_says_nothing_is_not_waited_for() {
        assert!(!is_over_after(10));
        assert!(is_over_after(2 * MAX_READ / 6));
    }
}
