use std::time::Duration;

use outrigger_tests::within;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Before;
use crate::mesh::Mesh;

/// As many as a test may have with the usual limit of 1,024 open files, twice: here and in the sidecar.
const CONNECTIONS: usize = 400;

/// Heads that come byte by byte: every one is given up, and nobody else waits.
#[tokio::test]
async fn slow_loris() {
    let mut mesh = Mesh::start("").await;
    let before = Before::of(&mut mesh.caller);
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(mesh.caller.outbound()).await.unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: chat\r\n")
            .await
            .unwrap();
        connections.push(stream);
    }
    let dripping = async {
        let mut round = 0_u64;
        // The sidecar's clock for a head is 10 s, whatever drips in meanwhile.
        while !connections.is_empty() {
            tokio::time::sleep(Duration::from_millis(500)).await;
            round += 1;
            let mut open = Vec::new();
            for mut stream in connections.drain(..) {
                let line = format!("x-{round}: x\r\n");
                let mut answer = [0; 64];
                let sent = stream.write_all(line.as_bytes()).await.is_ok();
                match stream.try_read(&mut answer) {
                    Ok(read) => {
                        let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
                        assert!(
                            answer.is_empty() || answer.starts_with("HTTP/1.1 408"),
                            "{answer:?}"
                        );
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock && sent => {
                        open.push(stream);
                    }
                    Err(_) => {}
                }
            }
            connections = open;
        }
    };
    let served = async {
        for _ in 0..50 {
            assert_eq!(mesh.caller.get("chat", "/").await.status, 200);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let both = async { tokio::join!(dripping, served) };
    within("slow heads are given up", Duration::from_secs(60), both).await;
    before.assert_bounded(&mut mesh.caller, Duration::from_secs(20));
}

/// Connections to a server's sidecar that never finish, or never begin, a TLS handshake: peers get in all the same.
#[tokio::test]
async fn handshakes_that_stall() {
    let mut mesh = Mesh::start("").await;
    let before = Before::of(&mut mesh.server);
    let mut connections = Vec::new();
    for index in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(mesh.server.inbound()).await.unwrap();
        if index % 2 == 0 {
            // A ClientHello's beginning: type, version, length 512, and no more.
            stream
                .write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc])
                .await
                .unwrap();
        }
        connections.push(stream);
    }
    let caller = outrigger_tests::Sidecar::caller(&mesh.control_plane).await;
    within("a new peer gets in", Duration::from_secs(20), async {
        for _ in 0..20 {
            assert_eq!(caller.get("chat", "/").await.status, 200);
        }
    })
    .await;
    before.assert_bounded(&mut mesh.server, Duration::from_secs(20));
    drop(connections);
}

/// Clients that ask for much and read nothing: the sidecars hold windows and socket buffers, not answers.
#[tokio::test]
async fn slow_read() {
    let mut mesh = Mesh::start("").await;
    let (caller, server) = (Before::of(&mut mesh.caller), Before::of(&mut mesh.server));
    let mut connections = Vec::new();
    for _ in 0..40 {
        let mut stream = TcpStream::connect(mesh.caller.outbound()).await.unwrap();
        stream
            .write_all(b"GET /bytes/1073741824 HTTP/1.1\r\nhost: chat\r\n\r\n")
            .await
            .unwrap();
        connections.push(stream);
    }
    for _ in 0..30 {
        assert_eq!(mesh.caller.get("chat", "/").await.status, 200);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // One of them reads after all: its answer goes on.
    let mut head = [0; 12];
    let read = connections[0].read_exact(&mut head);
    within("a slow reader is served", Duration::from_secs(10), read)
        .await
        .unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    let bound = Duration::from_secs(20);
    caller.assert_bounded(&mut mesh.caller, bound);
    server.assert_bounded(&mut mesh.server, bound);
}
