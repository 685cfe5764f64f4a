//! What is let through, at the caller and beside the application: the example files, applied as they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use outrigger_tests::client::{self, Answer, empty};
use outrigger_tests::{Sidecar, eventually};
use tokio::task::JoinSet;

use crate::mesh::Mesh;

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
    // Of the one sidecar that serves it.
    assert!(
        listed.contains("ACCEPTED") && listed.contains("1/1"),
        "{listed}"
    );
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

/// Asks without a pause, for answers that take as long as is said.
struct Asking {
    millis: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    all: JoinSet<()>,
}

impl Asking {
    fn start(to: std::net::SocketAddr, callers: usize, millis: u64) -> Asking {
        let (millis, stop) = (
            Arc::new(AtomicU64::new(millis)),
            Arc::<AtomicBool>::default(),
        );
        let mut all = JoinSet::new();
        for _ in 0..callers {
            let (millis, stop) = (Arc::clone(&millis), Arc::clone(&stop));
            all.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let path = format!("/slow?ms={}", millis.load(Ordering::Relaxed));
                    let answer = client::get(to, "chat", &path).await;
                    if answer.status != 200 {
                        assert_eq!(answer.reason(), "overloaded");
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
            });
        }
        Asking { millis, stop, all }
    }

    async fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.all.join_next().await {
            ended.unwrap();
        }
    }
}

#[tokio::test]
async fn an_adaptive_concurrency_follows_the_latency() {
    let example = "adaptive-concurrency.yaml";
    let mesh = with(example, "\"concurrency\"", |mesh| &mesh.server).await;
    let labels = [("service", "default/chat")];
    let becomes = async |what: &str, is_so: &dyn Fn(f64) -> bool| {
        eventually(what, Duration::from_secs(30), async || {
            let metrics = mesh.server.metrics().await;
            let limit = metrics.sum("outrigger_concurrency_limit", &labels);
            assert!((1.0..=40.0).contains(&limit), "{limit}");
            let in_use = metrics.sum("outrigger_concurrency_in_use", &labels);
            assert!(in_use <= 40.0, "{in_use}");
            if is_so(limit) {
                Ok(())
            } else {
                Err(limit.to_string())
            }
        })
        .await;
    };
    becomes("it begins with 20", &|limit| limit == 20.0).await;
    let asking = Asking::start(mesh.caller.outbound(), 50, 50);
    becomes("more, while answers come as fast as ever", &|limit| {
        limit > 30.0
    })
    .await;
    asking.millis.store(2000, Ordering::Relaxed);
    becomes("less, once they take longer", &|limit| limit < 15.0).await;
    asking.millis.store(50, Ordering::Relaxed);
    becomes("more again", &|limit| limit > 25.0).await;
    asking.end().await;
    let rejected = [("direction", "inbound"), ("limit", "concurrency")];
    let metrics = mesh.server.metrics().await;
    assert!(metrics.sum("outrigger_rejections_total", &rejected) > 0.0);
}
