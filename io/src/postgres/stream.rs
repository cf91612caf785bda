//! A connection to a Postgres server before any message: TCP, and TLS if asked for.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};

use super::connect::{Target, TlsMode};
use super::error::Error;
use crate::socket::TcpStream;

/// Plain or encrypted bytes, in the traits that `tokio-postgres` and `tokio-rustls` speak.
pub(super) enum Stream {
    Plain(Compat<TcpStream>),
    Tls(Box<TlsStream<Compat<TcpStream>>>),
}

impl Stream {
    /// Connects and negotiates encryption (an SSLRequest, unless TLS is off).
    pub(super) async fn open(target: &Target) -> Result<Stream, Error> {
        let tcp = TcpStream::connect(&target.host, target.port).await.map_err(|source| Error::Connect {
            host: target.host.clone(),
            port: target.port,
            source,
        })?;
        let mut tcp = tcp.compat();
        if target.tls == TlsMode::Disable {
            return Ok(Stream::Plain(tcp));
        }
        let mut request = bytes::BytesMut::new();
        postgres_protocol::message::frontend::ssl_request(&mut request);
        tcp.write_all(&request).await?;
        // One byte and no more: whatever follows it must come through TLS.
        let mut answer = [0u8; 1];
        tcp.read_exact(&mut answer).await?;
        match (answer[0], target.tls) {
            (b'S', _) => encrypt(tcp, target).await,
            (_, TlsMode::Prefer) => Ok(Stream::Plain(tcp)),
            _ => Err(Error::Tls(format!(
                "{}:{} does not offer TLS; enable ssl on the server, or use sslmode=disable",
                target.host, target.port
            ))),
        }
    }
}

async fn encrypt(tcp: Compat<TcpStream>, target: &Target) -> Result<Stream, Error> {
    let config = match (target.tls, &target.root_certificates) {
        (TlsMode::Verify | TlsMode::VerifyCa, Some(file)) => {
            let (file, checks_name) = (file.clone(), target.tls == TlsMode::Verify);
            let config = crate::executor::blocking(move || crate::tls::trusting(&file, checks_name));
            config.await.map_err(Error::Tls)?
        }
        (TlsMode::Verify | TlsMode::VerifyCa, None) => crate::tls::verifying(),
        _ => crate::tls::unverified(),
    };
    let host = target.host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned())
        .map_err(|e| Error::Tls(format!("{host} is not a name that a certificate can carry: {e}")))?;
    let stream = TlsConnector::from(config)
        .connect(name, tcp)
        .await
        .map_err(|e| Error::Tls(format!("handshake with {host}: {e}")))?;
    Ok(Stream::Tls(Box::new(stream)))
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(s) => Pin::new(s).poll_read(cx, buf),
            Stream::Tls(s) => Pin::new(s).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(s) => Pin::new(s).poll_write(cx, buf),
            Stream::Tls(s) => Pin::new(s).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(s) => Pin::new(s).poll_flush(cx),
            Stream::Tls(s) => Pin::new(s).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(s) => Pin::new(s).poll_shutdown(cx),
            Stream::Tls(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}
