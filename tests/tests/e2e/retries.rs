//! What is tried again, how often, and what is not.

use std::net::SocketAddr;
use std::time::Duration;

use outrigger_tests::client::{self, Answer, empty, full};
use outrigger_tests::upstream::Http;
use outrigger_tests::{ControlPlane, Sidecar, eventually, loopback};

use crate::mesh::{Mesh, plain_endpoints, route, service};

async fn send(caller: &Sidecar, method: &str, path: &str, body: Option<usize>) -> Answer {
    let head = http::Request::builder()
        .method(method)
        .uri(path)
        .header("host", "chat");
    let body = body.map_or_else(empty, |length| full(vec![b'x'; length]));
    client::request(caller.outbound(), head, body).await
}

/// A mesh with this retry policy in effect.
async fn with(policy: &str) -> Mesh {
    let mesh = Mesh::start("").await;
    mesh.control_plane
        .apply(&route("retried", &format!("[{{retry: {policy}}}]")));
    eventually(
        "the policy is in effect",
        Duration::from_secs(5),
        async || {
            let config = mesh.caller.admin("/config").await.text();
            if config.contains("default/retried") {
                Ok(())
            } else {
                Err(config)
            }
        },
    )
    .await;
    mesh
}

#[tokio::test]
async fn statuses_are_retried_for_safe_methods_up_to_the_limit() {
    let mesh = with("{attempts: 2, backoff: 5ms}").await;
    let requests = async |path: &str, method: &str| {
        let before = mesh.app.requests();
        let answer = send(&mesh.caller, method, path, None).await;
        (answer.status.as_u16(), mesh.app.requests() - before)
    };
    assert_eq!(requests("/flaky?key=a&fail=2", "GET").await, (200, 3));
    // One more than it may: the last answer is passed on as it is.
    assert_eq!(requests("/flaky?key=b&fail=3", "GET").await, (503, 3));
    assert_eq!(requests("/flaky?key=c&fail=1", "POST").await, (503, 1));
    assert_eq!(
        requests("/flaky?key=d&fail=1&status=500", "GET").await,
        (500, 1)
    );
    assert_eq!(
        requests("/flaky?key=e&fail=1&status=504", "DELETE").await,
        (200, 2)
    );

    let metrics = mesh.caller.metrics().await;
    let labels = [("service", "default/chat"), ("route", "default/retried")];
    assert_eq!(metrics.sum("outrigger_retries_total", &labels), 5.0);
    let refused = |why| {
        metrics.sum(
            "outrigger_retries_refused_total",
            &[("service", "default/chat"), ("why", why)],
        )
    };
    assert_eq!((refused("attempts"), refused("method")), (1.0, 1.0));
}

#[tokio::test]
async fn a_body_is_replayed_up_to_the_cap() {
    let mesh = with("{attempts: 1, methods: [PUT, POST], maxBodyBytes: 1000, backoff: 5ms}").await;
    let answer = send(&mesh.caller, "POST", "/flaky?key=small&fail=1", Some(1000)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(
        answer.json()["body"].as_str().map(str::len),
        Some(1000),
        "the second try has another body"
    );

    let before = mesh.app.requests();
    let answer = send(&mesh.caller, "POST", "/flaky?key=large&fail=1", Some(1001)).await;
    assert_eq!(
        (answer.status.as_u16(), mesh.app.requests() - before),
        (503, 1)
    );
    let labels = [("service", "default/chat"), ("why", "body-too-large")];
    assert_eq!(
        mesh.caller
            .metrics()
            .await
            .sum("outrigger_retries_refused_total", &labels),
        1.0
    );
}

#[tokio::test]
async fn resets_are_retried_where_the_policy_says_so() {
    let mesh = with("{attempts: 2, backoff: 5ms}").await;
    let answer = send(&mesh.caller, "GET", "/reset?key=a&fail=1", None).await;
    assert_eq!(answer.status, 200, "{} {}", answer.reason(), answer.text());
    // Not safe to send twice: it may have had its effect.
    let before = mesh.app.requests();
    let answer = send(&mesh.caller, "POST", "/reset?key=b&fail=1", Some(10)).await;
    assert_eq!(
        (answer.status.as_u16(), answer.reason()),
        (502, "upstream-reset"),
        "{}",
        answer.text()
    );
    assert_eq!(mesh.app.requests() - before, 1);
}

#[tokio::test]
async fn a_failed_connect_goes_to_another_endpoint_without_any_policy() {
    let control_plane = ControlPlane::start().await;
    let app = Http::start("alive").await;
    let nobody = SocketAddr::new(loopback().into(), 28000);
    let endpoints = plain_endpoints(&[nobody, app.address()]);
    control_plane.apply(&service(
        "chat",
        &format!("{endpoints}\nloadBalancing: {{policy: round-robin}}"),
    ));
    let caller = Sidecar::caller(&control_plane).await;
    for number in 0..20 {
        let answer = send(&caller, "POST", "/", Some(100)).await;
        assert_eq!(
            answer.status,
            200,
            "request {number}: {} {}",
            answer.reason(),
            answer.text()
        );
    }
    assert_eq!(app.requests(), 20);
    let labels = [("service", "default/chat")];
    assert!(
        caller
            .metrics()
            .await
            .sum("outrigger_retries_total", &labels)
            >= 1.0
    );
}

#[tokio::test]
async fn the_budget_keeps_retries_from_multiplying_an_outage() {
    let mesh = with(
        "{attempts: 3, backoff: 1ms, maxBackoff: 1ms, budget: {percent: 10, minPerSecond: 1}}",
    )
    .await;
    let before = mesh.app.requests();
    const SENT: u64 = 200;
    let mut connection = client::Connection::http1(mesh.caller.outbound())
        .await
        .unwrap();
    for _ in 0..SENT {
        assert_eq!(
            connection.get("chat", "/status/503").await.unwrap().status,
            503
        );
    }
    let retried = mesh.app.requests() - before - SENT;
    // Without a budget there would be 600. With it: 10 % of 200, what the minimum allows in the seconds this takes and in
    // the window that the budget looks back.
    assert!(retried <= 60, "{retried} retries of {SENT} requests");
    assert!(retried >= 1, "nothing was retried");
    let labels = [("service", "default/chat"), ("why", "budget")];
    assert!(
        mesh.caller
            .metrics()
            .await
            .sum("outrigger_retries_refused_total", &labels)
            > 100.0
    );
}

#[tokio::test]
async fn a_try_that_takes_too_long_is_retried_where_the_policy_says_so() {
    let mesh = Mesh::start("").await;
    mesh.control_plane.apply(&route(
        "retried",
        "[{timeouts: {backendRequest: 300ms}, retry: {attempts: 1, onTimeout: true, backoff: 5ms}}]",
    ));
    eventually(
        "the policy is in effect",
        Duration::from_secs(5),
        async || {
            let before = mesh.app.requests();
            let answer = send(&mesh.caller, "GET", "/slow?ms=1500", None).await;
            let tries = mesh.app.requests() - before;
            match (answer.reason(), tries) {
                ("per-try-timeout", 2) => Ok(()),
                seen => Err(format!("{seen:?}")),
            }
        },
    )
    .await;
}
