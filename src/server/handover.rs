//! A socket on its way to the core that owns its client group.

use kelvin_io::socket::DetachedStream;

use crate::protocol::connect::ConnectRequest;

/// Sockets that may be on their way to one core. A core that cannot take this many
/// connections at once is better off if clients try again in five seconds.
pub const MAX_HANDOVERS: usize = 4_096;

/// An accepted WebSocket: the upgrade request has been read, nothing has been answered.
pub struct Handover {
    /// The socket.
    pub stream: DetachedStream,
    /// What the client said.
    pub request: ConnectRequest,
    /// `Sec-WebSocket-Key`.
    pub key: String,
    /// `Sec-WebSocket-Protocol`, to be repeated.
    pub protocol: Option<String>,
    /// All headers of the request, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Bytes that came after the request.
    pub rest: Vec<u8>,
}

/// The core of a client group among `cores` (design, "The cores").
pub fn owner(group_id: &str, cores: usize) -> usize {
    (xxhash_rust::xxh3::xxh3_64(group_id.as_bytes()) % cores.max(1) as u64) as usize
}
