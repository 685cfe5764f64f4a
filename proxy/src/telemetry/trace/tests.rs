use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, Method, StatusCode};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::time::{Instant, advance};

use super::*;
use crate::balance::Endpoint;
use crate::balance::simulation;
use crate::error::Reason;
use crate::telemetry::access_log::{Entry, RequestLine};
use crate::telemetry::{Direction, Outcome};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn tracing(sampling_percent: f64) -> Tracing {
    Tracing {
        endpoint: "http://127.0.0.1:1".into(),
        sampling_percent,
        roots: Vec::new(),
    }
}

fn headers(all: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in all {
        headers.append(*name, HeaderValue::from_static(value));
    }
    headers
}

fn start(percent: f64, may_begin: bool, headers: &mut HeaderMap) -> Option<std::rc::Rc<Trace>> {
    let has_parent = headers.contains_key("traceparent");
    let mut rng = SmallRng::seed_from_u64(1);
    begin(&tracing(percent), has_parent, may_begin, headers, &mut rng)
}

fn entry(direction: Direction, outcome: Outcome) -> Entry {
    Entry {
        time: SystemTime::UNIX_EPOCH + Duration::from_secs(1),
        direction,
        request: Some(RequestLine {
            method: Method::from_bytes(b"FROBNICATE").unwrap(),
            uri: "/a/b?secret=1".parse().unwrap(),
            host: Some(HeaderValue::from_static("chat:8080")),
            request_id: None,
            traceparent: None,
        }),
        protocol: "h2",
        outcome,
        service: "default/chat".into(),
        route: "".into(),
        upstream: None,
        peer: None,
        client: None,
        attempts: 1,
        not_retried: None,
        filter: None,
        fallback: None,
        cache_salt: None,
        turn: None,
        model: None,
    }
}

fn told(ended: Ended) -> Vec<Span> {
    assert_eq!(ended.spans() as usize, {
        let spans = otlp::request(&otlp::resource(&teller()), [].into_iter());
        assert!(spans.resource_spans[0].scope_spans[0].spans.is_empty());
        match ended.tries.len() {
            0 | 1 => 1,
            several => several + 1,
        }
    });
    let request = otlp::request(&otlp::resource(&teller()), [ended].into_iter());
    request.resource_spans[0].scope_spans[0].spans.clone()
}

fn endpoint(number: u8) -> Arc<Endpoint> {
    simulation::endpoint(([192, 0, 2, number], 80).into())
}

fn teller() -> Teller {
    Teller {
        name: "caller".into(),
        namespace: "default".into(),
        instance: "run".into(),
        zone: "".into(),
    }
}

fn attribute(span: &Span, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|it| it.key == key)?;
    Some(format!("{:?}", found.value.as_ref()?.value.as_ref()?))
}

#[test]
fn who_is_sampled() {
    let unsampled = PARENT.replace("-01", "-00");
    let unsampled: &'static str = unsampled.leak();
    // What arrives has decided, whatever the share.
    for percent in [0.0, 100.0] {
        let mut arrived = headers(&[("traceparent", PARENT), ("tracestate", "a=1")]);
        assert!(start(percent, false, &mut arrived).is_some());
        let made = arrived["traceparent"].to_str().unwrap();
        assert_eq!((&made[..36], &made[52..]), (&PARENT[..36], "-01"));
        assert_ne!(made, PARENT);
        assert_eq!(arrived["tracestate"], "a=1");
        let mut arrived = headers(&[("traceparent", unsampled)]);
        assert!(start(percent, true, &mut arrived).is_none());
        assert_eq!(arrived["traceparent"], unsampled);
    }
    // What does not is sampled where it may begin.
    assert!(start(0.0, true, &mut headers(&[])).is_none());
    assert!(start(100.0, false, &mut headers(&[])).is_none());
    let bad = [
        &[("tracestate", "a=1")][..],
        &[("traceparent", "00-no"), ("tracestate", "a=1")],
        &[
            ("traceparent", PARENT),
            ("traceparent", PARENT),
            ("tracestate", "a=1"),
        ],
    ];
    for all in bad {
        let mut arrived = headers(all);
        assert!(start(100.0, true, &mut arrived).is_some());
        assert_eq!(arrived.get_all("traceparent").iter().count(), 1);
        assert_ne!(arrived["traceparent"], PARENT);
        assert_eq!(arrived.get("tracestate"), None);
    }
}

#[tokio::test(start_paused = true)]
async fn one_try_is_one_span() {
    let started = Instant::now();
    let mut arrived = headers(&[("traceparent", PARENT)]);
    let trace = start(0.0, true, &mut arrived).unwrap();
    let trying = trace.try_at(&endpoint(1));
    assert_eq!(trying.header(), None, "the request's own will do");
    advance(Duration::from_secs(1)).await;
    trying.end(TryEnd::Answered(StatusCode::OK));
    let outcome = Outcome {
        status: Some(StatusCode::OK),
        duration: Duration::from_secs(3),
        ..Outcome::default()
    };
    let spans = told(trace.end(entry(Direction::Outbound, outcome), started));
    let [span] = &spans[..] else {
        panic!("{spans:?}");
    };
    assert_eq!(span.kind(), SpanKind::Client);
    assert_eq!(
        span.name, "HTTP default/chat",
        "a client's own word is none"
    );
    assert_eq!(span.start_time_unix_nano, 1_000_000_000);
    assert_eq!(span.end_time_unix_nano, 4_000_000_000);
    assert_eq!(
        attribute(span, "url.full").unwrap(),
        "StringValue(\"http://chat:8080/a/b\")"
    );
    assert_eq!(attribute(span, "server.port").unwrap(), "IntValue(8080)");
    assert!(attribute(span, "network.peer.address").is_some());
    assert_eq!(span.status, None);
}

