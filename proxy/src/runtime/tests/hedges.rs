use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http_body_util::BodyExt;

use super::client::{get, post};
use super::mesh::{
    CHAT, Calls, application, calling, endpoint, plain, retry, server, serving, text,
};
use crate::policy::{Hedge, Protocol};
use crate::tls::test_ca::TestCa;

const DELAY: Duration = Duration::from_millis(50);

fn hedging() -> Calls {
    Calls {
        hedge: Some(Hedge {
            delay: DELAY,
            max_requests: 2,
            methods: vec![http::Method::GET, http::Method::PUT],
        }),
        ..Calls::default()
    }
}

/// Echoes after a pause, and counts the requests that come and those that it is left with.
async fn after(pause: Duration) -> (SocketAddr, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    struct Guard(Arc<AtomicUsize>);
    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
    let (seen, held) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (count, holding) = (Arc::clone(&seen), Arc::clone(&held));
    let app = application(move |request| {
        count.fetch_add(1, Ordering::SeqCst);
        holding.fetch_add(1, Ordering::SeqCst);
        let guard = Guard(Arc::clone(&holding));
        async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            tokio::time::sleep(pause).await;
            drop(guard);
            text(&format!("{pause:?} {}", String::from_utf8_lossy(&body)))
        }
    })
    .await;
    (app, seen, held)
}

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_slow_answer_is_overtaken_and_cancelled() {
    let (slow, slow_seen, slow_held) = after(LONG).await;
    let (quick, quick_seen, _) = after(Duration::ZERO).await;
    // Over HTTP/2 between sidecars, and over HTTP/1.1 without.
    let ca = TestCa::new();
    let servers = [server(&ca, CHAT), server(&ca, CHAT)];
    for (server, app) in servers.iter().zip([slow, quick]) {
        server.set(serving(app, Protocol::Http));
    }
    let pair = calling(&ca);
    let endpoints = servers.iter().map(|it| endpoint(it.inbound(), true));
    pair.set(hedging().snapshot(&pair.shared.metrics, endpoints.collect()));
    let one_hop = plain(hedging(), &[slow, quick]);
    for caller in [&pair, &one_hop] {
        slow_seen.store(0, Ordering::SeqCst);
        quick_seen.store(0, Ordering::SeqCst);
        let begun = Instant::now();
        for number in 0..4 {
            let head = "PUT / HTTP/1.1\r\nhost: chat\r\ncontent-length: 4\r\n\r\nbody";
            let answer = super::client::once(caller.outbound(), head).await;
            assert_eq!(answer.body, "0ns body", "request {number}");
        }
        assert!(begun.elapsed() < Duration::from_secs(20));
        let seen = |seen: &AtomicUsize| seen.load(Ordering::SeqCst);
        // Each request was answered by the quick one; some had been sent to the slow one before.
        assert_eq!(seen(&quick_seen), 4);
        let overtaken = seen(&slow_seen);
        assert!(overtaken > 0);
        let count = format!("}} {overtaken}");
        caller
            .expect_metric(&["outrigger_hedges_total", "result=\"won\"", &count])
            .await;
        let lines = caller.log_lines(4).await;
        let attempts = lines.iter().map(|line| line["attempts"].as_u64().unwrap());
        assert_eq!(attempts.sum::<u64>(), 4 + overtaken as u64);
        // The losers are not left with it.
        for _ in 0..500 {
            if slow_held.load(Ordering::SeqCst) == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(slow_held.load(Ordering::SeqCst), 0);
        caller.idle().await;
    }
    servers[0].idle().await;
}

#[tokio::test]
async fn what_is_not_hedged() {
    let (slow, seen, _) = after(Duration::from_millis(300)).await;
    let (other, _, _) = after(Duration::from_millis(300)).await;
    let caller = plain(hedging(), &[slow, other]);
    // Not a method that may be sent twice.
    assert_eq!(post(caller.outbound(), "/", "x").await.head.status, 200);
    assert_eq!(caller.log_lines(1).await[0]["attempts"], 1);
    assert!(!caller.metrics().contains("outrigger_hedges_total{"));
    // There is no other endpoint.
    let alone = plain(hedging(), &[slow]);
    assert_eq!(get(alone.outbound(), "/").await.head.status, 200);
    alone
        .expect_metric(&["outrigger_hedges_total", "result=\"no-endpoint\"", "} 1"])
        .await;
    // The body is larger than what is kept.
    let mut calls = hedging();
    calls.retry = Some(retry(1));
    let caller = plain(calls, &[slow, other]);
    seen.store(0, Ordering::SeqCst);
    let body = "y".repeat(2000);
    let text = format!("PUT / HTTP/1.1\r\nhost: chat\r\ncontent-length: 2000\r\n\r\n{body}");
    let answer = super::client::once(caller.outbound(), &text).await;
    assert_eq!(answer.head.status, 200);
    assert!(answer.body.ends_with(&body));
    caller
        .expect_metric(&["outrigger_hedges_total", "result=\"body\"", "} 1"])
        .await;
}

#[tokio::test]
async fn the_budget_bounds_hedges() {
    let (one, one_seen, _) = after(Duration::from_millis(200)).await;
    let (two, two_seen, _) = after(Duration::from_millis(200)).await;
    let mut calls = hedging();
    calls.hedge.as_mut().unwrap().delay = Duration::from_millis(1);
    let caller = plain(calls, &[one, two]);
    let address = caller.outbound();
    let clients = (0..200).map(|_| tokio::spawn(async move { get(address, "/").await }));
    for client in clients.collect::<Vec<_>>() {
        assert_eq!(client.await.unwrap().head.status, 200);
    }
    let hedges = one_seen.load(Ordering::SeqCst) + two_seen.load(Ordering::SeqCst) - 200;
    // 10 a second for 10 s, 20 % of the requests, and what a slow machine's seconds add.
    assert!((50..=200).contains(&hedges), "{hedges}");
    assert!(hedges < 200 || one_seen.load(Ordering::SeqCst) > 0);
    caller
        .expect_metric(&["outrigger_hedges_total", "result=\"no-budget\""])
        .await;
}

#[tokio::test]
async fn a_bad_answer_does_not_win() {
    let bad = application(|_| async {
        http::Response::builder()
            .status(503)
            .body(Default::default())
            .unwrap()
    })
    .await;
    let (good, _, _) = after(Duration::from_millis(400)).await;
    // Where the good one is asked first, the bad one answers before it.
    let caller = plain(hedging(), &[good, bad]);
    for _ in 0..4 {
        get(caller.outbound(), "/").await;
    }
    let lines = caller.log_lines(4).await;
    let hedged: Vec<_> = lines.iter().filter(|line| line["attempts"] == 2).collect();
    assert!(!hedged.is_empty());
    for line in &hedged {
        assert_eq!(line["status"], 200, "{line}");
    }
    let lost = format!("}} {}", hedged.len());
    caller
        .expect_metric(&["outrigger_hedges_total", "result=\"lost\"", &lost])
        .await;
}
