use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::client::{Http1, get, post};
use super::mesh::{
    CHAT, Calls, Pair, application, calling, endpoint, nobody, plain, retry, server, serving,
    sockets, text,
};
use crate::policy::Protocol;
use crate::tls::test_ca::TestCa;

/// Fails so many times, then echoes.
async fn fails(times: usize, status: u16) -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let app = application(move |request| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            if number < times {
                let answer = Response::builder().status(status);
                return answer.body(Full::from(format!("no {number}"))).unwrap();
            }
            text(&format!(
                "{} after {number}",
                String::from_utf8_lossy(&body)
            ))
        }
    })
    .await;
    (app, seen)
}

#[tokio::test]
async fn a_refused_connection_is_tried_elsewhere() {
    let app = application(|_| async { text("here") }).await;
    let caller = plain(Calls::default(), &[nobody().await, nobody().await, app]);
    for _ in 0..6 {
        let answer = post(caller.outbound(), "/", "x").await;
        assert_eq!(answer.body, "here");
    }
    caller
        .expect_metric(&["outrigger_retries_total", "cause=\"connect\""])
        .await;
}

#[tokio::test]
async fn a_dead_application_behind_a_living_sidecar_is_one_too() {
    let ca = TestCa::new();
    let dead = server(&ca, CHAT);
    dead.set(serving(nobody().await, Protocol::Http));
    let alive = server(&ca, CHAT);
    let app = application(|request| async move {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        text(&String::from_utf8_lossy(&body))
    })
    .await;
    alive.set(serving(app, Protocol::Http));
    let caller = calling(&ca);
    let endpoints = vec![
        endpoint(dead.inbound(), true),
        endpoint(alive.inbound(), true),
    ];
    caller.set(Calls::default().snapshot(&caller.shared.metrics, endpoints));
    for number in 0..6 {
        let body = format!("body {number}");
        let answer = post(caller.outbound(), "/", &body).await;
        assert_eq!(answer.body, body);
        assert_eq!(answer.head.reason(), "");
    }
}

#[tokio::test]
async fn statuses_by_policy() {
    let (app, seen) = fails(1, 503).await;
    let mut policy = retry(2);
    policy.statuses = vec![StatusCode::SERVICE_UNAVAILABLE];
    let caller = plain(
        Calls {
            retry: Some(policy),
            ..Calls::default()
        },
        &[app],
    );
    let mut client = Http1::connect(caller.outbound()).await;
    let answer = client
        .request("PUT / HTTP/1.1\r\nhost: chat\r\ncontent-length: 4\r\n\r\nbody")
        .await;
    assert_eq!(answer.body, "body after 1");
    caller
        .expect_metric(&["outrigger_retries_total", "cause=\"status\"", "} 1"])
        .await;
    // A method that the policy does not name is sent once, and gets what came.
    seen.store(0, Ordering::SeqCst);
    let answer = post(caller.outbound(), "/", "x").await;
    assert_eq!((answer.head.status, answer.body.as_str()), (503, "no 0"));
    caller
        .expect_metric(&["outrigger_retries_refused_total", "why=\"method\"", "} 1"])
        .await;
    // A body that is too large to be kept.
    seen.store(0, Ordering::SeqCst);
    let body = "y".repeat(2000);
    let text = format!("PUT / HTTP/1.1\r\nhost: chat\r\ncontent-length: 2000\r\n\r\n{body}");
    let answer = client.request(&text).await;
    assert_eq!(answer.head.status, 503);
    caller
        .expect_metric(&[
            "outrigger_retries_refused_total",
            "why=\"body-too-large\"",
            "} 1",
        ])
        .await;
    let line = &caller.log_lines(3).await[2];
    assert_eq!(line["not_retried"], "body-too-large");
}

#[tokio::test]
async fn the_last_answer_is_passed_on() {
    let (app, seen) = fails(100, 503).await;
    let mut policy = retry(2);
    policy.statuses = vec![StatusCode::SERVICE_UNAVAILABLE];
    let caller = plain(
        Calls {
            retry: Some(policy),
            ..Calls::default()
        },
        &[app],
    );
    let answer = get(caller.outbound(), "/").await;
    assert_eq!((answer.head.status, answer.body.as_str()), (503, "no 2"));
    assert_eq!(answer.head.reason(), "", "the application's own answer");
    assert_eq!(seen.load(Ordering::SeqCst), 3);
    caller
        .expect_metric(&["outrigger_retries_refused_total", "why=\"attempts\""])
        .await;
    assert_eq!(caller.log_lines(1).await[0]["attempts"], 3);
}

#[tokio::test]
async fn the_budget_bounds_them() {
    let (app, seen) = fails(usize::MAX, 503).await;
    let mut policy = retry(1);
    policy.statuses = vec![StatusCode::SERVICE_UNAVAILABLE];
    let caller = plain(
        Calls {
            retry: Some(policy),
            ..Calls::default()
        },
        &[app],
    );
    let mut client = Http1::connect(caller.outbound()).await;
    for _ in 0..200 {
        client.request("GET / HTTP/1.1\r\nhost: chat\r\n\r\n").await;
    }
    let retries = seen.load(Ordering::SeqCst) - 200;
    // 10 a second for 10 s, and 20 % of the requests.
    assert!((100..=145).contains(&retries), "{retries}");
    caller
        .expect_metric(&["outrigger_retries_refused_total", "why=\"budget\""])
        .await;
}

