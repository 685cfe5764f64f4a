use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::mesh::{Calls, Pair, endpoint, nobody, plain, sockets};
use crate::policy::Protocol;

fn calls() -> Calls {
    Calls {
        protocol: Protocol::Tcp,
        ..Calls::default()
    }
}

/// Speaks first, hears all, and answers after the other side has closed.
async fn database() -> std::net::SocketAddr {
    sockets(|mut stream| async move {
        stream.write_all(b"ready\n").await.unwrap();
        let mut all = Vec::new();
        if stream.read_to_end(&mut all).await.is_ok() {
            let _ = stream
                .write_all(format!("{} bytes", all.len()).as_bytes())
                .await;
        }
    })
    .await
}

#[tokio::test]
async fn bytes_both_ways_with_half_closes() {
    let app = database().await;
    let pair = Pair::new(calls(), app);
    let one_hop = plain(calls(), &[app]);
    for sidecar in [&pair.caller, &one_hop] {
        let mut stream = TcpStream::connect(sidecar.bound.tcp[0]).await.unwrap();
        let mut greeting = [0; 6];
        stream.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"ready\n");
        stream.write_all(&vec![1; 1_000_000]).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "1000000 bytes");
        let line = &sidecar.log_lines(1).await[0];
        assert_eq!(line["protocol"], "tcp");
        assert_eq!(line["bytes_in"], 1_000_000);
        assert_eq!(line["bytes_out"], 19);
        assert!(line.get("reason").is_none(), "{line}");
    }
    let line = &pair.server.log_lines(1).await[0];
    assert_eq!(line["service"], "default/chat");
    assert_eq!(line["peer"], super::mesh::CALLER);
}

/// Whether a connection is reset before anything is said. The reset may come as early as the connect.
async fn is_refused(address: std::net::SocketAddr) -> bool {
    match TcpStream::connect(address).await {
        Ok(mut stream) => stream.read(&mut [0; 1]).await.is_err(),
        Err(_) => true,
    }
}

#[tokio::test]
async fn another_endpoint_is_tried() {
    let caller = plain(calls(), &[nobody().await, database().await]);
    for _ in 0..2 {
        let mut stream = TcpStream::connect(caller.bound.tcp[0]).await.unwrap();
        let mut greeting = [0; 6];
        stream.read_exact(&mut greeting).await.unwrap();
    }
    let pair = Pair::new(calls(), nobody().await);
    // The application's refusal must not look like an empty answer.
    assert!(is_refused(pair.caller.bound.tcp[0]).await);
    let metrics = &pair.caller.shared.metrics;
    let endpoints = vec![endpoint(nobody().await, true)];
    pair.caller.set(calls().snapshot(metrics, endpoints));
    assert!(is_refused(pair.caller.bound.tcp[0]).await);
    let line = &pair.caller.log_lines(2).await[1];
    assert_eq!(line["reason"], "connect-failed");
}

#[tokio::test]
async fn silence_ends_a_connection() {
    let mut calls = calls();
    calls.tcp.idle = Some(Duration::from_millis(200));
    let caller = plain(calls, &[database().await]);
    let mut stream = TcpStream::connect(caller.bound.tcp[0]).await.unwrap();
    let mut all = Vec::new();
    let read = stream.read_to_end(&mut all);
    let _ = tokio::time::timeout(Duration::from_secs(5), read)
        .await
        .unwrap();
    let line = &caller.log_lines(1).await[0];
    assert_eq!(line["reason"], "stream-idle-timeout");
}
