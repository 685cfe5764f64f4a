#![allow(clippy::unwrap_used)]
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::{Probe, probe};
use crate::config::Readiness;

/// Answers every connection with this text, in pieces.
async fn application(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 1024];
            let length = stream.read(&mut request).await.unwrap();
            assert!(request[..length].starts_with(b"GET /health HTTP/1.1\r\nhost: 127.0.0.1:"));
            for piece in answer.chunks(5) {
                let _ = stream.write_all(piece).await;
                tokio::task::yield_now().await;
            }
        }
    });
    address
}

async fn http(answer: &'static [u8]) -> Probe {
    let readiness = Readiness {
        path: Some("/health".into()),
        interval: Duration::from_millis(10),
    };
    probe(&application(answer).await.into(), &readiness).await
}

#[tokio::test]
async fn a_status_from_200_to_399_is_ready() {
    assert_eq!(
        http(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await,
        Probe::Ready
    );
    assert_eq!(http(b"HTTP/1.0 204 No Content\r\n\r\n").await, Probe::Ready);
    assert_eq!(http(b"HTTP/1.1 302 Found\r\n\r\n").await, Probe::Ready);
    assert_eq!(
        http(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").await,
        Probe::Failed
    );
    assert_eq!(http(b"HTTP/1.1 404 Not Found\r\n\r\n").await, Probe::Failed);
    assert_eq!(http(b"").await, Probe::Failed);
    assert_eq!(http(b"220 smtp\r\n").await, Probe::Failed);
    assert_eq!(http(&[b'x'; 1000]).await, Probe::Failed);
}

#[tokio::test]
async fn nobody_who_listens_is_refused_at_once() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    assert_eq!(
        probe(&address.into(), &Readiness::default()).await,
        Probe::Ready
    );
    drop(listener);
    assert_eq!(
        probe(&address.into(), &Readiness::default()).await,
        Probe::Refused
    );
}

#[tokio::test]
async fn silence_fails() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let readiness = Readiness {
        path: Some("/".into()),
        interval: Duration::from_millis(10),
    };
    let begun = std::time::Instant::now();
    assert_eq!(
        probe(&listener.local_addr().unwrap().into(), &readiness).await,
        Probe::Failed
    );
    assert!(begun.elapsed() >= super::LEAST_PATIENCE);
}
