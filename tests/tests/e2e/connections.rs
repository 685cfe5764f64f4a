//! Pools, with the example that the page shows: limits, peers that fall silent, connections that are there before they are
//! needed.

use std::time::{Duration, Instant};

use outrigger_tests::upstream::Http;
use outrigger_tests::{ControlPlane, Sidecar, client, eventually};

use crate::protocols::example;

/// A mesh with the example's service.
async fn start() -> (ControlPlane, Http, Sidecar, Sidecar) {
    let control_plane = ControlPlane::start().await;
    control_plane.apply(&example("connections.yaml"));
    let app = Http::start("chat").await;
    let server = Sidecar::serving(&control_plane, "chat:80", app.address()).await;
    let caller = Sidecar::caller(&control_plane).await;
    caller.reaches("chat").await;
    (control_plane, app, server, caller)
}

#[tokio::test]
async fn limits_hold_and_what_is_above_them_waits() {
    let (control_plane, _app, _server, caller) = start().await;
    let to = caller.outbound();
    let streams: Vec<_> = (0..8)
        .map(|_| tokio::spawn(async move { client::get(to, "chat", "/sse?n=20&ms=100").await }))
        .collect();
    // Three streams on each of two connections.
    let waiting = [("direction", "outbound")];
    eventually("two wait", Duration::from_secs(20), async || {
        match caller
            .metrics()
            .await
            .sum("outrigger_pool_waiting", &waiting)
        {
            2.0 => Ok(()),
            count => Err(format!("{count} wait")),
        }
    })
    .await;
    for stream in streams {
        let answer = stream.await.unwrap();
        assert_eq!(answer.status, 200);
        assert!(answer.text().ends_with("data: [DONE]\n\n"));
    }
    let metrics = caller.metrics().await;
    let opened = [
        ("direction", "outbound"),
        ("side", "upstream"),
        ("protocol", "h2"),
    ];
    let opened = metrics.sum("outrigger_connections_total", &opened);
    assert!((1.0..=2.0).contains(&opened), "{opened} connections");
    let described = control_plane.ctl(&["describe", "service", "chat"]);
    assert!(
        described.contains("up to 2 with 3 streams each"),
        "{described}"
    );
}

/// SIGSTOP: the peer's kernel acknowledges everything, its process does nothing. What a partition looks like from here.
#[tokio::test]
async fn a_peer_that_falls_silent_is_noticed() {
    let (_control_plane, app, server, caller) = start().await;
    let to = caller.outbound();
    let before = app.requests();
    let stalled = tokio::spawn(async move {
        let head = http::Request::builder()
            .uri("/stall?n=1")
            .header("host", "chat");
        let begun = Instant::now();
        let answer = client::try_request(to, head, client::empty()).await;
        (answer, begun.elapsed())
    });
    eventually(
        "the request is there",
        Duration::from_secs(10),
        async || match app.requests() > before {
            true => Ok(()),
            false => Err("not yet".to_string()),
        },
    )
    .await;
    server.stop();
    let ended = tokio::time::timeout(Duration::from_secs(30), stalled).await;
    server.go_on();
    let (answer, took) = ended.expect("nobody noticed").unwrap();
    // Broken off, and not ended as if it were whole.
    assert!(answer.is_err(), "{answer:?}");
    assert!(took >= Duration::from_secs(1), "{took:?}");
    eventually("it is counted", Duration::from_secs(10), async || {
        let labels = [("direction", "outbound"), ("cause", "keep-alive")];
        match caller
            .metrics()
            .await
            .sum("outrigger_pool_closed_total", &labels)
        {
            0.0 => Err("not counted".to_string()),
            _ => Ok(()),
        }
    })
    .await;
    caller.reaches("chat").await;
}

#[tokio::test]
async fn a_new_replica_has_a_connection_before_its_first_request() {
    let (control_plane, _app, _server, caller) = start().await;
    let second_app = Http::start("second").await;
    let second = Sidecar::serving(&control_plane, "chat:80", second_app.address()).await;
    // Nobody asks for anything meanwhile.
    eventually(
        "a connection is open",
        Duration::from_secs(30),
        async || {
            let labels = [("direction", "inbound"), ("side", "downstream")];
            match second
                .metrics()
                .await
                .sum("outrigger_connections_open", &labels)
            {
                0.0 => Err("none".to_string()),
                _ => Ok(()),
            }
        },
    )
    .await;
    assert_eq!(second_app.requests(), 0);
    drop(caller);
}
