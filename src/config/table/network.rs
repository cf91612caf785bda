//! Ports, HTTP and WebSocket.

use super::super::option::{Opt, boolean, number, text, whole};
use super::options;

options! {
    PORT = whole("port", 0, 65_535).default("4848").doc(
        "Port for clients (WebSocket), health (/ and /keepalive), /statz and /metrics. No TLS: terminate it \
         in front.");
    CHANGE_STREAMER_PORT = whole("change-streamer.port", 0, 65_535).derived("--port + 1")
        .not_yet("there are no other nodes to serve; nothing listens there.")
        .doc(
        "Internal port: the change stream for other nodes, and health. Private network only.");
    KEEPALIVE_TIMEOUT_MS = number("keepalive-timeout-ms").derived("off; 20000 on AWS ECS").doc(
        "Once /keepalive has been called, drain and stop when no call arrives for this many milliseconds. \
         0 or less turns it off.");
    WEBSOCKET_MAX_PAYLOAD_BYTES = whole("websocket-max-payload-bytes", 1, i32::MAX as i64).default("10485760")
        .doc("Largest message that a client may send; a bigger one closes its connection with code 1009.");
    WEBSOCKET_COMPRESSION = boolean("websocket-compression").default("false")
        .not_yet("messages are not compressed; clients work all the same.")
        .doc(
        "Offer permessage-deflate to clients. Saves bandwidth, costs processor time.");
    WEBSOCKET_COMPRESSION_OPTIONS = text("websocket-compression-options")
        .not_yet("messages are not compressed.")
        .doc(
        "JSON in the form of Node's ws library. Used: threshold (bytes below which a message is not \
         compressed) and zlibDeflateOptions.level (0 to 9). The rest is ignored.");
    LITESTREAM_PORT = number("litestream.port").derived("--port + 2")
        .ignored("Kelvin's backup needs no port of its own.")
        .doc("Port of litestream's metrics.");
}
