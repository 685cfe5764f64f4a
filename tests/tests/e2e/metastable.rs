//! Metastable failures (Huang et al., "Metastable Failures in the Wild", OSDI 2022): an overload that is over, and retries that
//! keep it up. Once with what prevents it, and once without, to see that it is there to be prevented.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use outrigger_tests::client::{self, empty};
use outrigger_tests::eventually;
use tokio::task::JoinSet;

use crate::mesh::{Mesh, service};

/// The application does 80 requests a second: four at a time, 50 ms each.
const USUAL: u64 = 45;
const OVERLOAD: u64 = 200;
const SPAN: Duration = Duration::from_secs(3);

/// Requests a second, whatever becomes of those before. Each is tried three times, and given up after 400 ms each time. Per
/// cent of them that were answered.
async fn offer(to: SocketAddr, rate: u64) -> u64 {
    let (good, mut all) = (Arc::new(AtomicU64::new(0)), JoinSet::new());
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate as u32);
    let requests = rate * SPAN.as_secs();
    for _ in 0..requests {
        ticks.tick().await;
        let good = Arc::clone(&good);
        all.spawn(async move {
            for _ in 0..3 {
                let head = http::Request::builder()
                    .uri("/work?ms=50")
                    .header("host", "chat");
                let asked = client::try_request(to, head, empty());
                let answer = tokio::time::timeout(Duration::from_millis(400), asked).await;
                if matches!(answer, Ok(Ok(answer)) if answer.status == 200) {
                    good.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }
    while all.join_next().await.is_some() {}
    good.load(Ordering::Relaxed) * 100 / requests
}

/// Per cent of the requests that are answered before an overload, in it, and twelve seconds after it.
async fn before_during_and_after(spec: &str, shows: &str) -> (Mesh, [u64; 3]) {
    let mesh = Mesh::start("").await;
    mesh.control_plane.apply(&service("chat", spec));
    eventually("it is in effect", Duration::from_secs(10), async || {
        let both = [&mesh.caller, &mesh.server];
        for sidecar in both {
            let config = sidecar.admin("/config").await.text();
            if config.contains(shows) {
                return Ok(());
            }
        }
        Err("not yet".to_owned())
    })
    .await;
    let to = mesh.caller.outbound();
    let before = offer(to, USUAL).await;
    let during = offer(to, OVERLOAD).await;
    // The usual load goes on, and nothing else is done.
    for _ in 0..4 {
        offer(to, USUAL).await;
    }
    let after = offer(to, USUAL).await;
    (mesh, [before, during, after])
}

#[tokio::test]
async fn goodput_returns_after_an_overload_with_retries() {
    let (mesh, found) = before_during_and_after(
        "retry: {attempts: 3, codes: [503], backoff: 5ms}\n\
         limits: {concurrency: 4, queue: {maxLength: 50, maxWait: 300ms, target: 20ms}, throttling: {window: 10s}}",
        "\"queue\"",
    )
    .await;
    let [before, during, after] = found;
    assert!(before >= 80, "{found:?}");
    let rejected = [("direction", "inbound")];
    let metrics = mesh.server.metrics().await;
    let rejected = metrics.sum("outrigger_rejections_total", &rejected);
    assert!(rejected > 0.0, "it was no overload: {found:?}");
    // It goes on with what it can do while it is asked for much more.
    assert!(during >= 10, "{found:?}");
    assert!(after >= 80, "{found:?}");
}

/// The control: without limits, and with retries that nothing bounds, the same overload stays when its cause is gone. Where this
/// one fails, the test above shows nothing.
#[tokio::test]
async fn without_limits_the_overload_keeps_itself_up() {
    let (_mesh, found) = before_during_and_after(
        "retry: {attempts: 2, codes: [503], backoff: 5ms, budget: {percent: 100, minPerSecond: 1000}}",
        "\"min_per_second\"",
    )
    .await;
    let [before, _, after] = found;
    assert!(before >= 80, "{found:?}");
    assert!(after <= 30, "{found:?}");
}
