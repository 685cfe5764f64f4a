//! An HTTP/1.1 client that hides nothing.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncBufReadExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

pub(super) struct Http1 {
    pub(super) stream: BufReader<TcpStream>,
}

#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: u16,
    headers: Vec<(String, String)>,
}

#[derive(Debug)]
pub(super) struct Whole {
    pub(super) head: Head,
    pub(super) body: String,
    pub(super) trailers: Vec<(String, String)>,
}

impl Head {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(each, _)| each == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(super) fn reason(&self) -> &str {
        self.get("x-outrigger-reason").unwrap_or_default()
    }
}

impl Http1 {
    pub(super) async fn connect(address: SocketAddr) -> Http1 {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Http1 {
            stream: BufReader::new(stream),
        }
    }

    pub(super) async fn write(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// A line without its end; `None` at the end of the connection.
    pub(super) async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let patience = Duration::from_secs(10);
        let read = tokio::time::timeout(patience, self.stream.read_line(&mut line));
        let count = read.await.expect("no line in 10 s").unwrap_or(0);
        if count == 0 {
            return None;
        }
        Some(line.trim_end_matches(['\r', '\n']).to_owned())
    }

    pub(super) async fn head(&mut self) -> Head {
        self.try_head().await.expect("the connection was closed")
    }

    pub(super) async fn try_head(&mut self) -> Option<Head> {
        let status = self.line().await?;
        let status = status.split(' ').nth(1).unwrap().parse().unwrap();
        let headers = self.headers().await;
        Some(Head { status, headers })
    }

    async fn headers(&mut self) -> Vec<(String, String)> {
        let mut headers = Vec::new();
        loop {
            let line = self.line().await.expect("closed in a head");
            if line.is_empty() {
                return headers;
            }
            let (name, value) = line.split_once(':').unwrap();
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// A chunk of a chunked body; `None` for the last one. Panics where the connection ends before.
    pub(super) async fn chunk(&mut self) -> Option<Vec<u8>> {
        self.try_chunk().await.expect("closed in a body")
    }

    /// The outer `None`: the connection has ended.
    pub(super) async fn try_chunk(&mut self) -> Option<Option<Vec<u8>>> {
        let size = self.line().await?;
        let size = usize::from_str_radix(&size, 16).unwrap();
        if size == 0 {
            return Some(None);
        }
        let mut chunk = vec![0; size + 2];
        self.stream.read_exact(&mut chunk).await.ok()?;
        chunk.truncate(size);
        Some(Some(chunk))
    }

    /// The rest of a response.
    pub(super) async fn rest(&mut self, head: Head) -> Whole {
        let mut body = Vec::new();
        let mut trailers = Vec::new();
        if let Some(length) = head.get("content-length") {
            body.resize(length.parse().unwrap(), 0);
            self.stream.read_exact(&mut body).await.unwrap();
        } else if head.get("transfer-encoding") == Some("chunked") {
            while let Some(chunk) = self.chunk().await {
                body.extend(chunk);
            }
            trailers = self.headers().await;
        }
        Whole {
            head,
            body: String::from_utf8(body).unwrap(),
            trailers,
        }
    }

    pub(super) async fn request(&mut self, text: &str) -> Whole {
        self.write(text).await;
        let head = self.head().await;
        self.rest(head).await
    }

    /// Whether the connection is closed, without anything before.
    pub(super) async fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        let read = tokio::time::timeout(Duration::from_secs(5), self.stream.read(&mut byte));
        matches!(read.await, Ok(Ok(0) | Err(_)))
    }
}

/// One request on a connection of its own.
pub(super) async fn once(address: SocketAddr, text: &str) -> Whole {
    Http1::connect(address).await.request(text).await
}

pub(super) async fn get(address: SocketAddr, path: &str) -> Whole {
    once(
        address,
        &format!("GET {path} HTTP/1.1\r\nhost: chat\r\n\r\n"),
    )
    .await
}

pub(super) async fn post(address: SocketAddr, path: &str, body: &str) -> Whole {
    let length = body.len();
    let text =
        format!("POST {path} HTTP/1.1\r\nhost: chat\r\ncontent-length: {length}\r\n\r\n{body}");
    once(address, &text).await
}
