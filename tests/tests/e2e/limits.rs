//! What is let through, at the caller and beside the application: the example files, applied as they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use outrigger_tests::client::{self, Answer, empty};
use outrigger_tests::{Sidecar, eventually};
use tokio::task::JoinSet;

use crate::mesh::{Mesh, service};

fn example(name: &str) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/policies/");
    std::fs::read_to_string(format!("{path}{name}")).unwrap()
}

/// A mesh with an example in effect at the sidecar that `who` chooses.
async fn with(name: &str, shows: &str, who: fn(&Mesh) -> &Sidecar) -> Mesh {
    let mesh = Mesh::start("").await;
    mesh.control_plane.apply(&example(name));
    eventually(name, Duration::from_secs(10), async || {
        let config = who(&mesh).admin("/config").await.text();
        if config.contains(shows) {
            Ok(())
        } else {
            Err(config)
        }
    })
    .await;
    mesh
}

async fn get(caller: &Sidecar, path: &str, header: (&str, &str)) -> Answer {
    let head = http::Request::builder()
        .uri(path)
        .header("host", "chat")
        .header(header.0, header.1);
    client::request(caller.outbound(), head, empty()).await
}

const PLAIN: (&str, &str) = ("accept", "*/*");

#[tokio::test]
async fn an_endpoint_that_is_full_is_not_asked() {
    let mesh = with("limits.yaml", "\"ratio\"", |mesh| &mesh.caller).await;
    let mut slow = JoinSet::new();
    for _ in 0..2 {
        let to = mesh.caller.outbound();
        slow.spawn(async move { client::get(to, "chat", "/slow?ms=4000").await });
    }
    eventually(
        "both are there",
        Duration::from_secs(3),
        async || match mesh.app.in_flight() {
            2 => Ok(()),
            other => Err(other.to_string()),
        },
    )
    .await;
    let begun = Instant::now();
    let refused = mesh.caller.get("chat", "/").await;
    assert_eq!(
        (refused.status.as_u16(), refused.reason()),
        (503, "circuit-open")
    );
    assert!(begun.elapsed() < Duration::from_secs(3), "it has waited");
    let labels = [("direction", "outbound"), ("limit", "endpoint-requests")];
    let metrics = mesh.caller.metrics().await;
    assert_eq!(metrics.sum("outrigger_rejections_total", &labels), 1.0);
    let requests = [("service", "default/chat"), ("limit", "requests")];
    assert_eq!(
        metrics.sum("outrigger_circuit_breaker_in_use", &requests),
        2.0
    );
    // With the last byte the place is free again.
    while let Some(answer) = slow.join_next().await {
        assert_eq!(answer.unwrap().status, 200);
    }
    assert_eq!(mesh.caller.get("chat", "/").await.status, 200);
    let metrics = mesh.caller.metrics().await;
    assert_eq!(
        metrics.sum("outrigger_circuit_breaker_in_use", &requests),
        0.0
    );
    let described = mesh.control_plane.ctl(&["describe", "service", "chat"]);
    assert!(
        described.contains("to each endpoint: connections 100, requests 2"),
        "{described}"
    );
}

#[tokio::test]
async fn a_service_that_refuses_is_spared() {
    let mesh = with("limits.yaml", "\"ratio\"", |mesh| &mesh.caller).await;
    let mut throttled = 0;
    for _ in 0..200 {
        let answer = mesh.caller.get("chat", "/status/503").await;
        assert_eq!(answer.status, 503);
        throttled += u32::from(answer.reason() == "throttled");
    }
    assert!(throttled > 100, "only {throttled} of 200 were kept back");
    assert!(mesh.app.requests() < 100);
}

#[tokio::test]
async fn callers_and_tenants_have_their_own_rate() {
    let mesh = with("rate-limits.yaml", "per-tenant", |mesh| &mesh.server).await;
    for tenant in ["a", "b"] {
        for left in ["2", "1", "0"] {
            let answer = get(&mesh.caller, "/v1/x", ("x-tenant", tenant)).await;
            assert_eq!(answer.status, 200, "{tenant} {}", answer.text());
            assert_eq!(answer.header("ratelimit-remaining"), left);
        }
        let refused = get(&mesh.caller, "/v1/x", ("x-tenant", tenant)).await;
        assert_eq!(
            (refused.status.as_u16(), refused.reason()),
            (429, "rate-limited")
        );
        assert_eq!(refused.header("retry-after"), "1");
        assert_eq!(refused.header("ratelimit-limit"), "60");
    }
    // What the limit does not match, and another caller.
    assert_eq!(
        get(&mesh.caller, "/other", ("x-tenant", "a")).await.status,
        200
    );
    let other = Sidecar::builder(&mesh.control_plane, "other").start().await;
    other.reaches("chat").await;
    assert_eq!(get(&other, "/v1/x", ("x-tenant", "a")).await.status, 200);
    let labels = [
        ("policy", "default/chat-callers"),
        ("limit", "per-tenant"),
        ("decision", "refused"),
    ];
    let metrics = mesh.server.metrics().await;
    assert_eq!(
        metrics.sum("outrigger_rate_limit_decisions_total", &labels),
        2.0
    );
    let listed = mesh.control_plane.ctl(&["get", "ratelimits"]);
    assert!(listed.contains("per-tenant 60/1m"), "{listed}");
    let described = mesh.control_plane.ctl(&["describe", "rl", "chat-callers"]);
    assert!(
        described.contains("60 requests in 1m, 3 at once"),
        "{described}"
    );
}

