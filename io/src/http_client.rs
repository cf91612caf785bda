//! HTTP requests to the app's endpoints and to others that settings name: hyper over this crate's sockets, with a pool of
//! kept-alive connections per core.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_lite::{AsyncRead, AsyncWrite};
use http_body_util::{BodyExt, Full};
use hyper::Method;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::rt::{Read, ReadBufCursor, Write};
use url::Url;

use crate::executor::{spawn, timeout};
use crate::socket::TcpStream;

/// Most idle connections kept per origin. More than that many requests at a time to one
/// app from one core are rare, and connecting again costs a millisecond.
const MAX_IDLE: usize = 16;

/// Most idle connections of all origins: clients may name some, and the settings allow any number by a pattern. The
/// oldest one goes.
const MAX_IDLE_OF_ALL: usize = 64;

/// Most bytes of an answer. The app's answers hold queries and results, not data.
pub const MAX_RESPONSE: usize = 64 << 20;

/// Most parts that an answer may come in. Apps that write one piece by piece make some thousands; each takes the core's
/// time, however short it is.
const MAX_PARTS: usize = 1 << 20;

/// Longest wait for a connection to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest wait for an answer. The reference sets none; a request that hangs for ever would
/// hold its group's mutations for ever.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(120);

/// Why a request got no answer.
#[derive(Debug)]
pub enum FetchError {
    /// The URL cannot be used.
    Url(String),
    /// The connection failed: worth another try.
    Connection(String),
    /// No answer within this time.
    Timeout(Duration),
    /// The answer is too large or malformed.
    Response(String),
}

impl std::fmt::Display for FetchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            FetchError::Url(what) => write!(f, "the URL cannot be used: {what}"),
            FetchError::Connection(what) => write!(f, "fetch failed: {what}"),
            FetchError::Timeout(limit) => write!(f, "no answer within {} s", limit.as_secs()),
            FetchError::Response(what) => write!(f, "the answer cannot be read: {what}"),
        }
    }
}

impl std::error::Error for FetchError {}

/// An answer.
#[derive(Debug, Clone)]
pub struct FetchResponse {
    /// Status code.
    pub status: u16,
    /// The body.
    pub body: Bytes,
}

type Sender = SendRequest<Full<Bytes>>;

/// What is asked of an origin.
struct Question<'a> {
    method: Method,
    url: &'a Url,
    headers: &'a [(String, String)],
    body: Bytes,
    /// Most bytes of the answer's body.
    limit: usize,
}

/// Sends requests; one per core, cheap to clone.
#[derive(Clone, Default)]
pub struct HttpClient {
    /// Connections that wait for a request, the one that came last at the end, with their origins.
    idle: Rc<RefCell<VecDeque<(String, Sender)>>>,
    tls: Rc<RefCell<Option<Arc<rustls::ClientConfig>>>>,
}

impl HttpClient {
    /// POSTs a JSON body. Redirects are answers like others: only what the settings allow is
    /// dialled, and told who the user is.
    pub async fn post(
        &self,
        url: &Url,
        headers: &[(String, String)],
        body: Bytes,
    ) -> Result<FetchResponse, FetchError> {
        let question = Question { method: Method::POST, url, headers, body, limit: MAX_RESPONSE };
        timeout(RESPONSE_TIMEOUT, self.once(&question))
            .await
            .unwrap_or(Err(FetchError::Timeout(RESPONSE_TIMEOUT)))
    }

    /// GETs a document of at most `limit` bytes within `time`, all told. Redirects are answers
    /// like others: whoever is trusted is named by the URL and nothing else.
    pub async fn get(&self, url: &Url, limit: usize, time: Duration) -> Result<FetchResponse, FetchError> {
        let headers = [("accept".to_owned(), "application/json".to_owned())];
        let question = Question { method: Method::GET, url, headers: &headers, body: Bytes::new(), limit };
        match timeout(time, self.once(&question)).await {
            Some(answer) => answer,
            None => Err(FetchError::Timeout(time)),
        }
    }

    async fn once(&self, question: &Question<'_>) -> Result<FetchResponse, FetchError> {
        let origin = question.url.origin().ascii_serialization();
        // A kept connection may have been closed meanwhile: that is no failure of the app.
        if let Some(mut sender) = self.take_idle(&origin).await
            && let Ok(response) = sender.send_request(build(question)?).await
        {
            return self.finish(origin, sender, response, question.limit).await;
        }
        let mut sender = self.connect(question.url).await?;
        let response =
            sender.send_request(build(question)?).await.map_err(|e| FetchError::Connection(e.to_string()))?;
        self.finish(origin, sender, response, question.limit).await
    }

