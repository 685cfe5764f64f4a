#![allow(clippy::unwrap_used)]

use http::StatusCode;

use super::*;
use crate::error::Reason;
use crate::telemetry::Outcome;

const OWN: &str = "spiffe://outrigger.local/ns/default/sa/frontend";

fn request(
    metrics: &Metrics,
    direction: Direction,
    service: &str,
    route: &str,
    peer: &str,
    failed: bool,
) {
    let handles = metrics.request(direction, service, route, peer);
    handles.begin();
    handles.finish(&Outcome {
        status: Some(if failed {
            StatusCode::BAD_GATEWAY
        } else {
            StatusCode::OK
        }),
        reason: failed.then_some(Reason::UpstreamReset),
        duration: Duration::from_millis(250),
        first_byte: None,
        request_bytes: 10,
        response_bytes: 1000,
    });
}

#[tokio::test(start_paused = true)]
async fn a_report_holds_what_is_new() {
    let metrics = Metrics::new();
    request(
        &metrics,
        Direction::Outbound,
        "default/chat",
        "",
        "default/chat",
        false,
    );
    let mut reporter = Reporter::new("one".to_owned(), &metrics);
    assert!(
        reporter.collect(&metrics, OWN).edges.is_empty(),
        "what was before the first report is no news"
    );

    request(
        &metrics,
        Direction::Outbound,
        "default/chat",
        "",
        "default/chat",
        false,
    );
    // Another route to the same backend is the same edge.
    request(
        &metrics,
        Direction::Outbound,
        "default/front",
        "default/r",
        "default/chat",
        true,
    );
    request(
        &metrics,
        Direction::Inbound,
        "default/embed",
        "",
        "spiffe://outrigger.local/ns/default/sa/x",
        false,
    );
    let open = metrics.request(
        Direction::Inbound,
        "default/embed",
        "",
        "spiffe://outrigger.local/ns/default/sa/x",
    );
    open.begin();
    tokio::time::advance(INTERVAL).await;
    let report = reporter.collect(&metrics, OWN);
    assert_eq!(report.instance, "one");
    assert_eq!(report.window.unwrap().seconds, 10);
    assert!(report.at.unwrap().seconds > 1_700_000_000);
    let [outbound, inbound] = report.edges.as_slice() else {
        panic!("{:?}", report.edges)
    };
    assert_eq!(
        *outbound,
        proto::Edge {
            direction: proto::Direction::Outbound.into(),
            source: OWN.to_owned(),
            service: "default/chat".to_owned(),
            requests: 2,
            failures: 1,
            duration_ms_sum: 500.0,
            request_bytes: 20,
            response_bytes: 2000,
            in_flight: 0,
        }
    );
    assert_eq!(inbound.direction(), proto::Direction::Inbound);
    assert_eq!(inbound.source, "spiffe://outrigger.local/ns/default/sa/x");
    assert_eq!(
        (
            inbound.service.as_str(),
            inbound.requests,
            inbound.in_flight
        ),
        ("default/embed", 1, 1)
    );

    // Nothing new but the request that is still under way.
    let report = reporter.collect(&metrics, OWN);
    assert_eq!(report.edges.len(), 1);
    assert_eq!(
        (report.edges[0].requests, report.edges[0].in_flight),
        (0, 1)
    );
}

#[test]
fn the_busiest_edges_are_kept() {
    let metrics = Metrics::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let _entered = runtime.enter();
    let mut reporter = Reporter::new("one".to_owned(), &metrics);
    for n in 0..MAX_EDGES + 200 {
        let service = format!("default/s{n}");
        request(&metrics, Direction::Outbound, &service, "", "", false);
        if n >= MAX_EDGES {
            request(&metrics, Direction::Outbound, &service, "", "", false);
        }
    }
    let report = reporter.collect(&metrics, OWN);
    assert_eq!(report.edges.len(), MAX_EDGES);
    assert_eq!(
        report
            .edges
            .iter()
            .filter(|edge| edge.requests == 2)
            .count(),
        200
    );
    assert_eq!(report.edges[0].requests, 2, "busiest first");
}
