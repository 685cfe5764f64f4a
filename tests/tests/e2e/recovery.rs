//! The examples about retries, hedges, timeouts and fallbacks, applied as they are.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use outrigger_tests::client::{self, Answer, full};
use outrigger_tests::upstream::{Http, Listener};
use outrigger_tests::{ControlPlane, Sidecar, eventually};

fn apply(control_plane: &ControlPlane, name: &str) {
    let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/policies");
    let file = policies.join(name);
    control_plane.ctl(&["apply", "-f", file.to_str().unwrap()]);
}

async fn post(to: SocketAddr, host: &str, path: &str, timeout: Option<&str>) -> Answer {
    let mut head = http::Request::builder()
        .method("POST")
        .uri(path)
        .header("host", host);
    if let Some(timeout) = timeout {
        head = head.header("x-request-timeout-ms", timeout);
    }
    client::request(to, head, full("{}")).await
}

#[tokio::test]
async fn retries() {
    let control_plane = ControlPlane::start().await;
    apply(&control_plane, "retries.yaml");
    let app = Http::start("embed").await;
    let _server = Sidecar::serving(&control_plane, "embed:80", app.address()).await;
    let caller = Sidecar::caller(&control_plane).await;
    caller.reaches("embed").await;
    let before = app.requests();
    let answer = post(caller.outbound(), "embed", "/flaky?key=a&fail=2", None).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(app.requests() - before, 3);
    let metrics = caller.metrics().await;
    let labels = [("service", "default/embed"), ("cause", "status")];
    assert_eq!(metrics.sum("outrigger_retries_total", &labels), 2.0);
}

#[tokio::test]
async fn hedging() {
    let control_plane = ControlPlane::start().await;
    apply(&control_plane, "hedging.yaml");
    // It accepts and says nothing.
    let hangs = Listener::start(|stream| async move {
        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(stream);
    })
    .await;
    let quick = Http::start("quick").await;
    let _slow = Sidecar::serving(&control_plane, "embed:80", hangs.address()).await;
    let _quick = Sidecar::serving(&control_plane, "embed:80", quick.address()).await;
    let caller = Sidecar::caller(&control_plane).await;
    caller.reaches("embed").await;
    // What was slow once is avoided: the hedge may have won already, for the request that tried whether the service is there.
    eventually("a hedge wins", Duration::from_secs(20), async || {
        let start = Instant::now();
        let answer = post(caller.outbound(), "embed", "/", None).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(start.elapsed() < Duration::from_secs(20));
        let attempts = answer.header("x-outrigger-attempts");
        assert!(matches!(attempts, "1" | "2"), "{attempts:?}");
        let labels = [("service", "default/embed"), ("result", "won")];
        let metrics = caller.metrics().await;
        match metrics.sum("outrigger_hedges_total", &labels) {
            1.0.. => Ok(()),
            won => Err(format!("{attempts} attempts, {won} won")),
        }
    })
    .await;
}

#[tokio::test]
async fn timeouts() {
    let control_plane = ControlPlane::start().await;
    apply(&control_plane, "timeouts.yaml");
    let app = Http::start("chat").await;
    let server = Sidecar::serving(&control_plane, "chat:80", app.address()).await;
    let caller = Sidecar::caller(&control_plane).await;
    caller.reaches("chat").await;
    // The rule's request clock is told, less what has passed.
    let answer = post(caller.outbound(), "chat", "/v1/embeddings", None).await;
    let told = answer.json()["headers"]["x-request-timeout-ms"].clone();
    let told: u64 = told.as_str().unwrap().parse().unwrap();
    assert!((1..=5000).contains(&told), "{told}");
    // The caller's wish shortens it, and the application is left alone.
    let start = Instant::now();
    let path = "/slow?ms=20000";
    let answer = post(caller.outbound(), "chat", path, Some("300")).await;
    assert_eq!(
        (answer.status.as_u16(), answer.reason()),
        (504, "request-timeout")
    );
    assert!(start.elapsed() < Duration::from_secs(10));
    eventually(
        "it is cancelled",
        Duration::from_secs(5),
        async || match app.in_flight() {
            0 => Ok(()),
            count => Err(format!("{count} in flight")),
        },
    )
    .await;
    drop(server);
}

#[tokio::test]
async fn fallbacks() {
    let control_plane = ControlPlane::start().await;
    apply(&control_plane, "fallbacks.yaml");
    let small = Http::start("small").await;
    let mut spare = Sidecar::serving(&control_plane, "chat-small:80", small.address()).await;
    let caller = Sidecar::caller(&control_plane).await;
    let ask = async |instance: &str, mark: &str, status: u16| {
        eventually(
            "the fallback answers",
            Duration::from_secs(15),
            async || {
                let answer = post(caller.outbound(), "chat", "/v1/chat/completions", None).await;
                let found = (
                    answer.status.as_u16(),
                    answer.header("x-outrigger-fallback").to_owned(),
                    answer.instance().to_owned(),
                );
                if found == (status, mark.to_owned(), instance.to_owned()) {
                    return Ok(answer);
                }
                Err(format!("{found:?} {}", answer.text()))
            },
        )
        .await
    };
    // Nobody serves chat.
    ask("small", "default/chat-small", 200).await;
    let labels = [
        ("service", "default/chat"),
        ("cause", "no-endpoints"),
        ("to", "default/chat-small"),
    ];
    let metrics = caller.metrics().await;
    assert!(metrics.sum("outrigger_fallbacks_total", &labels) >= 1.0);
    // It comes, and is preferred.
    let app = Http::start("chat").await;
    let mut server = Sidecar::serving(&control_plane, "chat:80", app.address()).await;
    ask("chat", "", 200).await;
    // Both go.
    server.sigterm();
    spare.sigterm();
    let answer = ask("", "response", 503).await;
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.json()["error"]["type"], "server_error");
    let _ = (server.process(), spare.process());
}
