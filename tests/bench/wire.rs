//! The load's side of HTTP: a lean HTTP/1.1 client, and h2's. Both check what comes back.

use std::net::SocketAddr;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use h2::client::SendRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::upstream::{BODY, CHAT};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    Http1,
    Http2,
}

/// Where the load goes.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) host: String,
}

/// What a chat asks for.
const QUESTION: &str = r#"{"model":"tiny","messages":[{"role":"user","content":"Say something, and go on with it."}],"stream":true}"#;

/// Streams on one HTTP/2 connection.
const STREAMS: usize = 16;

/// One caller: a connection, or one of the streams of a shared one.
pub(crate) enum Caller {
    Http1(Http1),
    Http2(Http2),
}

impl Caller {
    /// Opens connections for so many callers.
    pub(crate) async fn open(
        target: &Target,
        version: Version,
        count: usize,
    ) -> anyhow::Result<Vec<Self>> {
        let mut callers = Vec::with_capacity(count);
        while callers.len() < count {
            match version {
                Version::Http1 => callers.push(Self::Http1(Http1::open(target).await?)),
                Version::Http2 => {
                    let connection = Http2::open(target).await?;
                    let streams = STREAMS.min(count - callers.len());
                    callers.extend((0..streams).map(|_| Self::Http2(connection.clone())));
                }
            }
        }
        Ok(callers)
    }

    /// Asks for the plain response and reads it to its end.
    pub(crate) async fn plain(&mut self) -> anyhow::Result<()> {
        let mut length = 0;
        self.fetch("/1k", None, |bytes| length += bytes.len())
            .await?;
        ensure!(length == BODY, "a body of {length} bytes, not {BODY}");
        Ok(())
    }

    /// Asks for a token stream and hands over its pieces.
    pub(crate) async fn chat(&mut self, piece: impl FnMut(&[u8])) -> anyhow::Result<()> {
        self.fetch(CHAT, Some(QUESTION), piece).await
    }

    /// `POST` of JSON where there is a body, else `GET`.
    async fn fetch(
        &mut self,
        path: &str,
        body: Option<&'static str>,
        piece: impl FnMut(&[u8]),
    ) -> anyhow::Result<()> {
        match self {
            Self::Http1(connection) => connection.fetch(path, body, piece).await,
            Self::Http2(connection) => connection.fetch(path, body, piece).await,
        }
    }
}

pub(crate) struct Http1 {
    stream: TcpStream,
    host: String,
    buffer: Vec<u8>,
}

impl Http1 {
    async fn open(target: &Target) -> anyhow::Result<Self> {
        let stream = connect(target.address).await?;
        Ok(Self {
            stream,
            host: target.host.clone(),
            buffer: Vec::with_capacity(16 * 1024),
        })
    }

