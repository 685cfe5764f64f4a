use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::client::{Http1, get, once};
use super::mesh::{Calls, Pair, application, plain, retry, server, serving, sockets, text};
use crate::policy::{Protocol, Timeouts};
use crate::tls::test_ca::TestCa;

/// Says which timeout it was told.
async fn told() -> std::net::SocketAddr {
    application(|request| async move {
        let header = |name: &str| request.headers().get(name).cloned();
        let http = header("x-request-timeout-ms").map(|it| it.to_str().unwrap().to_owned());
        text(&http.unwrap_or_else(|| "none".into()))
    })
    .await
}

fn with(request: Duration) -> Calls {
    Calls {
        timeouts: Timeouts {
            request: Some(request),
            ..Timeouts::default()
        },
        ..Calls::default()
    }
}

fn asking(millis: &str) -> String {
    format!("GET / HTTP/1.1\r\nhost: chat\r\nx-request-timeout-ms: {millis}\r\n\r\n")
}

#[tokio::test]
async fn the_application_is_told_what_is_left() {
    let app = told().await;
    let left = |text: String| text.parse::<u64>().unwrap();
    let pair = Pair::new(with(Duration::from_secs(60)), app);
    let millis = left(get(pair.address(), "/").await.body);
    assert!((40_000..=60_000).contains(&millis), "{millis}");
    // A caller's wish only shortens.
    let millis = left(once(pair.address(), &asking("30000")).await.body);
    assert!((20_000..=30_000).contains(&millis), "{millis}");
    let millis = left(once(pair.address(), &asking("90000")).await.body);
    assert!((40_000..=60_000).contains(&millis), "{millis}");
    // Where no clock runs there is nothing to tell; outside of the mesh it is nobody's business.
    let pair = Pair::new(Calls::default(), app);
    assert_eq!(get(pair.address(), "/").await.body, "none");
    let caller = plain(with(Duration::from_secs(60)), &[app]);
    assert_eq!(get(caller.outbound(), "/").await.body, "none");
    let millis = left(once(caller.outbound(), &asking("30000")).await.body);
    assert!((20_000..=30_000).contains(&millis), "{millis}");
}

#[tokio::test]
async fn a_callers_wish_is_a_clock() {
    let app = application(|_| async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        text("")
    })
    .await;
    let pair = Pair::new(Calls::default(), app);
    let begun = Instant::now();
    let answer = once(pair.address(), &asking("200")).await;
    assert_eq!(answer.head.status, 504);
    // Whichever of the two sidecars was first.
    assert_eq!(answer.head.reason(), "request-timeout");
    assert!(begun.elapsed() < Duration::from_secs(10));
    pair.server.idle().await;
}

#[tokio::test]
async fn the_inbound_side_enforces_the_deadline() {
    let app = sockets(|mut stream| async move {
        let mut head = [0; 1024];
        let count = stream.read(&mut head).await.unwrap_or(0);
        if head[..count].windows(7).any(|part| part == b"/stream") {
            let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n";
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        // Until it is told to stop.
        while stream.read(&mut head).await.is_ok_and(|count| count > 0) {}
    })
    .await;
    let ca = TestCa::new();
    let inbound = server(&ca, super::mesh::CHAT);
    let mut snapshot = serving(app, Protocol::Http);
    snapshot.mesh.permissive = true;
    inbound.set(snapshot);
    // A peer that has no clock of its own.
    let answer = once(inbound.inbound(), &asking("200")).await;
    assert_eq!(
        (answer.head.status, answer.head.reason()),
        (504, "deadline-exceeded")
    );
    let mut client = Http1::connect(inbound.inbound()).await;
    client
        .write("GET /stream HTTP/1.1\r\nhost: chat\r\nx-request-timeout-ms: 300\r\n\r\n")
        .await;
    assert_eq!(client.head().await.status, 200);
    assert_eq!(client.chunk().await.unwrap(), b"x");
    assert!(client.try_chunk().await.is_none(), "an end that is none");
    let lines = inbound.log_lines(2).await;
    assert_eq!(lines[1]["reason"], "deadline-exceeded");
    inbound.idle().await;
}

#[tokio::test]
async fn grpc_timeouts_are_rewritten_on_each_try() {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let app = sockets(move |stream| {
        let tell = tell.clone();
        async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let value = &request.headers()["grpc-timeout"];
                tell.send(value.to_str().unwrap().to_owned()).unwrap();
                // A head, and the status behind it in trailers: it can still be retried.
                let head = http::Response::builder().header("content-type", "application/grpc");
                let mut stream = respond
                    .send_response(head.body(()).unwrap(), false)
                    .unwrap();
                let mut trailers = http::HeaderMap::new();
                trailers.insert("grpc-status", "14".parse().unwrap());
                trailers.insert("grpc-retry-pushback-ms", "30".parse().unwrap());
                stream.send_trailers(trailers).unwrap();
            }
        }
    })
    .await;
    let mut policy = retry(1);
    policy.methods = vec![http::Method::POST];
    policy.grpc_codes = vec![14];
    policy.backoff.max = Duration::from_millis(100);
    let pair = Pair::new(
        Calls {
            protocol: Protocol::Grpc,
            retry: Some(policy),
            ..Calls::default()
        },
        app,
    );
    let mut client = super::http2::connect(pair.address()).await;
    let request = http::Request::post("http://chat/a.B/C")
        .header("content-type", "application/grpc")
        .header("grpc-timeout", "60S")
        .body(())
        .unwrap();
    let (response, _) = client.send_request(request, true).unwrap();
    let mut body = response.await.unwrap().into_body();
    let trailers = body.trailers().await.unwrap().unwrap();
    assert_eq!(trailers["grpc-status"], "14");
    pair.caller
        .expect_metric(&["outrigger_retries_total", "cause=\"grpc-status\"", "} 1"])
        .await;
    let mut left = Vec::new();
    for _ in 0..2 {
        let text = told.recv().await.unwrap();
        left.push(text.strip_suffix('u').unwrap().parse::<u64>().unwrap());
    }
    assert!(left[0] < 60_000_000 && left[0] > 30_000_000, "{left:?}");
    // The pause that the server asked for has passed between them.
    assert!(left[1] + 30_000 <= left[0], "{left:?}");
}

