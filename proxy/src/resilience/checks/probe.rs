//! Asks one endpoint once.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use h2::RecvStream;
use h2::client::SendRequest;
use http::header::{CONTENT_TYPE, TE, USER_AGENT};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use prost::Message as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::task::AbortHandle;

use crate::balance::Endpoint;
use crate::error::Reason;
use crate::identity::SpiffePattern;
use crate::listener::Stream;
use crate::policy::health::{Check, CheckKind, uri};
use crate::policy::{Protocol, Upstream};
use crate::pool::{self, Alpn, Target};
use crate::shared::Shared;
use crate::tls::TlsState;

const AGENT: &str = "outrigger-health-check";
const GRPC_PATH: &str = "/grpc.health.v1.Health/Check";
/// As much of an HTTP/1.1 answer as is looked at: its status line.
const STATUS_LINE: usize = 64;
/// As much of a gRPC answer: a message has two bytes, after five of framing.
const MAX_GRPC_ANSWER: usize = 256;
/// How long a TCP connection must stay open: a peer's sidecar accepts it before it knows whether its application does.
const STAYS_OPEN: Duration = Duration::from_millis(250);

/// What a check says. `None`: nothing, it could not be made.
type Verdict = Option<Result<(), String>>;

/// Keeps the connection between checks, as long as it is good.
#[derive(Default)]
pub(super) struct Prober {
    open: Option<Open>,
}

/// An HTTP/2 connection, and what it was made with.
struct Open {
    send: SendRequest<Bytes>,
    driver: AbortHandle,
    tls: Option<Arc<TlsState>>,
    /// Who might serve the service. Not the service: a connection keeps no endpoint in the configuration.
    identities: Vec<SpiffePattern>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The request of `grpc.health.v1.Health/Check`.
#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// Its response.
#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    /// 0 UNKNOWN, 1 SERVING, 2 NOT_SERVING, 3 SERVICE_UNKNOWN.
    #[prost(int32, tag = "1")]
    status: i32,
}

impl Prober {
    pub(super) fn disconnect(&mut self) {
        self.open = None;
    }

    pub(super) async fn ask(
        &mut self,
        shared: &Shared,
        upstream: &Arc<Upstream>,
        endpoint: &Endpoint,
        check: &Check,
    ) -> Verdict {
        let target = Target::of(endpoint, upstream, &check.server_name);
        let result = match &check.what.kind {
            CheckKind::Tcp => tcp(shared, target, stays_open(check.what.timeout)).await,
            CheckKind::Http { path, host, .. }
                if !endpoint.mtls && check.protocol == Protocol::Http =>
            {
                let connected = connect(shared, target, Alpn::Http1).await;
                match connected {
                    Ok(mut stream) => get(&mut stream, host, path)
                        .await
                        .and_then(|status| expect(status, &check.what.kind)),
                    Err(failed) => Err(failed),
                }
            }
            kind => self.over_http2(shared, upstream, target, kind).await,
        };
        match result {
            Ok(()) => Some(Ok(())),
            Err(Failed::NotReady) => None,
            Err(Failed::Says(text)) => Some(Err(text)),
        }
    }

    async fn over_http2(
        &mut self,
        shared: &Shared,
        upstream: &Arc<Upstream>,
        target: Target<'_>,
        kind: &CheckKind,
    ) -> Result<(), Failed> {
        let tls = target.peer.and_then(|_| shared.tls.load_full());
        let is_current = |open: &Open| {
            let same_tls = match (&open.tls, &tls) {
                (Some(one), Some(other)) => Arc::ptr_eq(one, other),
                (None, None) => true,
                _ => false,
            };
            same_tls && open.identities == upstream.identities
        };
        if let Some(open) = self.open.take_if(|open| is_current(open)) {
            let send = open.send.clone();
            // It may have been closed since: that says nothing.
            if let Ok(result) = exchange(send, kind).await {
                self.open = Some(open);
                return result;
            }
        }
        self.open = None;
        let stream = connect(shared, target, Alpn::Http2).await?;
        let handshake = h2::client::Builder::new()
            .enable_push(false)
            .max_header_list_size(16 << 10)
            .handshake::<_, Bytes>(stream);
        let (send, connection) = handshake.await.map_err(broken)?;
        let driver = tokio::spawn(async move {
            // How it ends shows in the requests on it.
            let _ = connection.await;
        });
        let open = Open {
            send: send.clone(),
            driver: driver.abort_handle(),
            tls,
            identities: upstream.identities.clone(),
        };
        let result = exchange(send, kind).await.map_err(broken)?;
        self.open = Some(open);
        result
    }
}

/// Why a check did not succeed.
enum Failed {
    /// The sidecar has no identity yet.
    NotReady,
    Says(String),
}

fn says<T>(text: impl Into<String>) -> Result<T, Failed> {
    Err(Failed::Says(text.into()))
}

fn broken(error: h2::Error) -> Failed {
    Failed::Says(format!("the connection broke: {error}"))
}

async fn connect(shared: &Shared, target: Target<'_>, alpn: Alpn) -> Result<Stream, Failed> {
    match Box::pin(pool::dial(shared, target, alpn)).await {
        Ok(connected) => Ok(connected.stream),
        Err(failure) => match failure.reason {
            Reason::NotReady => Err(Failed::NotReady),
            reason => says(reason.as_str()),
        },
    }
}

