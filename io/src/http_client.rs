//! HTTP requests to the app.
