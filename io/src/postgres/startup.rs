//! The start of a session: startup message and authentication.

use bytes::{Buf, BytesMut};
use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::backend::{ErrorFields, Message};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::connect::{SESSION, Target};
use super::error::{Error, ServerError};
use super::farewell::Polite;
use super::stream::Stream;

/// Largest message that the server may send outside of a replication stream, in bytes.
/// Answers to commands are a few rows; more means that we lost our place in the stream.
const MAX_MESSAGE: usize = 16 << 20;

/// A stream cut into messages.
pub(super) struct Framed {
    pub(super) stream: Polite,
    pub(super) buffer: BytesMut,
}

impl Framed {
    /// Reads one message: its tag, and all of it with the header.
    pub(super) async fn frame(&mut self) -> Result<(u8, BytesMut), Error> {
        loop {
            if self.buffer.len() >= 5 {
                let length =
                    u32::from_be_bytes([self.buffer[1], self.buffer[2], self.buffer[3], self.buffer[4]])
                        as usize;
                if !(4..MAX_MESSAGE).contains(&length) {
                    return Err(Error::Protocol(format!("a message of {length} bytes")));
                }
                if self.buffer.len() > length {
                    let frame = self.buffer.split_to(length + 1);
                    return Ok((frame[0], frame));
                }
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(Error::Closed);
            }
        }
    }

    /// Reads one message that `postgres-protocol` knows; errors of the server become `Err`.
    pub(super) async fn message(&mut self) -> Result<Message, Error> {
        loop {
            let (tag, mut frame) = self.frame().await?;
            match Message::parse(&mut frame) {
                Ok(Some(Message::ErrorResponse(body))) => {
                    return Err(Error::Server(server_error(body.fields())));
                }
                Ok(Some(Message::NoticeResponse(_) | Message::ParameterStatus(_))) => {}
                Ok(Some(message)) => return Ok(message),
                Ok(None) => return Err(Error::Protocol(format!("an incomplete message {:?}", tag as char))),
                Err(e) => return Err(Error::Protocol(e.to_string())),
            }
        }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await?;
        Ok(())
    }
}

/// Takes an error message of the server apart.
pub(super) fn server_error(mut fields: ErrorFields<'_>) -> Box<ServerError> {
    let mut error = ServerError::default();
    while let Ok(Some(field)) = fields.next() {
        let value = String::from_utf8_lossy(field.value_bytes()).into_owned();
        match field.type_() {
            b'V' => error.severity = value,
            b'C' => error.code = value,
            b'M' => error.message = value,
            b'D' => error.detail = value,
            b'H' => error.hint = value,
            _ => {}
        }
    }
    Box::new(error)
}

/// Starts a logical replication session and waits until it is ready for commands.
pub(super) async fn start(target: &Target, application_name: &str) -> Result<Framed, Error> {
    let stream = Stream::open(target).await?;
    let mut framed = Framed { stream: Polite::new(stream), buffer: BytesMut::with_capacity(8 << 10) };
    let mut out = BytesMut::new();
    let mut parameters = vec![
        ("user", target.user.as_str()),
        ("database", target.database.as_str()),
        ("replication", "database"),
        ("application_name", application_name),
        ("client_encoding", "UTF8"),
    ];
    parameters.extend(SESSION);
    frontend::startup_message(parameters, &mut out).map_err(encode)?;
    framed.send(&out).await?;
    authenticate(&mut framed, target).await?;
    framed.stream.opened();
    loop {
        if let Message::ReadyForQuery(_) = framed.message().await? {
            return Ok(framed);
        }
    }
}

fn encode(e: std::io::Error) -> Error {
    Error::Protocol(format!("a value that cannot be sent: {e}"))
}

fn password(target: &Target) -> Result<&[u8], Error> {
    let password = target.password.as_deref().ok_or_else(|| {
        Error::Authentication(format!(
            "the server asks for a password of role {}; none is configured",
            target.user
        ))
    })?;
    Ok(password.as_bytes())
}

async fn authenticate(framed: &mut Framed, target: &Target) -> Result<(), Error> {
    let mut out = BytesMut::new();
    match framed.message().await? {
        Message::AuthenticationOk => return Ok(()),
        Message::AuthenticationCleartextPassword => {
            frontend::password_message(password(target)?, &mut out).map_err(encode)?;
        }
        Message::AuthenticationMd5Password(body) => {
            let hash = md5_hash(target.user.as_bytes(), password(target)?, body.salt());
            frontend::password_message(hash.as_bytes(), &mut out).map_err(encode)?;
        }
        Message::AuthenticationSasl(body) => {
            let scram = body.mechanisms().any(|m| Ok(m == SCRAM_SHA_256)).unwrap_or(false);
            if !scram {
                return Err(Error::Authentication("the server offers no SCRAM-SHA-256".into()));
            }
            scram_exchange(framed, password(target)?).await?;
        }
        _ => {
            return Err(Error::Authentication(
                "the server asks for GSSAPI or SSPI; allow scram-sha-256 for this role in pg_hba.conf".into(),
            ));
        }
    }
    if !out.is_empty() {
        framed.send(out.chunk()).await?;
    }
    match framed.message().await? {
        Message::AuthenticationOk => Ok(()),
        _ => Err(Error::Protocol("no answer to the password".into())),
    }
}

async fn scram_exchange(framed: &mut Framed, password: &[u8]) -> Result<(), Error> {
    let failed = |e: std::io::Error| Error::Authentication(e.to_string());
    let mut scram = ScramSha256::new(password, ChannelBinding::unsupported());
    let mut out = BytesMut::new();
    frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), &mut out).map_err(encode)?;
    framed.send(&out).await?;
    let Message::AuthenticationSaslContinue(body) = framed.message().await? else {
        return Err(Error::Protocol("SCRAM was not continued".into()));
    };
    scram.update(body.data()).map_err(failed)?;
    out.clear();
    frontend::sasl_response(scram.message(), &mut out).map_err(encode)?;
    framed.send(&out).await?;
    let Message::AuthenticationSaslFinal(body) = framed.message().await? else {
        return Err(Error::Protocol("SCRAM was not finished".into()));
    };
    scram.finish(body.data()).map_err(failed)
}
