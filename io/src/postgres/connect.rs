//! Ordinary connections.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, NoTls};

use super::error::Error;
use super::farewell;
use super::stream::Stream;
use crate::executor::{self, Task};

/// Longest time for name lookup, TCP, TLS and authentication together. A host that drops
/// packets would otherwise hold a connection attempt for minutes.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);

/// How a connection is encrypted, as libpq's `sslmode` means it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// Never.
    Disable,
    /// If the server offers it; certificates are not checked.
    Prefer,
    /// Always; certificates are not checked.
    Require,
    /// Always, and the certificate must be valid, for whatever host.
    VerifyCa,
    /// Always, and the certificate must be valid for the host.
    Verify,
}

/// A server and a database on it.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Role.
    pub user: String,
    /// Password; `None` if the server trusts us.
    pub password: Option<String>,
    /// Database name.
    pub database: String,
    /// Encryption.
    pub tls: TlsMode,
    /// Longest time for one attempt to connect; `None`: 15 seconds.
    pub connect_timeout: Option<Duration>,
    /// File (PEM) with the certificates that are trusted, if certificates are checked; `None`: those of the authorities
    /// that everybody trusts. Read at each connection: it may be replaced.
    pub root_certificates: Option<PathBuf>,
}

impl Target {
    /// Waits for an attempt to connect for as long as it may take.
    pub(super) async fn within<T>(
        &self,
        attempt: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let limit = self.connect_timeout.unwrap_or(CONNECT_LIMIT);
        executor::timeout(limit, attempt).await.unwrap_or_else(|| {
            Err(Error::Connect {
                host: self.host.clone(),
                port: self.port,
                source: io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {limit:?}")),
            })
        })
    }
}

impl std::fmt::Debug for Target {
    /// Without the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}:{}/{} tls={:?}", self.user, self.host, self.port, self.database, self.tls)
    }
}

/// An open connection. Dropping it closes it, in the background; see [`until_closed`](super::until_closed).
pub struct Connection {
    /// Statements go through this.
    pub client: Client,
    /// Moves bytes between the client and the socket. `None` only while it is dropped.
    task: Option<Task<()>>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            // The client goes right after this. Then the task says goodbye, as soon as what was asked is
            // answered.
            farewell::say(async move {
                let _ = task.await;
            });
        }
    }
}

/// Session settings that fix how values look as text. `search_path` is emptied so that
/// no object of the user can stand in for one of the system. The others are not left to what the role or the database has
/// for the app's own sessions: a copy takes its time, an exported snapshot is held by a session that does nothing, and a row
/// that a policy hides must not be missed in silence, nor a warning that something was not sent.
pub(super) const SESSION: [(&str, &str); 12] = [
    ("DateStyle", "ISO"),
    ("TimeZone", "UTC"),
    ("extra_float_digits", "1"),
    ("bytea_output", "hex"),
    ("IntervalStyle", "postgres"),
    ("search_path", "pg_catalog"),
    ("statement_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("idle_session_timeout", "0"),
    ("default_transaction_read_only", "off"),
    ("row_security", "off"),
    ("client_min_messages", "warning"),
];

/// Connects and authenticates; the session prints values in one fixed way.
pub async fn connect(target: &Target, application_name: &str) -> Result<Connection, Error> {
    target.within(open(target, application_name)).await
}

async fn open(target: &Target, application_name: &str) -> Result<Connection, Error> {
    let stream = Stream::open(target).await?;
    let mut config = tokio_postgres::Config::new();
    // The stream is encrypted already, or may not be.
    config.ssl_mode(SslMode::Disable);
    config.user(&target.user).dbname(&target.database).application_name(application_name);
    if let Some(password) = &target.password {
        config.password(password);
    }
    let options: Vec<String> = SESSION.iter().map(|(name, value)| format!("-c {name}={value}")).collect();
    config.options(options.join(" "));
    let (client, connection) = config.connect_raw(stream, NoTls).await?;
    let task = executor::spawn(async move {
        // A failure reaches whoever waits for a statement.
        let _ = connection.await;
    });
    Ok(Connection { client, task: Some(task) })
}