#[tokio::test(start_paused = true)]
async fn several_tries_have_spans_of_their_own() {
    let started = Instant::now();
    let mut arrived = headers(&[("traceparent", PARENT)]);
    let trace = start(0.0, true, &mut arrived).unwrap();
    let first = trace.try_at(&endpoint(1));
    advance(Duration::from_secs(1)).await;
    first.end(TryEnd::Failed(Reason::ConnectFailed));
    let lost = trace.try_at(&endpoint(2));
    let won = trace.try_at(&endpoint(3));
    assert_ne!(lost.header(), won.header());
    let told_to_won = won.header().unwrap();
    advance(Duration::from_secs(1)).await;
    won.end(TryEnd::Answered(StatusCode::OK));
    drop(lost);
    let outcome = Outcome {
        status: Some(StatusCode::OK),
        duration: Duration::from_secs(5),
        ..Outcome::default()
    };
    let spans = told(trace.end(entry(Direction::Outbound, outcome), started));
    let [around, tries @ ..] = &spans[..] else {
        panic!("{spans:?}");
    };
    assert_eq!(around.kind(), SpanKind::Internal);
    assert_eq!(around.parent_span_id[..2], [0, 0xf0]);
    let ids: std::collections::HashSet<_> = spans.iter().map(|it| &it.span_id).collect();
    assert_eq!(ids.len(), 4, "all are different");
    let ends: Vec<_> = tries
        .iter()
        .map(|it| it.end_time_unix_nano / 1_000_000_000 - 1)
        .collect();
    assert_eq!(ends, [1, 2, 5], "the winner's answer went on");
    assert!(tries.iter().all(|it| it.parent_span_id == around.span_id));
    assert!(tries[0].status.is_some());
    assert!(attribute(&tries[1], "outrigger.given_up").is_some());
    assert!(attribute(&tries[2], "outrigger.given_up").is_none());
    let first_id = arrived["traceparent"].to_str().unwrap();
    let hex = |id: &[u8]| id.iter().map(|b| format!("{b:02x}")).collect::<String>();
    assert!(first_id.contains(&hex(&tries[0].span_id)));
    assert!(
        told_to_won
            .to_str()
            .unwrap()
            .contains(&hex(&tries[2].span_id))
    );
}

#[test]
fn what_is_an_error() {
    let told = |direction, status: Option<u16>, reason| {
        let trace = start(0.0, true, &mut headers(&[("traceparent", PARENT)])).unwrap();
        let outcome = Outcome {
            status: status.map(|it| StatusCode::from_u16(it).unwrap()),
            reason,
            ..Outcome::default()
        };
        let spans = told(trace.end(entry(direction, outcome), Instant::now()));
        let error = attribute(&spans[0], "error.type");
        assert_eq!(error.is_some(), spans[0].status.is_some());
        error
    };
    use Direction::{Inbound, Outbound};
    assert_eq!(told(Outbound, Some(200), None), None);
    assert_eq!(told(Inbound, Some(404), None), None);
    let text = |text: &str| Some(format!("StringValue({text:?})"));
    assert_eq!(told(Outbound, Some(404), None), text("404"));
    assert_eq!(told(Inbound, Some(503), None), text("503"));
    let limited = Some(Reason::RateLimited);
    assert_eq!(told(Inbound, Some(429), limited), None);
    assert_eq!(told(Outbound, Some(429), limited), text("rate-limited"));
    let cut = Some(Reason::UpstreamTruncated);
    assert_eq!(told(Inbound, Some(200), cut), text("upstream-truncated"));
    let gone = Some(Reason::ClientGone);
    for direction in Direction::ALL {
        assert_eq!(told(direction, Some(499), gone), None);
        assert_eq!(told(direction, None, gone), None);
    }
}

#[test]
fn texts_are_cut_between_characters() {
    let mut long = entry(Direction::Inbound, Outcome::default());
    long.service = "ü".repeat(2000).into();
    let trace = start(0.0, true, &mut headers(&[("traceparent", PARENT)])).unwrap();
    let spans = told(trace.end(long, Instant::now()));
    let service = attribute(&spans[0], "outrigger.service").unwrap();
    assert!(service.len() < 1100);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_costs_spans_and_not_time() {
    let traces = Traces::default();
    assert!(!traces.is_used());
    traces.follow(None, &teller());
    let wanted = Arc::new(tracing(0.0));
    traces.follow(Some(&wanted), &teller());
    traces.follow(Some(&Arc::new(tracing(0.0))), &teller());
    let one = || {
        let trace = start(0.0, true, &mut headers(&[("traceparent", PARENT)])).unwrap();
        trace.end(
            entry(Direction::Inbound, Outcome::default()),
            Instant::now(),
        )
    };
    // The exporter has no turn in between.
    for _ in 0..QUEUE + 10 {
        traces.record(one());
    }
    assert_eq!(traces.count(Fate::QueueFull), 10);
    assert!(traces.finish(Duration::from_secs(3600)).await);
    assert_eq!(traces.count(Fate::Unsent), QUEUE as u64);
    assert_eq!(traces.count(Fate::Exported), 0);
    traces.record(one());
    assert_eq!(traces.count(Fate::QueueFull), 10, "nobody misses it");
}
