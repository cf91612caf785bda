//! The app's own endpoints: query transformation and mutation push.
