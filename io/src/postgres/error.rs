//! What can go wrong between us and a Postgres server.

use std::io;

/// A failure of a connection or of a statement.
#[derive(Debug)]
pub enum Error {
    /// No connection: name not found, refused, no answer in time.
    Connect {
        /// Host as configured.
        host: String,
        /// Port as configured.
        port: u16,
        /// What the operating system said.
        source: io::Error,
    },
    /// The server has no TLS though it is required, or the handshake failed.
    Tls(String),
    /// The server asks for a way to authenticate that is not supported, or for a password
    /// that is not configured.
    Authentication(String),
    /// The server refused; carries its SQLSTATE.
    Server(Box<ServerError>),
    /// The server sent what the protocol does not allow here.
    Protocol(String),
    /// An established connection failed.
    Io(io::Error),
    /// The server closed the connection.
    Closed,
}

/// An error message of the server.
#[derive(Debug, Clone, Default)]
pub struct ServerError {
    /// ERROR, FATAL or PANIC.
    pub severity: String,
    /// SQLSTATE, five characters.
    pub code: String,
    /// Primary text.
    pub message: String,
    /// Second text, often empty.
    pub detail: String,
    /// What the server advises, often empty.
    pub hint: String,
}

impl Error {
    /// SQLSTATE, if the server gave one.
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Error::Server(e) => Some(&e.code),
            _ => None,
        }
    }

    /// Whether the same attempt may succeed later with nobody changing a setting: the
    /// server is away, starting, stopping, or out of connections.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Connect { .. } | Error::Io(_) | Error::Closed => true,
            // Class 08: connection; 53300: too many connections; 57P01-57P03: stopping, starting.
            Error::Server(e) => {
                e.code.starts_with("08") || matches!(e.code.as_str(), "53300" | "57P01" | "57P02" | "57P03")
            }
            Error::Tls(_) | Error::Authentication(_) | Error::Protocol(_) => false,
        }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::Connect { host, port, source } => write!(f, "no connection to {host}:{port}: {source}"),
            Error::Tls(cause) => write!(f, "TLS to Postgres failed: {cause}"),
            Error::Authentication(cause) => write!(f, "Postgres authentication failed: {cause}"),
            Error::Server(e) => {
                write!(f, "Postgres: {} (SQLSTATE {})", e.message, e.code)?;
                if !e.detail.is_empty() {
                    write!(f, "; {}", e.detail)?;
                }
                if !e.hint.is_empty() {
                    write!(f, "; hint: {}", e.hint)?;
                }
                Ok(())
            }
            Error::Protocol(cause) => write!(f, "unexpected answer from Postgres: {cause}"),
            Error::Io(e) => write!(f, "connection to Postgres failed: {e}"),
            Error::Closed => write!(f, "Postgres closed the connection"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Connect { source, .. } => Some(source),
            Error::Io(e) => Some(e),
            _ => None,
        }
    }
}

impl From<io::Error> for Error {
    fn from(e: io::Error) -> Self {
        if e.kind() == io::ErrorKind::UnexpectedEof { Error::Closed } else { Error::Io(e) }
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(e: tokio_postgres::Error) -> Self {
        if let Some(db) = e.as_db_error() {
            return Error::Server(Box::new(ServerError {
                severity: db.severity().to_owned(),
                code: db.code().code().to_owned(),
                message: db.message().to_owned(),
                detail: db.detail().unwrap_or_default().to_owned(),
                hint: db.hint().unwrap_or_default().to_owned(),
            }));
        }
        if e.is_closed() {
            return Error::Closed;
        }
        match e.into_source() {
            Some(source) => match source.downcast::<io::Error>() {
                Ok(io) => Error::from(*io),
                Err(other) => Error::Protocol(other.to_string()),
            },
            None => Error::Protocol("unspecified failure of the client library".into()),
        }
    }
}
