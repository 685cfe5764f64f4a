#![allow(clippy::unwrap_used)]
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Detected, PREFACE, detect, looks_like};
use crate::listener::Stream;

#[test]
fn first_bytes() {
    assert_eq!(looks_like(b"GET / HTTP/1.1\r\n"), Some(Detected::Http1));
    // Shares two bytes with the preface.
    assert_eq!(looks_like(b"PROPFIND / "), Some(Detected::Http1));
    assert_eq!(looks_like(b"PRI"), None);
    assert_eq!(
        looks_like(b"PRI * HTTP/2.0\r\n\r\nXX"),
        Some(Detected::Http1)
    );
    assert_eq!(looks_like(PREFACE), Some(Detected::Http2));
    let mut more = PREFACE.to_vec();
    more.extend_from_slice(&[0; 9]);
    assert_eq!(looks_like(&more), Some(Detected::Http2));
}

async fn pair() -> (TcpStream, Stream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (server, _) = listener.accept().await.unwrap();
    (client, Stream::from(server))
}

#[tokio::test]
async fn bytes_read_come_again() {
    let (mut client, mut server) = pair().await;
    let (first, second) = PREFACE.split_at(5);
    client.write_all(first).await.unwrap();
    let rest = tokio::spawn(async move {
        tokio::task::yield_now().await;
        client.write_all(second).await.unwrap();
        client.write_all(b"more").await.unwrap();
    });
    assert_eq!(detect(&mut server).await, Detected::Http2);
    rest.await.unwrap();
    let mut all = Vec::new();
    server.read_to_end(&mut all).await.unwrap();
    assert_eq!(all, [PREFACE.as_slice(), b"more"].concat());
}

#[tokio::test]
async fn a_closed_connection_is_silent() {
    let (client, mut server) = pair().await;
    drop(client);
    assert_eq!(detect(&mut server).await, Detected::Silent);
}

#[tokio::test(start_paused = true)]
async fn half_a_preface_stalls() {
    let (mut client, mut server) = pair().await;
    client.write_all(b"PRI * ").await.unwrap();
    assert_eq!(detect(&mut server).await, Detected::Stalled);
}
