//! Applications to put behind sidecars. They run inside the test's process and end with the value that owns them, with
//! all their connections.

mod behaviour;
mod http;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

pub use self::http::Http;
use crate::loopback;

/// Something that accepts connections until it is dropped.
#[derive(Debug)]
pub struct Listener {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Listener {
    /// Calls `handler` for each connection.
    pub async fn start<F, Fut>(handler: F) -> Self
    where
        F: Fn(TcpStream) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Self::start_at(SocketAddr::new(loopback().into(), 28000), handler).await
    }

    /// As [`Self::start`], at a given address: for something that comes back.
    pub async fn start_at<F, Fut>(address: SocketAddr, handler: F) -> Self
    where
        F: Fn(TcpStream) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(address)
            .await
            .unwrap_or_else(|error| panic!("{address}: {error}"));
        let accepted = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&accepted);
        let task = tokio::spawn(async move {
            // The connections are in the set: they end when this task does.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::Relaxed);
                // Without it an upstream that writes in small pieces would wait for acknowledgements.
                let _ = stream.set_nodelay(true);
                connections.spawn(handler(stream));
                while connections.try_join_next().is_some() {}
            }
        });
        Self {
            address,
            accepted,
            task,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections it accepted.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Sends back what it receives and half-closes when its peer did.
pub async fn tcp_echo() -> Listener {
    Listener::start(|mut stream| async move {
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
        let _ = write.shutdown().await;
    })
    .await
}

/// Says `greeting` first, as databases and mail servers do, and then echoes.
pub async fn tcp_greeter(greeting: &'static str) -> Listener {
    Listener::start(move |mut stream| async move {
        if stream.write_all(greeting.as_bytes()).await.is_ok() {
            let (mut read, mut write) = stream.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
        }
    })
    .await
}

/// Sends back each WebSocket message.
pub async fn websocket_echo() -> Listener {
    Listener::start(|stream| async move {
        let Ok(socket) = tokio_tungstenite::accept_async(stream).await else {
            return;
        };
        let (mut sink, mut messages) = socket.split();
        while let Some(Ok(message)) = messages.next().await {
            if (message.is_text() || message.is_binary()) && sink.send(message).await.is_err() {
                return;
            }
        }
    })
    .await
}

/// Reads one HTTP/1.1 head, answers with these bytes as they are, and closes.
pub async fn scripted(answer: &'static [u8]) -> Listener {
    Listener::start(move |mut stream| async move {
        if read_head(&mut stream).await.is_some() {
            let _ = stream.write_all(answer).await;
            let _ = stream.shutdown().await;
        }
    })
    .await
}

/// Reads up to the empty line; `None` where the connection ends before.
pub async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}
