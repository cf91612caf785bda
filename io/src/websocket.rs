//! WebSocket frames.