    async fn fetch(
        &mut self,
        path: &str,
        body: Option<&'static str>,
        mut piece: impl FnMut(&[u8]),
    ) -> anyhow::Result<()> {
        let (method, host) = (method(body), &self.host);
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: bench\r\naccept: */*\r\n"
        );
        match body {
            Some(body) => request.push_str(&format!(
                "content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            )),
            None => request.push_str("\r\n"),
        }
        self.stream.write_all(request.as_bytes()).await?;
        self.buffer.clear();
        let head = loop {
            self.read().await?;
            if let Some(end) = self
                .buffer
                .windows(4)
                .position(|window| window == b"\r\n\r\n")
            {
                break end + 4;
            }
        };
        let text = std::str::from_utf8(&self.buffer[..head])?.to_ascii_lowercase();
        ensure!(
            text.starts_with("http/1.1 200 "),
            "{}",
            String::from_utf8_lossy(&self.buffer)
        );
        let length = text
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        match length {
            Some(length) => {
                let end = head + length.parse::<usize>()?;
                while self.buffer.len() < end {
                    self.read().await?;
                }
                piece(&self.buffer[head..end]);
            }
            None => {
                ensure!(
                    text.contains("transfer-encoding: chunked"),
                    "neither a length nor chunks: {text}"
                );
                let mut chunked = Chunked::default();
                self.buffer.drain(..head);
                while !chunked.decode(&self.buffer, &mut piece)? {
                    self.buffer.clear();
                    self.read().await?;
                }
            }
        }
        Ok(())
    }

    async fn read(&mut self) -> anyhow::Result<()> {
        ensure!(
            self.stream.read_buf(&mut self.buffer).await? > 0,
            "the connection was closed"
        );
        Ok(())
    }
}

#[derive(Clone)]
pub(crate) struct Http2 {
    sender: SendRequest<Bytes>,
    host: String,
}

impl Http2 {
    async fn open(target: &Target) -> anyhow::Result<Self> {
        let stream = connect(target.address).await?;
        let mut builder = h2::client::Builder::new();
        builder
            .initial_window_size(1 << 20)
            .initial_connection_window_size(4 << 20);
        let (sender, connection) = builder.handshake(stream).await?;
        tokio::task::spawn_local(async move {
            // Its streams see the error.
            let _ = connection.await;
        });
        Ok(Self {
            sender,
            host: target.host.clone(),
        })
    }

    async fn fetch(
        &mut self,
        path: &str,
        body: Option<&'static str>,
        mut piece: impl FnMut(&[u8]),
    ) -> anyhow::Result<()> {
        let mut request = http::Request::builder()
            .method(method(body))
            .uri(format!("http://{}{path}", self.host))
            .header("user-agent", "bench");
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        self.sender = self.sender.clone().ready().await?;
        let (response, mut sent) = self
            .sender
            .send_request(request.body(())?, body.is_none())?;
        if let Some(body) = body {
            sent.send_data(Bytes::from_static(body.as_bytes()), true)?;
        }
        let response = response.await?;
        let status = response.status();
        let mut body = response.into_body();
        while let Some(data) = body.data().await {
            let data = data?;
            body.flow_control().release_capacity(data.len())?;
            if status == 200 {
                piece(&data);
            } else {
                bail!("{status} {}", String::from_utf8_lossy(&data));
            }
        }
        ensure!(status == 200, "{status}");
        Ok(())
    }
}

fn method(body: Option<&str>) -> http::Method {
    body.map_or(http::Method::GET, |_| http::Method::POST)
}

async fn connect(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(address)
        .await
        .with_context(|| format!("connect to {address}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Decodes chunked transfer coding as it arrives.
#[derive(Debug, Default)]
struct Chunked {
    state: ChunkState,
    size: usize,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum ChunkState {
    /// In the line that says the size.
    #[default]
    Size,
    /// In the data, `size` bytes before its end.
    Data,
    /// In the line end after the data.
    End,
    /// After the last chunk; the trailer section is to be empty.
    Last,
}

impl Chunked {
    /// Hands over what is data in `bytes`. Returns whether the body is at its end.
    fn decode(&mut self, mut bytes: &[u8], mut piece: impl FnMut(&[u8])) -> anyhow::Result<bool> {
        while let Some(&byte) = bytes.first() {
            match self.state {
                ChunkState::Data => {
                    let length = self.size.min(bytes.len());
                    piece(&bytes[..length]);
                    bytes = &bytes[length..];
                    self.size -= length;
                    if self.size == 0 {
                        self.state = ChunkState::End;
                    }
                    continue;
                }
                ChunkState::Size if byte == b'\n' => {
                    self.state = if self.size == 0 {
                        ChunkState::Last
                    } else {
                        ChunkState::Data
                    };
                }
                ChunkState::Size if byte == b'\r' => {}
                ChunkState::Size => {
                    let digit = char::from(byte)
                        .to_digit(16)
                        .context("not a chunk's size")?;
                    self.size = self.size * 16 + digit as usize;
                }
                ChunkState::End if byte == b'\n' => self.state = ChunkState::Size,
                ChunkState::Last if byte == b'\n' => return Ok(true),
                ChunkState::End | ChunkState::Last => {}
            }
            bytes = &bytes[1..];
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::Chunked;

    #[test]
    fn decodes_chunks_split_anywhere() {
        let wire = b"5\r\nhello\r\n1\r\n \r\n10\r\n0123456789abcdef\r\n0\r\n\r\n";
        for step in 1..wire.len() {
            let (mut chunked, mut text, mut ended) = (Chunked::default(), Vec::new(), false);
            for bytes in wire.chunks(step) {
                assert!(!ended);
                ended = chunked
                    .decode(bytes, |piece| text.extend_from_slice(piece))
                    .unwrap();
            }
            assert!(ended, "in steps of {step}");
            assert_eq!(text, b"hello 0123456789abcdef");
        }
    }
}
