//! A client as an application has one: HTTP/1.1, one connection that is kept, and token streams.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// No request of the quickstart takes so long, whatever is killed meanwhile.
const LIMIT: Duration = Duration::from_secs(60);

/// A whole response.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// A header's text; empty where it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A client of one address that asks for one host.
#[derive(Debug)]
pub struct Client {
    address: SocketAddr,
    host: String,
    headers: Vec<(&'static str, &'static str)>,
    responses: Arc<AtomicU64>,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    /// Connects with the first request.
    pub fn new(address: SocketAddr, host: &str) -> Self {
        Self {
            address,
            host: host.to_owned(),
            headers: Vec::new(),
            responses: Arc::default(),
            connection: None,
        }
    }

    /// Adds a header to every request.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Counts every response that this client gets.
    #[must_use]
    pub fn counting(mut self, responses: &Arc<AtomicU64>) -> Self {
        self.responses = Arc::clone(responses);
        self
    }

    pub async fn get(&mut self, path: &str) -> anyhow::Result<Answer> {
        self.whole(Method::GET, path, Bytes::new()).await
    }

    pub async fn post(&mut self, path: &str, body: &Value) -> anyhow::Result<Answer> {
        self.whole(Method::POST, path, body.to_string().into())
            .await
    }

    async fn whole(&mut self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Answer> {
        let exchange = async {
            let (head, body) = self.send(method, path, body).await?.into_parts();
            let body = body
                .collect()
                .await
                .context("the response broke off")?
                .to_bytes();
            anyhow::Ok(Answer {
                status: head.status,
                headers: head.headers,
                body,
            })
        };
        tokio::time::timeout(LIMIT, exchange)
            .await
            .with_context(|| format!("{path} took more than {LIMIT:?}"))?
    }

    /// Asks for a token stream and hands every event's data to `event`, without the closing `[DONE]`. Returns the status
    /// and whether that came.
    pub async fn stream(
        &mut self,
        path: &str,
        body: &Value,
        mut event: impl FnMut(&Value),
    ) -> anyhow::Result<(StatusCode, bool)> {
        let mut response = self
            .send(Method::POST, path, body.to_string().into())
            .await?;
        let mut events = Events::default();
        loop {
            let frame = tokio::time::timeout(LIMIT, response.body_mut().frame()).await;
            let Some(frame) = frame.context("the stream has stalled")? else {
                break;
            };
            let Ok(data) = frame.context("the stream broke off")?.into_data() else {
                continue;
            };
            for data in events.push(&data) {
                if let Ok(value) = serde_json::from_str(&data) {
                    event(&value);
                }
            }
        }
        Ok((response.status(), events.done))
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> anyhow::Result<Response<Incoming>> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.host);
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        for (name, value) in &self.headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body))?;
        let mut kept = self.connection.take();
        if let Some(connection) = &mut kept
            && connection.ready().await.is_err()
        {
            kept = None;
        }
        let connection = match kept {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let response = self
            .connection
            .insert(connection)
            .send_request(request)
            .await;
        let response = response.with_context(|| format!("no response from {}", self.address))?;
        self.responses.fetch_add(1, Ordering::Relaxed);
        Ok(response)
    }

    async fn connect(&self) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        let stream = TcpStream::connect(self.address).await;
        let stream = stream.with_context(|| format!("cannot connect to {}", self.address))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }
}

/// Server-sent events out of a byte stream.
#[derive(Debug, Default)]
struct Events {
    buffer: BytesMut,
    done: bool,
}

impl Events {
    /// The data of the events that are complete now.
    fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        self.buffer.extend_from_slice(bytes);
        let mut complete = Vec::new();
        while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
            let line = self.buffer.split_to(end + 1);
            let line = String::from_utf8_lossy(&line);
            match line.strip_prefix("data:").map(str::trim) {
                Some("[DONE]") => self.done = true,
                Some(data) => complete.push(data.to_owned()),
                // Empty lines, comments and other fields. None of the servers splits its JSON over several lines.
                None => {}
            }
        }
        complete
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_however_the_bytes_are_cut() {
        let text = ": hello\r\n\r\ndata: {\"a\":1}\r\n\r\ndata:{\"b\":\"ä\"}\n\ndata: [DONE]\n\n";
        for size in 1..text.len() {
            let mut events = Events::default();
            let found: Vec<String> = text
                .as_bytes()
                .chunks(size)
                .flat_map(|piece| events.push(piece))
                .collect();
            assert_eq!(found, ["{\"a\":1}", "{\"b\":\"ä\"}"], "in pieces of {size}");
            assert!(events.done);
        }
    }
}
