//! A blocking Postgres connection for tests: simple queries, values as text.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::{backend, frontend};

/// A row: values as text, `None` for NULL.
pub type Row = Vec<Option<String>>;

/// Longest wait for the server. A statement that takes longer has hung.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A connection; the server trusts everybody.
pub struct Sql {
    stream: TcpStream,
    buffer: BytesMut,
}

fn other(what: impl Into<String>) -> io::Error {
    io::Error::other(what.into())
}

impl Sql {
    /// Connects; fails the test if that is not possible.
    pub fn connect(port: u16, database: &str) -> Sql {
        Sql::try_connect(port, database).unwrap_or_else(|e| panic!("Postgres on port {port}: {e}"))
    }

    /// Connects.
    pub fn try_connect(port: u16, database: &str) -> io::Result<Sql> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let mut sql = Sql { stream, buffer: BytesMut::new() };
        let mut out = BytesMut::new();
        frontend::startup_message([("user", "postgres"), ("database", database)], &mut out)?;
        sql.stream.write_all(&out)?;
        sql.until_ready()?;
        Ok(sql)
    }

    /// Runs statements; a failure is the test's.
    pub fn run(&mut self, sql: &str) {
        self.rows(sql);
    }

    /// Runs statements and returns the rows of all of them.
    pub fn rows(&mut self, sql: &str) -> Vec<Row> {
        self.query(sql).unwrap_or_else(|e| panic!("{e}\n{sql}"))
    }

    /// The first value of the first row.
    pub fn value(&mut self, sql: &str) -> String {
        let rows = self.rows(sql);
        rows.first().and_then(|r| r[0].clone()).unwrap_or_else(|| panic!("no value: {sql}"))
    }

    /// Runs statements; an error leaves the connection usable if the server still is there.
    pub fn query(&mut self, sql: &str) -> io::Result<Vec<Row>> {
        let mut out = BytesMut::new();
        frontend::query(sql, &mut out)?;
        self.stream.write_all(&out)?;
        self.until_ready()
    }

    fn until_ready(&mut self) -> io::Result<Vec<Row>> {
        let mut rows = Vec::new();
        let mut failure = None;
        loop {
            match self.message()? {
                backend::Message::DataRow(body) => {
                    let buffer = body.buffer();
                    let text = |r: std::ops::Range<usize>| String::from_utf8_lossy(&buffer[r]).into_owned();
                    rows.push(body.ranges().map(|r| Ok(r.map(text))).collect()?);
                }
                backend::Message::ErrorResponse(body) => {
                    let message = body.fields().filter(|f| Ok(f.type_() == b'M')).next()?;
                    failure = message.map(|f| String::from_utf8_lossy(f.value_bytes()).into_owned());
                }
                backend::Message::ReadyForQuery(_) => {
                    return failure.map_or(Ok(rows), |why| Err(other(why)));
                }
                _ => {}
            }
        }
    }

    fn message(&mut self) -> io::Result<backend::Message> {
        loop {
            if let Some(message) = backend::Message::parse(&mut self.buffer)? {
                return Ok(message);
            }
            let mut chunk = [0; 16 << 10];
            match self.stream.read(&mut chunk)? {
                0 => return Err(other("Postgres closed the connection")),
                count => self.buffer.extend_from_slice(&chunk[..count]),
            }
        }
    }
}
