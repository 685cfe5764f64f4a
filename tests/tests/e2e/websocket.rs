//! WebSocket, and upgrades that do not come about.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use outrigger_tests::client::raw;
use outrigger_tests::upstream::{scripted, websocket_echo};
use outrigger_tests::{ControlPlane, Sidecar, eventually, within};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::mesh::service;

async fn start(app: std::net::SocketAddr) -> (ControlPlane, Sidecar, Sidecar) {
    let control_plane = ControlPlane::start().await;
    control_plane.apply(&service("chat", ""));
    let server = Sidecar::serving(&control_plane, "chat:80", app).await;
    let caller = Sidecar::caller(&control_plane).await;
    eventually(
        "the endpoint is there",
        Duration::from_secs(10),
        async || {
            let answer = caller.get("chat", "/").await;
            if answer.reason() == "no-endpoints" {
                Err(answer.text())
            } else {
                Ok(())
            }
        },
    )
    .await;
    (control_plane, server, caller)
}

#[tokio::test]
async fn messages_pass_both_ways() {
    let app = websocket_echo().await;
    let (_control_plane, _server, caller) = start(app.address()).await;
    let stream = TcpStream::connect(caller.outbound()).await.unwrap();
    let opened = tokio_tungstenite::client_async("ws://chat/socket", stream);
    let (mut socket, response) = within("the upgrade", Duration::from_secs(5), opened)
        .await
        .unwrap();
    assert_eq!(response.status(), 101);
    let large = vec![7; 1 << 20];
    for message in [
        Message::text("hello"),
        Message::binary(large),
        Message::text("ünïcode"),
    ] {
        socket.send(message.clone()).await.unwrap();
        let echo = within("an echo", Duration::from_secs(5), socket.next())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(echo, message);
    }
    // Longer than any clock of a request that could wrongly run.
    tokio::time::sleep(Duration::from_secs(2)).await;
    socket.send(Message::text("still there")).await.unwrap();
    assert_eq!(
        socket.next().await.unwrap().unwrap(),
        Message::text("still there")
    );
    socket.close(None).await.unwrap();
    let end = within(
        "the close is answered",
        Duration::from_secs(5),
        socket.next(),
    )
    .await;
    assert!(matches!(end, Some(Ok(Message::Close(_))) | None), "{end:?}");
    drop(socket);
    eventually(
        "no request is in flight any more",
        Duration::from_secs(5),
        async || {
            let metrics = caller.metrics().await;
            match metrics.sum("outrigger_requests_in_flight", &[("direction", "outbound")]) {
                0.0 => Ok(()),
                count => Err(count.to_string()),
            }
        },
    )
    .await;
}

#[tokio::test]
async fn an_application_may_refuse_to_upgrade() {
    let app = scripted(
        b"HTTP/1.1 426 Upgrade Required\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno",
    )
    .await;
    let (_control_plane, _server, caller) = start(app.address()).await;
    let request = "GET /socket HTTP/1.1\r\nhost: chat\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let answer = raw(
        caller.outbound(),
        request.as_bytes(),
        Duration::from_secs(2),
    )
    .await;
    assert!(
        answer.starts_with("HTTP/1.1 426") && answer.ends_with("no"),
        "{answer:?}"
    );
}
