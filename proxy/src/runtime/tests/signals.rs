//! What a model server says of its load is known at the callers' sidecars, and nowhere else.

use std::time::Duration;

use http::Response;
use http_body_util::Full;
use hyper::body::Bytes;

use super::client;
use super::mesh::{Calls, Pair, application, plain, text};
use crate::balance::LoadReport;
use crate::inference::engine::scrape;
use crate::policy::{EngineSource, HostEntry, Inference};

fn calls(expose_load: bool) -> Calls {
    let inference = Inference {
        max_body_bytes: 1 << 20,
        engine: Some(EngineSource {
            engine: None,
            path: None,
            port: None,
            interval: Duration::from_millis(20),
        }),
        expose_load,
        ..Inference::default()
    };
    Calls {
        inference: Some(inference),
        ..Calls::default()
    }
}

fn reported(pair: &Pair) -> Option<LoadReport> {
    let snapshot = pair.caller.shared.snapshot.load();
    let Some(HostEntry::Service { service, .. }) = snapshot.hosts.get("chat") else {
        panic!("no service");
    };
    let endpoints = service.upstream.endpoints.endpoints();
    endpoints[0].load.reported().map(|(report, _)| report)
}

/// A pair whose application has metrics and answers with a report of its own; what it reports is nothing known.
async fn pair(expose_load: bool) -> Pair {
    let app = application(|request| async move {
        if request.uri().path() == "/metrics" {
            return text("vllm:num_requests_waiting 7\nvllm:num_requests_running 19\nvllm:kv_cache_usage_perc 0.5\n");
        }
        Response::builder()
            .header("endpoint-load-metrics", "TEXT cpu_utilization=0.3")
            .header("endpoint-load-metrics-bin", "CZqZmZmZmbk/")
            .body(Full::new(Bytes::from_static(b"fine")))
            .unwrap()
    })
    .await;
    let pair = Pair::new(calls(expose_load), app);
    tokio::spawn(scrape::run(pair.server.shared.clone()));
    let known = ["outrigger_engine_requests_waiting", "engine=\"vllm\"", " 7"];
    pair.server.expect_metric(&known).await;
    pair
}

#[tokio::test]
async fn a_queue_shows_up_at_the_callers_sidecar_and_the_client_sees_no_report() {
    let pair = pair(false).await;
    assert_eq!(reported(&pair), None);
    let answer = client::get(pair.caller.outbound(), "/").await;
    assert_eq!(answer.head.status, 200);
    assert_eq!(answer.head.get("endpoint-load-metrics"), None);
    assert_eq!(answer.head.get("endpoint-load-metrics-bin"), None);
    let report = reported(&pair).unwrap();
    assert_eq!(report.running, Some(19));
    // Its own request is one more, which has to wait like the others.
    assert!(matches!(report.waiting, Some(7 | 8)), "{report:?}");
    assert_eq!(report.kv_usage, Some(0.5));
    let taken = ["outrigger_load_reports_total", "accepted", " 1"];
    pair.caller.expect_metric(&taken).await;
}

#[tokio::test]
async fn a_policy_lets_clients_see_the_report() {
    let pair = pair(true).await;
    let answer = client::get(pair.caller.outbound(), "/").await;
    let value = answer.head.get("endpoint-load-metrics").unwrap();
    assert!(value.contains("num_requests_running=19"), "{value}");
}

#[tokio::test]
async fn who_has_not_proved_who_it_is_is_not_believed() {
    let app = application(|_| async {
        Response::builder()
            .header(
                "endpoint-load-metrics",
                "TEXT named_metrics.num_requests_waiting=0",
            )
            .body(Full::new(Bytes::from_static(b"fine")))
            .unwrap()
    })
    .await;
    let caller = plain(calls(false), &[app]);
    let answer = client::get(caller.outbound(), "/").await;
    assert_eq!(answer.head.get("endpoint-load-metrics"), None);
    let taken = ["outrigger_load_reports_total", "untrusted", " 1"];
    caller.expect_metric(&taken).await;
    let snapshot = caller.shared.snapshot.load();
    let Some(HostEntry::Service { service, .. }) = snapshot.hosts.get("chat") else {
        panic!("no service");
    };
    assert!(
        service.upstream.endpoints.endpoints()[0]
            .load
            .reported()
            .is_none()
    );
}