#[tokio::test]
async fn critical_requests_go_first_and_nobody_raises_himself() {
    let mesh = with("overload.yaml", "reserved_percent", |mesh| &mesh.server).await;
    let batch = Sidecar::builder(&mesh.control_plane, "batch").start().await;
    batch.reaches("chat").await;
    // Three of the four places are not reserved.
    let mut slow = JoinSet::new();
    for _ in 0..3 {
        let to = mesh.caller.outbound();
        slow.spawn(async move { client::get(to, "chat", "/slow?ms=4000").await });
    }
    eventually(
        "all three are there",
        Duration::from_secs(3),
        async || match mesh.app.in_flight() {
            3 => Ok(()),
            other => Err(other.to_string()),
        },
    )
    .await;
    let critical = ("x-outrigger-priority", "critical");
    assert_eq!(get(&mesh.caller, "/", critical).await.status, 200);
    // It says so, and its identity does not.
    let refused = get(&batch, "/", critical).await;
    assert_eq!(
        (refused.status.as_u16(), refused.reason()),
        (503, "overloaded")
    );
    assert_eq!(refused.header("retry-after"), "1");
    let refused = get(&mesh.caller, "/", PLAIN).await;
    assert_eq!(refused.reason(), "overloaded");
    let labels = [("direction", "inbound"), ("limit", "queue-wait")];
    let metrics = mesh.server.metrics().await;
    assert_eq!(metrics.sum("outrigger_rejections_total", &labels), 2.0);
    while let Some(answer) = slow.join_next().await {
        assert_eq!(answer.unwrap().status, 200);
    }
    assert_eq!(get(&batch, "/", PLAIN).await.status, 200);
}

/// Requests that are answered in time, of callers that give up after 400 ms and try again.
async fn offer(to: std::net::SocketAddr, callers: usize, span: Duration) -> u64 {
    let good = Arc::new(AtomicU64::new(0));
    let mut all = JoinSet::new();
    for _ in 0..callers {
        let good = Arc::clone(&good);
        all.spawn(async move {
            let end = Instant::now() + span;
            while Instant::now() < end {
                let head = http::Request::builder()
                    .uri("/slow?ms=50")
                    .header("host", "chat");
                let asked = client::try_request(to, head, empty());
                let answer = tokio::time::timeout(Duration::from_millis(400), asked).await;
                let is_good = matches!(answer, Ok(Ok(answer)) if answer.status == 200);
                good.fetch_add(u64::from(is_good), Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }
    while all.join_next().await.is_some() {}
    good.load(Ordering::Relaxed)
}

/// Metastable failures (OSDI'22): the trigger is gone, and goodput must come back by itself, although callers and sidecar retry.
#[tokio::test]
async fn goodput_returns_after_an_overload_with_retries() {
    let mesh = Mesh::start("").await;
    mesh.control_plane.apply(&service(
        "chat",
        "retry: {attempts: 3, codes: [503], backoff: 5ms}\n\
         limits: {concurrency: 4, queue: {maxLength: 50, maxWait: 300ms, target: 20ms}, throttling: {window: 10s}}",
    ));
    eventually(
        "the limits are in effect",
        Duration::from_secs(10),
        async || {
            let config = mesh.server.admin("/config").await.text();
            if config.contains("\"max_wait_ms\": 300") || config.contains("\"max_wait_ms\":300") {
                Ok(())
            } else {
                Err(config)
            }
        },
    )
    .await;
    let to = mesh.caller.outbound();
    let span = Duration::from_secs(3);
    let before = offer(to, 2, span).await;
    assert!(before > 10, "{before}");
    let during = offer(to, 60, span).await;
    // It goes on with what it can do while it is asked for much more.
    assert!(
        during > before,
        "{during} in the overload, {before} before it"
    );
    let rejected = [("direction", "inbound")];
    let metrics = mesh.server.metrics().await;
    assert!(
        metrics.sum("outrigger_rejections_total", &rejected) > 0.0,
        "it was no overload"
    );
    // Nothing is done but to go back to the load of before.
    tokio::time::sleep(Duration::from_secs(12)).await;
    let after = offer(to, 2, span).await;
    assert!(
        after * 10 >= before * 8,
        "{after} afterwards, {before} before"
    );
}
