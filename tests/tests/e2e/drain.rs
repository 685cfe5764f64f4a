//! SIGTERM: what is under way ends well, and nothing new comes.

use std::time::{Duration, Instant};

use outrigger_tests::client;
use outrigger_tests::eventually;
use outrigger_tests::upstream::Http;

use crate::mesh::Mesh;

/// Starts a stream of 3 s and returns when its first token is there.
async fn stream(mesh: &Mesh) -> tokio::task::JoinHandle<client::Answer> {
    let before = mesh.app.requests();
    let to = mesh.caller.outbound();
    let stream = tokio::spawn(async move { client::get(to, "chat", "/sse?n=30&ms=100").await });
    eventually(
        "the stream is under way",
        Duration::from_secs(5),
        async || {
            if mesh.app.requests() > before {
                Ok(())
            } else {
                Err("not yet".to_string())
            }
        },
    )
    .await;
    stream
}

#[tokio::test]
async fn the_sidecar_of_the_model_ends_with_its_last_stream() {
    let mut mesh = Mesh::start("").await;
    let other = Http::start("other").await;
    let stream = stream(&mesh).await;
    let _second =
        outrigger_tests::Sidecar::serving(&mesh.control_plane, "chat:80", other.address()).await;
    let start = Instant::now();
    mesh.server.sigterm();
    eventually("callers know", Duration::from_secs(2), async || {
        let answer = mesh.caller.get("chat", "/").await;
        if answer.instance() == "other" {
            Ok(())
        } else {
            Err(format!("{} {}", answer.status, answer.instance()))
        }
    })
    .await;
    for _ in 0..20 {
        assert_eq!(mesh.caller.get("chat", "/").await.instance(), "other");
    }
    let address = mesh.server.metrics_address();
    let ready = client::get(address, &address.to_string(), "/ready").await;
    assert_eq!(ready.status, 503, "a draining sidecar is not ready");

    let answer = stream.await.unwrap();
    assert!(
        answer.text().ends_with("data: [DONE]\n\n"),
        "the drain cut a stream"
    );
    let status = mesh.server.process().exited(Duration::from_secs(10)).await;
    assert_eq!(status.code(), Some(0));
    // It ends when there is nothing left to do, not when its 30 s are over.
    assert!(
        start.elapsed() < Duration::from_secs(12),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn the_sidecar_of_the_caller_lets_streams_end() {
    let mut mesh = Mesh::start("").await;
    let stream = stream(&mesh).await;
    mesh.caller.sigterm();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(
        mesh.caller.process().status().is_none(),
        "it did not wait for the stream"
    );
    assert!(
        stream.await.unwrap().text().ends_with("data: [DONE]\n\n"),
        "the drain cut a stream"
    );
    assert_eq!(
        mesh.caller
            .process()
            .exited(Duration::from_secs(10))
            .await
            .code(),
        Some(0)
    );
}

#[tokio::test]
async fn a_stream_that_does_not_end_is_cut_at_the_deadline() {
    let control_plane = outrigger_tests::ControlPlane::start().await;
    control_plane.apply(&crate::mesh::service("chat", ""));
    let app = Http::start("chat").await;
    let mut server = outrigger_tests::Sidecar::builder(&control_plane, "chat")
        .serve("chat:80", app.address())
        .flag("--drain-timeout=1s")
        .start()
        .await;
    let caller = outrigger_tests::Sidecar::caller(&control_plane).await;
    caller.reaches("chat").await;
    let to = caller.outbound();
    let stream = tokio::spawn(async move {
        let head = http::Request::builder()
            .uri("/stall?n=1")
            .header("host", "chat");
        client::try_request(to, head, client::empty()).await
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let start = Instant::now();
    server.sigterm();
    assert_eq!(
        server
            .process()
            .exited(Duration::from_secs(10))
            .await
            .code(),
        Some(0)
    );
    let took = start.elapsed();
    assert!(
        (Duration::from_millis(800)..Duration::from_secs(5)).contains(&took),
        "{took:?}"
    );
    assert!(
        stream.await.unwrap().is_err(),
        "a stream that was cut looks like one that ended"
    );
}

#[tokio::test]
async fn the_control_plane_ends_cleanly() {
    let mut mesh = Mesh::start("").await;
    mesh.control_plane.process().signal("TERM");
    let status = mesh
        .control_plane
        .process()
        .exited(Duration::from_secs(10))
        .await;
    assert_eq!(status.code(), Some(0));
    assert_eq!(mesh.caller.get("chat", "/").await.status, 200);
}