    async fn take_idle(&self, origin: &str) -> Option<Sender> {
        loop {
            let (_, mut sender) = {
                let mut idle = self.idle.borrow_mut();
                let last = idle.iter().rposition(|(of, _)| of == origin)?;
                idle.remove(last)?
            };
            if sender.ready().await.is_ok() {
                return Some(sender);
            }
        }
    }

    async fn finish(
        &self,
        origin: String,
        sender: Sender,
        response: hyper::Response<Incoming>,
        limit: usize,
    ) -> Result<FetchResponse, FetchError> {
        let status = response.status().as_u16();
        let body = read_body(response.into_body(), limit).await?;
        if !sender.is_closed() {
            self.keep(origin, sender);
        }
        Ok(FetchResponse { status, body })
    }

    fn keep(&self, origin: String, sender: Sender) {
        let mut idle = self.idle.borrow_mut();
        idle.retain(|(_, sender)| !sender.is_closed());
        if idle.iter().filter(|(of, _)| *of == origin).count() >= MAX_IDLE {
            return;
        }
        if idle.len() >= MAX_IDLE_OF_ALL {
            idle.pop_front();
        }
        idle.push_back((origin, sender));
    }

    async fn connect(&self, url: &Url) -> Result<Sender, FetchError> {
        let host = url.host_str().ok_or_else(|| FetchError::Url("it names no host".into()))?.to_owned();
        let port = url.port_or_known_default().unwrap_or(80);
        let open = async {
            let stream = TcpStream::connect(&host, port).await?;
            match url.scheme() {
                "https" => self.secure(&host, stream).await,
                _ => handshake(stream).await,
            }
        };
        match timeout(CONNECT_TIMEOUT, open).await {
            None => Err(FetchError::Connection(format!("{host}:{port} did not answer in time"))),
            Some(Err(e)) => Err(FetchError::Connection(format!("{host}:{port}: {e}"))),
            Some(Ok(sender)) => Ok(sender),
        }
    }

    async fn secure(&self, host: &str, stream: TcpStream) -> io::Result<Sender> {
        let config = self.tls.borrow_mut().get_or_insert_with(crate::tls::verifying).clone();
        let name = rustls::pki_types::ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let stream = futures_rustls::TlsConnector::from(config).connect(name, stream).await?;
        handshake(stream).await
    }
}

/// All of a body. Its parts are copied as they come: a body may come in parts of a byte each, and what it takes to keep
/// a part is many times that.
async fn read_body(mut body: Incoming, limit: usize) -> Result<Bytes, FetchError> {
    let (mut whole, mut parts) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| FetchError::Response(e.to_string()))?;
        let Ok(part) = frame.into_data() else { continue };
        parts += 1;
        if whole.len() + part.len() > limit || parts > MAX_PARTS {
            let what = format!("it has more than {limit} bytes, or more than {MAX_PARTS} parts");
            return Err(FetchError::Response(what));
        }
        whole.extend_from_slice(&part);
    }
    Ok(Bytes::from(whole))
}

async fn handshake<S: AsyncRead + AsyncWrite + Unpin + 'static>(stream: S) -> io::Result<Sender> {
    let (sender, connection) = http1::handshake(HyperIo(stream)).await.map_err(io::Error::other)?;
    // Errors of the connection show in the requests that use it.
    spawn(async move {
        let _ = connection.await;
    })
    .detach();
    Ok(sender)
}

fn build(question: &Question) -> Result<hyper::Request<Full<Bytes>>, FetchError> {
    let url = question.url;
    let mut target = url.path().to_owned();
    if let Some(query) = url.query() {
        target.push('?');
        target.push_str(query);
    }
    let host = match url.port() {
        Some(port) => format!("{}:{port}", url.host_str().unwrap_or_default()),
        None => url.host_str().unwrap_or_default().to_owned(),
    };
    let mut request = hyper::Request::builder().method(&question.method).uri(target).header("host", host);
    for (name, value) in question.headers {
        request = request.header(name, value);
    }
    request.body(Full::new(question.body.clone())).map_err(|e| FetchError::Url(e.to_string()))
}

/// Our streams as hyper wants them.
struct HyperIo<S>(S);

impl<S: AsyncRead + Unpin> Read for HyperIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut chunk = [0u8; 8192];
        let limit = buf.remaining().min(chunk.len());
        match Pin::new(&mut self.0).poll_read(cx, &mut chunk[..limit]) {
            Poll::Ready(Ok(count)) => {
                buf.put_slice(&chunk[..count]);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncWrite + Unpin> Write for HyperIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx)
    }
}
