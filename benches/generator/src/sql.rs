//! A Postgres connection that blocks its thread: simple queries, alone or pipelined.
//!
//! Blocking on purpose: the moment at which a commit is acknowledged is what latency is
//! counted from, and a thread that waits for nothing else notes it best.

use std::io::{Read, Write};
use std::net::TcpStream;

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::{md5_hash, sasl};
use postgres_protocol::message::{backend, frontend};

use super::error::BenchError;

/// Bytes that one read takes.
const READ_BUFFER: usize = 64 << 10;
/// Most that may be pipelined before it is sent, in bytes.
const PIPELINE_MAX: usize = 8 << 20;

/// One row of an answer, as text; `None` is NULL.
pub type Row = Vec<Option<String>>;

/// A connection.
pub struct Sql {
    stream: TcpStream,
    incoming: BytesMut,
    outgoing: BytesMut,
    buffer: Vec<u8>,
}

fn failed(e: impl std::fmt::Display) -> BenchError {
    BenchError::at("Postgres", e)
}

impl Sql {
    /// Connects to `postgres://user[:password]@host[:port]/database`, without TLS.
    pub fn connect(text: &str) -> Result<Sql, BenchError> {
        let url = url::Url::parse(text).map_err(|e| BenchError::Usage(format!("--upstream {text}: {e}")))?;
        let plain = |s: &str| percent_encoding::percent_decode_str(s).decode_utf8_lossy().into_owned();
        let host = url.host_str().unwrap_or("127.0.0.1");
        let stream = TcpStream::connect((host, url.port().unwrap_or(5432))).map_err(failed)?;
        stream.set_nodelay(true)?;
        let mut sql = Sql {
            stream,
            incoming: BytesMut::new(),
            outgoing: BytesMut::new(),
            buffer: vec![0; READ_BUFFER],
        };
        let user = plain(url.username());
        let database = plain(url.path().trim_start_matches('/'));
        let parameters =
            [("user", user.as_str()), ("database", &database), ("application_name", "kelvin-bench")];
        frontend::startup_message(parameters, &mut sql.outgoing)?;
        sql.authenticate(&user, &plain(url.password().unwrap_or_default()))?;
        sql.receive()?;
        Ok(sql)
    }

    fn authenticate(&mut self, user: &str, password: &str) -> Result<(), BenchError> {
        use backend::Message as M;
        let mut scram = None;
        loop {
            self.flush()?;
            match self.message()? {
                M::AuthenticationOk => return Ok(()),
                M::AuthenticationCleartextPassword => {
                    frontend::password_message(password.as_bytes(), &mut self.outgoing)?;
                }
                M::AuthenticationMd5Password(body) => {
                    let hash = md5_hash(user.as_bytes(), password.as_bytes(), body.salt());
                    frontend::password_message(hash.as_bytes(), &mut self.outgoing)?;
                }
                M::AuthenticationSasl(_) => {
                    let new =
                        sasl::ScramSha256::new(password.as_bytes(), sasl::ChannelBinding::unsupported());
                    frontend::sasl_initial_response(sasl::SCRAM_SHA_256, new.message(), &mut self.outgoing)?;
                    scram = Some(new);
                }
                M::AuthenticationSaslContinue(body) => {
                    let scram = scram.as_mut().ok_or_else(|| failed("SASL without a start"))?;
                    scram.update(body.data())?;
                    frontend::sasl_response(scram.message(), &mut self.outgoing)?;
                }
                M::AuthenticationSaslFinal(body) => {
                    scram.as_mut().ok_or_else(|| failed("SASL without a start"))?.finish(body.data())?;
                }
                M::ErrorResponse(body) => return Err(failed(error_text(&body))),
                _ => return Err(failed("a way of authentication that bench does not know")),
            }
        }
    }

    /// Runs statements and waits for them. Several in one text are one transaction.
    pub fn execute(&mut self, sql: &str) -> Result<(), BenchError> {
        self.rows(sql).map(|_| ())
    }

    /// Runs a query and waits for its rows.
    pub fn rows(&mut self, sql: &str) -> Result<Vec<Row>, BenchError> {
        self.send(sql)?;
        self.flush()?;
        self.receive()
    }

    /// The one number that a query gives.
    pub fn number(&mut self, sql: &str) -> Result<u64, BenchError> {
        let rows = self.rows(sql)?;
        let cell = rows.first().and_then(|r| r.first()).and_then(|c| c.as_deref());
        cell.and_then(|c| c.parse().ok()).ok_or_else(|| failed(format!("{sql}: no number")))
    }

    /// Puts statements into the pipeline; `flush` sends them.
    pub fn send(&mut self, sql: &str) -> Result<(), BenchError> {
        frontend::query(sql, &mut self.outgoing)?;
        if self.outgoing.len() > PIPELINE_MAX { self.flush() } else { Ok(()) }
    }

    /// Sends what is in the pipeline.
    pub fn flush(&mut self) -> Result<(), BenchError> {
        self.stream.write_all(&self.outgoing).map_err(failed)?;
        self.outgoing.clear();
        Ok(())
    }

    /// Waits for the answer to the oldest statements that have none yet.
    pub fn receive(&mut self) -> Result<Vec<Row>, BenchError> {
        use backend::Message as M;
        let mut rows = Vec::new();
        let mut error = None;
        loop {
            match self.message()? {
                M::DataRow(body) => {
                    let cells = body.ranges().map(|range| {
                        Ok(range.map(|r| String::from_utf8_lossy(&body.buffer()[r]).into_owned()))
                    });
                    rows.push(cells.collect().map_err(failed)?);
                }
                M::ErrorResponse(body) => error = Some(error_text(&body)),
                M::ReadyForQuery(_) => return error.map_or(Ok(rows), |e| Err(failed(e))),
                _ => {}
            }
        }
    }

    fn message(&mut self) -> Result<backend::Message, BenchError> {
        loop {
            if let Some(message) = backend::Message::parse(&mut self.incoming).map_err(failed)? {
                return Ok(message);
            }
            let n = self.stream.read(&mut self.buffer).map_err(failed)?;
            if n == 0 {
                return Err(failed("the connection was closed"));
            }
            self.incoming.extend_from_slice(&self.buffer[..n]);
        }
    }
}

fn error_text(body: &backend::ErrorResponseBody) -> String {
    let mut fields = body.fields();
    while let Ok(Some(field)) = fields.next() {
        if field.type_() == b'M' {
            return String::from_utf8_lossy(field.value_bytes()).into_owned();
        }
    }
    "an error without a message".to_owned()
}