#[tokio::test]
async fn resets_by_policy() {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let app = sockets(move |mut stream| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        async move {
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await;
            if number > 0 {
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                stream.write_all(answer).await.unwrap();
                let _ = stream.read(&mut head).await;
            }
        }
    })
    .await;
    let mut policy = retry(1);
    policy.on_reset = true;
    let caller = plain(
        Calls {
            retry: Some(policy),
            ..Calls::default()
        },
        &[app],
    );
    assert_eq!(get(caller.outbound(), "/").await.body, "ok");
    seen.store(0, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let fresh = plain(Calls::default(), &[app]);
    let answer = get(fresh.outbound(), "/").await;
    assert_eq!(answer.head.reason(), "upstream-reset", "without a policy");
}

#[tokio::test]
async fn a_reused_connection_that_was_closed() {
    // Answers once on each connection, says nothing of closing it, and closes it a moment later.
    let app = sockets(|mut stream| async move {
        let mut head = [0; 1024];
        let _ = stream.read(&mut head).await;
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        stream.write_all(answer).await.unwrap();
        tokio::time::sleep(Duration::from_millis(3)).await;
    })
    .await;
    let pair = Pair::new(Calls::default(), app);
    let one_hop = plain(Calls::default(), &[app]);
    for address in [pair.address(), one_hop.outbound()] {
        let mut client = Http1::connect(address).await;
        for number in 0..100 {
            let answer = client.request("GET / HTTP/1.1\r\nhost: chat\r\n\r\n").await;
            assert_eq!(answer.head.status, 200, "request {number}: {answer:?}");
            tokio::time::sleep(Duration::from_micros(number * 100)).await;
        }
    }
}

#[tokio::test]
async fn a_server_that_goes_away_takes_its_leave() {
    // Serves a few streams on each connection, then says GOAWAY while requests are coming.
    let app = sockets(|stream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let mut number = 0;
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            number += 1;
            if number == 5 {
                connection.graceful_shutdown();
            }
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(2)).await;
                respond.send_response(Response::new(()), true).unwrap();
            });
        }
    })
    .await;
    let caller = plain(
        Calls {
            protocol: Protocol::Http2,
            ..Calls::default()
        },
        &[app],
    );
    let address = caller.outbound();
    let clients = (0..8).map(|_| {
        tokio::spawn(async move {
            let mut client = Http1::connect(address).await;
            for number in 0..50 {
                let text = "POST / HTTP/1.1\r\nhost: chat\r\ncontent-length: 1\r\n\r\nx";
                let answer = client.request(text).await;
                assert_eq!(answer.head.status, 200, "request {number}: {answer:?}");
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
}

#[tokio::test]
async fn refused_streams_are_repeated() {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let app = sockets(move |stream| {
        let count = Arc::clone(&count);
        async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                if count.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) {
                    respond.send_reset(h2::Reason::REFUSED_STREAM);
                } else {
                    respond.send_response(Response::new(()), true).unwrap();
                }
            }
        }
    })
    .await;
    let pair = Pair::new(
        Calls {
            protocol: Protocol::Http2,
            ..Calls::default()
        },
        app,
    );
    for _ in 0..5 {
        let answer = post(pair.address(), "/", "x").await;
        assert_eq!(answer.head.status, 200, "{answer:?}");
    }
    assert_eq!(seen.load(Ordering::SeqCst), 10);
}

#[tokio::test]
async fn grpc_statuses_by_policy() {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let app = sockets(move |stream| {
        let count = Arc::clone(&count);
        async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let code = if count.fetch_add(1, Ordering::SeqCst) == 0 {
                    "14"
                } else {
                    "0"
                };
                let head = Response::builder()
                    .header("content-type", "application/grpc")
                    .header("grpc-status", code);
                respond.send_response(head.body(()).unwrap(), true).unwrap();
            }
        }
    })
    .await;
    let mut policy = retry(1);
    policy.methods = vec![http::Method::POST];
    policy.grpc_codes = vec![14];
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
        .body(())
        .unwrap();
    let (response, _) = client.send_request(request, true).unwrap();
    assert_eq!(response.await.unwrap().headers()["grpc-status"], "0");
    pair.caller
        .expect_metric(&["outrigger_retries_total", "cause=\"grpc-status\"", "} 1"])
        .await;
}

#[tokio::test]
async fn retry_after_is_honoured() {
    let begun = std::time::Instant::now();
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let app = application(move |_| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        async move {
            let answer = Response::builder().status(429).header("retry-after", "30");
            answer.body(Full::from(number.to_string())).unwrap()
        }
    })
    .await;
    let mut policy = retry(3);
    policy.statuses = vec![StatusCode::TOO_MANY_REQUESTS];
    let caller = plain(
        Calls {
            retry: Some(policy),
            ..Calls::default()
        },
        &[app],
    );
    let answer = get(caller.outbound(), "/").await;
    // Longer than the longest pause: the client is told at once.
    assert_eq!((answer.head.status, answer.body.as_str()), (429, "0"));
    assert_eq!(answer.head.get("retry-after"), Some("30"));
    assert!(begun.elapsed() < Duration::from_secs(5));
}
