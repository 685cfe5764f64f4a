//! The application behind every peer: as little HTTP/1.1 as can be, so that what is measured is the proxies.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Length of a plain response's body, bytes.
pub(crate) const BODY: usize = 1024;

/// Where the application is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Application {
    /// What the proxies forward to.
    pub(crate) http1: SocketAddr,
    /// The same over HTTP/2, for a client without a proxy.
    pub(crate) http2: SocketAddr,
}

/// Where token streams come from, as from a model server.
pub(crate) const CHAT: &str = "/v1/chat/completions";

/// Serves on loopback addresses of its own until the program ends: `GET /1k`, and [`CHAT`] whatever it is asked; anything else is 404.
///
/// `epoch` is what the time stamps in events count from, see [`event`].
pub(crate) async fn start(tokens_per_second: f64, epoch: Instant) -> std::io::Result<Application> {
    let http1 = TcpListener::bind((outrigger_tests::loopback(), 28000)).await?;
    let http2 = TcpListener::bind((outrigger_tests::loopback(), 28000)).await?;
    let application = Application {
        http1: http1.local_addr()?,
        http2: http2.local_addr()?,
    };
    let interval = Duration::from_secs_f64(1.0 / tokens_per_second);
    // Connections end when their peers leave; the error that this is has no other reader.
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = http1.accept().await {
            let _ = stream.set_nodelay(true);
            tokio::task::spawn_local(async move { serve(stream, interval, epoch).await });
        }
    });
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = http2.accept().await {
            let _ = stream.set_nodelay(true);
            tokio::task::spawn_local(async move { serve_http2(stream, interval, epoch).await });
        }
    });
    Ok(application)
}

async fn serve_http2(
    stream: TcpStream,
    interval: Duration,
    epoch: Instant,
) -> Result<(), h2::Error> {
    static PLAIN: [u8; BODY] = [b'x'; BODY];
    let mut connection = h2::server::handshake(stream).await?;
    while let Some(request) = connection.accept().await {
        let (request, mut respond) = request?;
        let mut response = http::Response::new(());
        if request.uri().path() == "/1k" {
            let mut body = respond.send_response(response, false)?;
            body.send_data(Bytes::from_static(&PLAIN), true)?;
            continue;
        }
        let kind = http::HeaderValue::from_static("text/event-stream");
        response
            .headers_mut()
            .insert(http::header::CONTENT_TYPE, kind);
        let mut body = respond.send_response(response, false)?;
        tokio::task::spawn_local(async move {
            let mut ticks = ticks(interval);
            ticks.tick().await;
            while body.send_data(event(epoch.elapsed()).into(), false).is_ok() {
                ticks.tick().await;
            }
        });
    }
    Ok(())
}

async fn serve(mut stream: TcpStream, interval: Duration, epoch: Instant) -> std::io::Result<()> {
    let plain = plain_response();
    let mut buffer = Vec::with_capacity(8192);
    loop {
        let end = loop {
            if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        if buffer.starts_with(b"GET /1k ") {
            stream.write_all(&plain).await?;
        } else if buffer.starts_with(b"POST /v1/chat/completions ") {
            return events(stream, interval, epoch).await;
        } else {
            stream
                .write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
                .await?;
        }
        buffer.drain(..end);
    }
}

fn plain_response() -> Vec<u8> {
    let mut response = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {BODY}\r\n\r\n"
    );
    response.push_str(&"x".repeat(BODY));
    response.into_bytes()
}

/// One token each `interval`, starting at a random moment of it, until the peer leaves.
async fn events(mut stream: TcpStream, interval: Duration, epoch: Instant) -> std::io::Result<()> {
    stream
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        .await?;
    let mut ticks = ticks(interval);
    loop {
        ticks.tick().await;
        let event = event(epoch.elapsed());
        stream
            .write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes())
            .await?;
    }
}

/// Starts at a random moment of the interval, so that streams do not beat in time.
fn ticks(interval: Duration) -> tokio::time::Interval {
    let start = tokio::time::Instant::now() + interval.mul_f64(rand::random::<f64>());
    tokio::time::interval_at(start, interval)
}

/// A chunk of a chat completion, about as long as a real server's. `created` carries when it was written, in nanoseconds
/// since the epoch that the client knows as well.
fn event(at: Duration) -> String {
    format!(
        "data: {{\"id\":\"chatcmpl-8f2f1c0a7d3b4e6f\",\"object\":\"chat.completion.chunk\",\"created\":{},\
         \"model\":\"tiny\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\" token\"}},\"logprobs\":null,\
         \"finish_reason\":null}}]}}\n\n",
        at.as_nanos()
    )
}

/// When an event was written, from its text.
pub(crate) fn written_at(event: &str) -> Option<Duration> {
    let (_, rest) = event.split_once("\"created\":")?;
    rest.split_once(',')?
        .0
        .parse()
        .ok()
        .map(Duration::from_nanos)
}
