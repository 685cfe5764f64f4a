//! Each clock, what it is called when it runs out, and what it must not cut.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use outrigger_tests::client::{Connection, empty};
use outrigger_tests::upstream::Http;
use outrigger_tests::{ControlPlane, Sidecar, eventually, loopback};

use http_body_util::BodyExt;

use crate::mesh::{Mesh, plain_endpoints, route, service};

/// A mesh with these timeouts of `/`, and without any for the path `/free`.
async fn with(timeouts: &str) -> Mesh {
    let mesh = Mesh::start("").await;
    mesh.control_plane
        .apply(&route("timed", &format!("[{{timeouts: {timeouts}}}]")));
    eventually(
        "the timeouts are in effect",
        Duration::from_secs(5),
        async || {
            let config = mesh.caller.admin("/config").await.text();
            if config.contains("default/timed") {
                Ok(())
            } else {
                Err(config)
            }
        },
    )
    .await;
    mesh
}

/// `GET` and the time it took.
async fn timed(caller: &Sidecar, path: &str) -> (u16, String, Duration) {
    let start = Instant::now();
    let answer = caller.get("chat", path).await;
    (
        answer.status.as_u16(),
        answer.reason().to_string(),
        start.elapsed(),
    )
}

/// The clock of 400 ms ran out, not another one, and the application was told to stop.
async fn expires(timeouts: &str, reason: &str) {
    let mesh = with(timeouts).await;
    let (status, found, took) = timed(&mesh.caller, "/slow?ms=8000").await;
    assert_eq!((status, found.as_str()), (504, reason));
    assert!(
        (Duration::from_millis(390)..Duration::from_secs(4)).contains(&took),
        "{took:?}"
    );
    eventually(
        "the application is left alone",
        Duration::from_secs(3),
        async || match mesh.app.in_flight() {
            0 => Ok(()),
            count => Err(format!("{count} requests in flight")),
        },
    )
    .await;
    let labels = [
        ("direction", "outbound"),
        ("reason", reason),
        ("code", "5xx"),
    ];
    assert_eq!(
        mesh.caller
            .metrics()
            .await
            .sum("outrigger_requests_total", &labels),
        1.0
    );
    assert_eq!(
        timed(&mesh.caller, "/").await.0,
        200,
        "the next request suffers"
    );
}

#[tokio::test]
async fn request() {
    expires("{request: 400ms}", "request-timeout").await;
}

#[tokio::test]
async fn per_try() {
    expires("{backendRequest: 400ms}", "per-try-timeout").await;
}

#[tokio::test]
async fn response_headers() {
    expires("{responseHeaders: 400ms}", "response-headers-timeout").await;
}

#[tokio::test]
async fn connect() {
    // A listener whose queue is full does not answer a SYN: as a host that is not there.
    let address = SocketAddr::new(loopback().into(), 28000);
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&address.into()).unwrap();
    socket.listen(0).unwrap();
    let mut queued = Vec::new();
    for _ in 0..4 {
        let stream = tokio::time::timeout(
            Duration::from_millis(200),
            tokio::net::TcpStream::connect(address),
        )
        .await;
        queued.push(stream);
    }
    assert!(
        queued.iter().any(Result::is_err),
        "the queue is not full: connects still succeed"
    );

    let control_plane = ControlPlane::start().await;
    let endpoints = plain_endpoints(&[address]);
    control_plane.apply(&service(
        "chat",
        &format!("{endpoints}\ntimeouts: {{connect: 400ms}}"),
    ));
    let caller = Sidecar::caller(&control_plane).await;
    let (status, reason, took) = timed(&caller, "/").await;
    assert_eq!((status, reason.as_str()), (504, "connect-timeout"));
    assert!(
        (Duration::from_millis(390)..Duration::from_secs(5)).contains(&took),
        "{took:?}"
    );
}

#[tokio::test]
async fn stream_idle_ends_a_stream_that_stalls_and_no_other() {
    let mesh = with("{streamIdle: 700ms}").await;
    // 2 s of a stream that moves.
    let answer = mesh.caller.get("chat", "/sse?n=8&ms=250").await;
    assert!(
        answer.text().ends_with("data: [DONE]\n\n"),
        "{}",
        answer.text()
    );
    // Silence before the head is not that clock's business.
    assert_eq!(timed(&mesh.caller, "/slow?ms=1400").await.0, 200);

    let mut connection = Connection::http1(mesh.caller.outbound()).await.unwrap();
    let request = connection.request("GET", "chat", "/stall?n=2&ms=50", empty());
    let mut body = connection.send(request).await.unwrap().into_body();
    let (start, mut text) = (Instant::now(), Vec::new());
    let error = loop {
        match tokio::time::timeout(Duration::from_secs(10), body.frame())
            .await
            .expect("the stream is ended")
        {
            Some(Ok(frame)) => text.extend_from_slice(frame.data_ref().unwrap()),
            Some(Err(error)) => break error,
            None => panic!(
                "a stream that was cut looks like one that ended: {}",
                String::from_utf8_lossy(&text)
            ),
        }
    };
    assert!(start.elapsed() < Duration::from_secs(5), "{error}");
    assert!(String::from_utf8_lossy(&text).contains("token1"));
    eventually(
        "it is counted and the application is left alone",
        Duration::from_secs(3),
        async || {
            let labels = [("direction", "outbound"), ("reason", "stream-idle-timeout")];
            let count = mesh
                .caller
                .metrics()
                .await
                .sum("outrigger_requests_total", &labels);
            match (count, mesh.app.in_flight()) {
                (1.0, 0) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        },
    )
    .await;
}

#[tokio::test]
async fn the_request_clock_cuts_streams_and_the_others_do_not() {
    let mesh = with("{backendRequest: 500ms, responseHeaders: 500ms}").await;
    let answer = mesh.caller.get("chat", "/sse?n=6&ms=250").await;
    assert!(
        answer.text().ends_with("data: [DONE]\n\n"),
        "{}",
        answer.text()
    );

    mesh.control_plane
        .apply(&route("timed", "[{timeouts: {request: 500ms}}]"));
    eventually("the stream is cut", Duration::from_secs(10), async || {
        let mut connection = Connection::http1(mesh.caller.outbound()).await.unwrap();
        let request = connection.request("GET", "chat", "/sse?n=6&ms=250", empty());
        let response = connection.send(request).await.unwrap();
        match response.into_body().collect().await {
            Ok(_) => Err("it ended as it should not".to_string()),
            Err(_) => Ok(()),
        }
    })
    .await;
}

#[tokio::test]
async fn a_services_timeouts_yield_to_a_rules_field_by_field() {
    let control_plane = ControlPlane::start().await;
    control_plane.apply(
        "kind: Mesh\nmetadata: {name: default}\nspec: {timeouts: {responseHeaders: 300ms}}\n",
    );
    control_plane.apply(&service("chat", "timeouts: {request: 900ms}"));
    let app = Http::start("chat").await;
    let _server = Sidecar::serving(&control_plane, "chat:80", app.address()).await;
    let caller = Sidecar::caller(&control_plane).await;
    caller.reaches("chat").await;
    let (_, reason, _) = timed(&caller, "/slow?ms=5000").await;
    assert_eq!(reason, "response-headers-timeout", "the mesh's");
    control_plane.apply(&route("timed", "[{timeouts: {responseHeaders: 10s}}]"));
    eventually(
        "the rule's clock and the service's",
        Duration::from_secs(10),
        async || match timed(&caller, "/slow?ms=5000").await {
            (504, reason, _) if reason == "request-timeout" => Ok(()),
            other => Err(format!("{other:?}")),
        },
    )
    .await;
}