#[tokio::test]
async fn no_time_for_another_try() {
    let app = application(|_| async {
        let answer = http::Response::builder().status(503);
        let answer = answer.header("retry-after", "20");
        answer.body(Full::<Bytes>::default()).unwrap()
    })
    .await;
    let mut calls = with(Duration::from_secs(10));
    let mut policy = retry(1);
    policy.statuses = vec![http::StatusCode::SERVICE_UNAVAILABLE];
    policy.backoff.max = Duration::from_secs(30);
    calls.retry = Some(policy);
    let caller = plain(calls, &[app]);
    let begun = Instant::now();
    let answer = get(caller.outbound(), "/").await;
    assert_eq!((answer.head.status, answer.head.reason()), (503, ""));
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "it is not waited for"
    );
    assert_eq!(caller.log_lines(1).await[0]["not_retried"], "deadline");
}

#[tokio::test]
async fn attempts_are_told_where_they_are_asked_for() {
    let app = application(|request| async move {
        let asked = request.headers().contains_key("x-outrigger-attempts");
        let _ = request.into_body().collect().await;
        let answer = http::Response::builder().header("x-outrigger-attempts", "99");
        answer.body(Full::from(asked.to_string())).unwrap()
    })
    .await;
    let pair = Pair::new(Calls::default(), app);
    assert_eq!(
        get(pair.address(), "/")
            .await
            .head
            .get("x-outrigger-attempts"),
        None
    );
    let asking = "GET / HTTP/1.1\r\nhost: chat\r\nx-outrigger-attempts: yes\r\n\r\n";
    let answer = once(pair.address(), asking).await;
    assert_eq!(answer.head.get("x-outrigger-attempts"), Some("1"));
    assert_eq!(
        answer.body, "false",
        "it is between the application and its sidecar"
    );
    let calls = Calls {
        expose_attempts: true,
        ..Calls::default()
    };
    let refused = plain(calls, &[super::mesh::nobody().await]);
    let answer = get(refused.outbound(), "/").await;
    assert_eq!(
        (answer.head.status, answer.head.get("x-outrigger-attempts")),
        (503, Some("1"))
    );
}

#[tokio::test]
async fn first_byte_and_lifetime() {
    let app = sockets(|mut stream| async move {
        let mut head = [0; 1024];
        let count = stream.read(&mut head).await.unwrap_or(0);
        let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
        if head[..count].windows(6).any(|part| part == b"/stall") {
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        while stream.write_all(b"1\r\nx\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let calls = Calls {
        timeouts: Timeouts {
            first_byte: Some(Duration::from_millis(300)),
            stream_lifetime: Some(Duration::from_millis(600)),
            ..Timeouts::default()
        },
        ..Calls::default()
    };
    let pair = Pair::new(calls, app);
    let answer = get(pair.address(), "/stall").await;
    assert_eq!(
        (answer.head.status, answer.head.reason()),
        (504, "first-byte-timeout")
    );
    let mut client = Http1::connect(pair.address()).await;
    client.write("GET / HTTP/1.1\r\nhost: chat\r\n\r\n").await;
    assert_eq!(client.head().await.status, 200);
    let mut chunks = 0;
    while let Some(chunk) = client.try_chunk().await {
        // Two of the application's may come together.
        assert!(chunk.unwrap().iter().all(|byte| *byte == b'x'));
        chunks += 1;
    }
    assert!(chunks > 1, "{chunks}");
    let lines = pair.caller.log_lines(2).await;
    assert_eq!(lines[1]["reason"], "stream-lifetime-timeout");
    pair.server.idle().await;
}
