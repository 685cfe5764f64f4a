//! HTTP clients that do what they are told: one connection, no retries, no pool.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::within;

/// No single request of a test takes longer than this, other than those that say so.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub type Error = Box<dyn std::error::Error + Send + Sync>;
pub type Body = UnsyncBoxBody<Bytes, Error>;

/// A body of these bytes.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A response, read to its end.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    /// Reads all of a response.
    ///
    /// # Errors
    /// Where the body breaks.
    pub async fn read(response: Response<Incoming>) -> Result<Self, hyper::Error> {
        let (head, body) = response.into_parts();
        let collected = body.collect().await?;
        let trailers = collected.trailers().cloned();
        Ok(Self {
            status: head.status,
            headers: head.headers,
            body: collected.to_bytes(),
            trailers,
        })
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// # Panics
    /// Where the body is not JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {:?}", self.text()))
    }

    /// A header's value, or "".
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// Why a proxy refused, or "".
    pub fn reason(&self) -> &str {
        self.header("x-outrigger-reason")
    }

    /// Name of the [`crate::upstream::Http`] that answered, or "".
    pub fn instance(&self) -> &str {
        self.header("x-instance")
    }
}

/// A connection of either protocol version.
#[derive(Debug)]
pub enum Connection {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Connection {
    /// # Errors
    /// Where the connection cannot be opened.
    pub async fn http1(to: SocketAddr) -> Result<Self, Error> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection.with_upgrades());
        Ok(Self::Http1(sender))
    }

    /// HTTP/2 without TLS, by prior knowledge.
    ///
    /// # Errors
    /// Where the connection cannot be opened.
    pub async fn http2(to: SocketAddr) -> Result<Self, Error> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .handshake(TokioIo::new(stream))
            .await?;
        tokio::spawn(connection);
        Ok(Self::Http2(sender))
    }

    /// Sends a request whose head is as this version of HTTP wants it, and awaits the response's head.
    ///
    /// # Errors
    /// Where the connection breaks before that.
    pub async fn send(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, hyper::Error> {
        match self {
            Self::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Self::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }

    /// `GET` of `path` at `host`.
    ///
    /// # Errors
    /// Where the connection or the response breaks.
    pub async fn get(&mut self, host: &str, path: &str) -> Result<Answer, hyper::Error> {
        let request = self.request("GET", host, path, empty());
        Answer::read(self.send(request).await?).await
    }

    /// A request in the form that this version of HTTP wants: the host in `Host`, or in `:authority`.
    pub fn request(&self, method: &str, host: &str, path: &str, body: Body) -> Request<Body> {
        let builder = Request::builder().method(method);
        let builder = match self {
            Self::Http1(_) => builder.uri(path).header("host", host),
            Self::Http2(_) => builder.uri(format!("http://{host}{path}")),
        };
        builder
            .body(body)
            .unwrap_or_else(|error| panic!("{method} {host} {path}: {error}"))
    }
}

/// `GET` on a connection of its own, HTTP/1.1.
///
/// # Panics
/// Where there is no whole answer in time.
pub async fn get(to: SocketAddr, host: &str, path: &str) -> Answer {
    request(
        to,
        Request::builder().uri(path).header("host", host),
        empty(),
    )
    .await
}

/// A request on an HTTP/1.1 connection of its own.
///
/// # Panics
/// Where there is no whole answer in time.
pub async fn request(to: SocketAddr, head: http::request::Builder, body: Body) -> Answer {
    try_request(to, head, body)
        .await
        .unwrap_or_else(|error| panic!("{to}: {error}"))
}

/// As [`request`].
///
/// # Errors
/// Where the connection is refused, or it or the response breaks.
pub async fn try_request(
    to: SocketAddr,
    head: http::request::Builder,
    body: Body,
) -> Result<Answer, Error> {
    try_request_within(PATIENCE, to, head, body).await
}

/// As [`try_request`], for a stream that takes longer.
///
/// # Errors
/// Where the connection is refused, or it or the response breaks.
pub async fn try_request_within(
    limit: Duration,
    to: SocketAddr,
    head: http::request::Builder,
    body: Body,
) -> Result<Answer, Error> {
    let request = head.body(body)?;
    let what = format!("{} {} at {to}", request.method(), request.uri());
    within(&what, limit, async {
        let mut connection = Connection::http1(to).await?;
        Ok(Answer::read(connection.send(request).await?).await?)
    })
    .await
}

/// Writes bytes as they are and reads until the peer closes the connection or `limit` is over.
///
/// # Panics
/// Where the connection cannot be opened.
pub async fn raw(to: SocketAddr, bytes: &[u8], limit: Duration) -> String {
    let mut stream = TcpStream::connect(to)
        .await
        .unwrap_or_else(|error| panic!("{to}: {error}"));
    // The peer may have refused before all was written; what it answered is still to be read.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(limit, stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}
