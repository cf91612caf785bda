//! HTTP requests from clients.
