//! Certificates are renewed under load and nobody notices.

use std::time::Duration;

use outrigger_tests::load::Load;
use outrigger_tests::upstream::Http;
use outrigger_tests::{ControlPlane, Sidecar, client, eventually};

use crate::mesh::service;

#[tokio::test]
async fn renewals_close_no_connection_and_fail_no_request() {
    let control_plane = ControlPlane::start_with(&["--certificate-lifetime=20s"]).await;
    control_plane.apply(&service("chat", ""));
    let app = Http::start("chat").await;
    let server = Sidecar::serving(&control_plane, "chat:80", app.address()).await;
    let caller = Sidecar::caller(&control_plane).await;
    caller.reaches("chat").await;

    // Longer than the lifetime of the certificate with which its connection was made.
    let to = caller.outbound();
    let stream = tokio::spawn(async move {
        let head = http::Request::builder()
            .uri("/sse?n=52&ms=500")
            .header("host", "chat");
        client::try_request_within(Duration::from_secs(60), to, head, client::empty()).await
    });
    let load = Load::start(caller.outbound(), "chat", 4);
    for sidecar in [&server, &caller] {
        eventually("two renewals", Duration::from_secs(60), async || {
            let metrics = sidecar.metrics().await;
            let renewals = metrics.sum("outrigger_certificate_renewals_total", &[("result", "ok")]);
            // The first certificate may be counted as one.
            if renewals >= 3.0 {
                Ok(())
            } else {
                Err(format!("{renewals} renewals"))
            }
        })
        .await;
    }
    // The certificates that they started with have ended: only renewed ones let a new connection in.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let second = Sidecar::caller(&control_plane).await;
    second.reaches("chat").await;
    load.runs(50).await;
    load.stop().await.assert_no_failure();
    let answer = stream.await.unwrap().unwrap();
    assert!(
        answer.text().ends_with("data: [DONE]\n\n"),
        "a renewal cut a stream"
    );
    for sidecar in [&server, &caller] {
        let metrics = sidecar.metrics().await;
        let expiry = metrics
            .get("outrigger_certificate_expiry_timestamp_seconds", &[])
            .unwrap();
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs_f64();
        assert!(expiry > now, "expired {} s ago", now - expiry);
        let failures = metrics.sum("outrigger_tls_handshakes_total", &[])
            - metrics.sum("outrigger_tls_handshakes_total", &[("result", "ok")]);
        assert_eq!(failures, 0.0, "handshakes failed");
    }
}