/// Within the check's own time, with as much left for connecting.
fn stays_open(timeout: Duration) -> Duration {
    STAYS_OPEN.min(timeout / 2)
}

/// A connection that is accepted and not closed at once.
async fn tcp(shared: &Shared, target: Target<'_>, stays_open: Duration) -> Result<(), Failed> {
    let mut stream = connect(shared, target, Alpn::Tcp).await?;
    let mut byte = [0];
    match tokio::time::timeout(stays_open, stream.read(&mut byte)).await {
        // It waits for the client, or has begun to speak itself.
        Err(_) | Ok(Ok(1)) => Ok(()),
        Ok(_) => says("the connection was closed"),
    }
}

fn expect(status: StatusCode, kind: &CheckKind) -> Result<(), Failed> {
    let CheckKind::Http { expected, .. } = kind else {
        return Ok(());
    };
    if expected
        .iter()
        .any(|range| range.contains(&status.as_u16()))
    {
        return Ok(());
    }
    says(format!("status {}", status.as_u16()))
}

/// The status of a GET over HTTP/1.1, on a connection for it alone. Only the status line is read.
async fn get(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    host: &Authority,
    path: &PathAndQuery,
) -> Result<StatusCode, Failed> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: {AGENT}\r\nconnection: close\r\n\r\n"
    );
    let broke = |error: std::io::Error| Failed::Says(format!("the connection broke: {error}"));
    stream.write_all(request.as_bytes()).await.map_err(broke)?;
    stream.flush().await.map_err(broke)?;
    let mut answer = BytesMut::with_capacity(STATUS_LINE);
    while answer.len() < STATUS_LINE && !answer.contains(&b'\n') {
        if stream.read_buf(&mut answer).await.map_err(broke)? == 0 {
            break;
        }
    }
    match status_of(&answer) {
        Some(status) => Ok(status),
        None => says("the answer is not HTTP"),
    }
}

fn status_of(answer: &[u8]) -> Option<StatusCode> {
    let line = answer
        .split(|byte| *byte == b'\r' || *byte == b'\n')
        .next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    words
        .next()
        .filter(|version| version.starts_with("HTTP/1."))?;
    words.next()?.parse().ok()
}

/// One request. The outer error: it was not answered, because the connection is not good.
async fn exchange(
    send: SendRequest<Bytes>,
    kind: &CheckKind,
) -> Result<Result<(), Failed>, h2::Error> {
    let mut send = send.ready().await?;
    match kind {
        CheckKind::Http { path, host, .. } => {
            let request = request(Method::GET, host, path.clone());
            let (response, _) = send.send_request(request, true)?;
            Ok(expect(response.await?.status(), kind))
        }
        CheckKind::Grpc { service, host } => {
            let path = PathAndQuery::from_static(GRPC_PATH);
            let mut request = request(Method::POST, host, path);
            let headers = request.headers_mut();
            let value = http::HeaderValue::from_static;
            headers.insert(CONTENT_TYPE, value("application/grpc"));
            headers.insert(TE, value("trailers"));
            let (response, mut body) = send.send_request(request, false)?;
            body.send_data(grpc_message(service), true)?;
            grpc_answer(response.await?).await
        }
        // Not asked over HTTP.
        CheckKind::Tcp => Ok(Ok(())),
    }
}

fn request(method: Method, host: &Authority, path: PathAndQuery) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri(host, path);
    let agent = http::HeaderValue::from_static(AGENT);
    request.headers_mut().insert(USER_AGENT, agent);
    request
}

/// Not compressed, its length, and the message
/// (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).
fn grpc_message(service: &str) -> Bytes {
    let message = HealthCheckRequest {
        service: service.to_owned(),
    }
    .encode_to_vec();
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    // The contract's names are short.
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(&message);
    framed.freeze()
}

async fn grpc_answer(response: Response<RecvStream>) -> Result<Result<(), Failed>, h2::Error> {
    let (head, mut body) = response.into_parts();
    if head.status != StatusCode::OK {
        return Ok(says(format!("status {}", head.status.as_u16())));
    }
    let mut answer = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        if answer.len() + data.len() > MAX_GRPC_ANSWER {
            return Ok(says("the answer is too long for a health check"));
        }
        answer.extend_from_slice(&data);
    }
    let trailers = body.trailers().await?.unwrap_or_default();
    let status = grpc_status(&trailers).or_else(|| grpc_status(&head.headers));
    Ok(match status {
        Some(0) => serving(&answer),
        Some(12) => says("grpc.health.v1 is not implemented there"),
        Some(5) => says("grpc.health.v1 does not know the service"),
        Some(code) => says(format!("gRPC status {code}")),
        None => says("the answer has no gRPC status"),
    })
}

fn grpc_status(headers: &HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

fn serving(answer: &[u8]) -> Result<(), Failed> {
    let response = answer
        .split_at_checked(5)
        .filter(|(prefix, _)| prefix[0] == 0)
        .and_then(|(_, message)| HealthCheckResponse::decode(message).ok());
    match response.map(|response| response.status) {
        Some(1) => Ok(()),
        Some(2) => says("grpc.health.v1 says NOT_SERVING"),
        Some(other) => says(format!("grpc.health.v1 says {other}")),
        None => says("the answer is not one of grpc.health.v1"),
    }
}

#[cfg(test)]
mod tests;
