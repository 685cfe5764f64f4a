//! Limits on both sides of a pair.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use http::{Method, Response, StatusCode};
use http_body_util::Full;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::client::{Whole, get, once};
use super::mesh::{Calls, Onto, Pair, Sidecar, application, plain, retry, serving, text};
use crate::admission::{
    Counted, Gate, KeyPart, Limit, QueueSettings, Rate, RateLimit, RateLimitCounts, RateLimits,
};
use crate::policy::{
    CallerLimits, Cause, Concurrency, Hedge, InboundPort, Protocol, Retry, ServerLimits,
};
use crate::telemetry::Direction;

/// Answers `/held` when it is let go, and everything else at once.
struct Held {
    address: SocketAddr,
    go: Arc<Semaphore>,
    seen: Arc<AtomicUsize>,
}

async fn held() -> Held {
    let go = Arc::new(Semaphore::new(0));
    let seen = Arc::new(AtomicUsize::new(0));
    let (going, count) = (Arc::clone(&go), Arc::clone(&seen));
    let address = application(move |request| {
        count.fetch_add(1, SeqCst);
        let going = Arc::clone(&going);
        async move {
            if request.uri().path() == "/held" {
                going.acquire().await.unwrap().forget();
            }
            text("done")
        }
    })
    .await;
    Held { address, go, seen }
}

fn limited(limits: CallerLimits) -> Calls {
    Calls {
        limits: Some(limits),
        ..Calls::default()
    }
}

fn later(to: SocketAddr, path: &'static str) -> JoinHandle<Whole> {
    tokio::spawn(async move { get(to, path).await })
}

/// Places in use at the caller.
fn in_use(caller: &Sidecar, counted: Counted) -> u32 {
    let snapshot = caller.shared.snapshot.load();
    let limits = snapshot.services["default/chat"].upstream.limits.as_ref();
    limits.unwrap().usage.get(counted)
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..1000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

#[tokio::test]
async fn a_place_is_taken_until_the_last_byte_and_what_is_above_is_refused() {
    let by_service = CallerLimits {
        requests: Some(1),
        ..CallerLimits::default()
    };
    let by_endpoint = CallerLimits {
        endpoint_requests: Some(1),
        ..CallerLimits::default()
    };
    for (limits, name) in [(by_service, "requests"), (by_endpoint, "endpoint-requests")] {
        let app = held().await;
        let pair = Pair::new(limited(limits), app.address);
        let first = later(pair.address(), "/held");
        until("the first", || in_use(&pair.caller, Counted::Requests) == 1).await;
        until("the first is there", || pair.server.in_flight() == 1).await;
        let refused = get(pair.address(), "/").await;
        assert_eq!(
            (refused.head.status, refused.head.reason()),
            (503, "circuit-open"),
            "{name}"
        );
        let limit = format!("limit=\"{name}\"");
        pair.caller
            .expect_metric(&["outrigger_rejections_total", "outbound", &limit, "} 1"])
            .await;
        app.go.add_permits(1);
        assert_eq!(first.await.unwrap().body, "done");
        pair.caller.idle().await;
        assert_eq!(in_use(&pair.caller, Counted::Requests), 0);
        assert_eq!(get(pair.address(), "/").await.head.status, 200);
    }
}

fn failing() -> Retry {
    Retry {
        statuses: vec![StatusCode::SERVICE_UNAVAILABLE],
        ..retry(3)
    }
}

async fn unavailable() -> SocketAddr {
    application(|_| async {
        let answer = Response::builder().status(StatusCode::SERVICE_UNAVAILABLE);
        answer.body(Full::from("no")).unwrap()
    })
    .await
}

#[tokio::test]
async fn retries_and_hedges_take_places_among_the_retries() {
    let none = CallerLimits {
        retries: Some(0),
        ..CallerLimits::default()
    };
    let mut calls = limited(none);
    calls.retry = Some(failing());
    let caller = plain(calls.clone(), &[unavailable().await]);
    assert_eq!(get(caller.outbound(), "/").await.head.status, 503);
    let line = &caller.log_lines(1).await[0];
    assert_eq!(
        (&line["attempts"], &line["not_retried"]),
        (&1.into(), &"limit".into())
    );

    calls.hedge = Some(Hedge {
        delay: Duration::from_millis(10),
        max_requests: 2,
        methods: vec![Method::GET],
    });
    let (one, other) = (held().await, held().await);
    let caller = plain(calls.clone(), &[one.address, other.address]);
    let asked = later(caller.outbound(), "/held");
    caller
        .expect_metric(&["outrigger_hedges_total", "result=\"limit\"", "} 1"])
        .await;
    one.go.add_permits(1);
    other.go.add_permits(1);
    assert_eq!(asked.await.unwrap().body, "done");
    assert_eq!(caller.log_lines(1).await[0]["attempts"], 1);

    // With one place the first hedge has it until there is an answer, and the second request gets none.
    calls.limits.as_mut().unwrap().retries = Some(1);
    let (one, other) = (held().await, held().await);
    let caller = plain(calls, &[one.address, other.address]);
    let first = later(caller.outbound(), "/held");
    until("its hedge", || in_use(&caller, Counted::Retries) == 1).await;
    let second = later(caller.outbound(), "/held");
    caller
        .expect_metric(&["outrigger_hedges_total", "result=\"limit\"", "} 1"])
        .await;
    for app in [&one, &other] {
        app.go.add_permits(4);
    }
    for asked in [first, second] {
        assert_eq!(asked.await.unwrap().body, "done");
    }
    caller.idle().await;
    assert_eq!(in_use(&caller, Counted::Retries), 0);
}

#[tokio::test]
async fn a_fallback_holds_no_place_at_the_service_that_failed() {
    let spare = held().await;
    let one = CallerLimits {
        requests: Some(1),
        ..CallerLimits::default()
    };
    let mut calls = limited(one);
    calls.fallbacks = vec![(
        [Cause::ServerError].into_iter().collect(),
        Onto::Service("default/spare", vec![spare.address]),
    )];
    let caller = plain(calls, &[unavailable().await]);
    let mut running = Vec::new();
    for count in ["} 1", "} 2"] {
        running.push(later(caller.outbound(), "/held"));
        // The second one finds the one place that there is free.
        caller
            .expect_metric(&["outrigger_fallbacks_total", "cause=\"server-error\"", count])
            .await;
        until("the fallback", || spare.seen.load(SeqCst) == running.len()).await;
        assert_eq!(in_use(&caller, Counted::Requests), 0);
    }
    spare.go.add_permits(2);
    for asked in running {
        assert_eq!(asked.await.unwrap().body, "done");
    }
}

#[tokio::test]
async fn a_service_that_refuses_is_asked_less() {
    let throttled = CallerLimits {
        throttling: Some((2.0, Duration::from_secs(60))),
        ..CallerLimits::default()
    };
    let caller = plain(limited(throttled), &[unavailable().await]);
    let mut kept_back = 0;
    for _ in 0..60 {
        let answer = get(caller.outbound(), "/").await;
        kept_back += usize::from(answer.head.reason() == "throttled");
    }
    // n/(n + 1) of the n-th: all but a handful.
    assert!((30..60).contains(&kept_back), "{kept_back}");
}

/// The server's side of a pair, with limits.
fn serve(pair: &Pair, app: SocketAddr, change: impl FnOnce(&mut InboundPort)) {
    let mut snapshot = serving(app, Protocol::Http);
    let port = snapshot.inbound.values_mut().next().unwrap();
    change(Arc::get_mut(port).unwrap());
    pair.server.set(snapshot);
}

fn gate(pair: &Pair, max_length: Option<usize>) -> Arc<Gate> {
    let service: Arc<str> = "default/chat".into();
    let metrics = &pair.server.shared.metrics;
    let limits = ServerLimits {
        concurrency: Concurrency::Fixed(1),
        queue: max_length.map(|max_length| QueueSettings {
            max_length,
            max_wait: Duration::from_secs(30),
            target: Duration::from_secs(10),
            interval: Duration::from_secs(20),
        }),
        priorities: None,
    };
    Gate::new(
        limits,
        metrics.refusals(Direction::Inbound, &service),
        metrics.queue_waits(&service),
    )
}

#[tokio::test]
async fn who_waits_for_the_application_gets_its_turn_and_the_log_says_how_long_it_took() {
    let app = held().await;
    let pair = Pair::new(Calls::default(), app.address);
    let gate = gate(&pair, Some(1));
    serve(&pair, app.address, |port| {
        port.gate = Some(Arc::clone(&gate))
    });
    let first = later(pair.address(), "/held");
    until("the first", || gate.in_use() == 1).await;
    let second = later(pair.address(), "/");
    until("the second", || gate.waiting() == 1).await;
    let refused = get(pair.address(), "/").await;
    assert_eq!(
        (refused.head.status, refused.head.reason()),
        (503, "overloaded")
    );
    assert_eq!(refused.head.get("retry-after"), Some("30"));
    assert_eq!(gate.refusals.get(Limit::QueueFull), 1);
    app.go.add_permits(1);
    assert_eq!(first.await.unwrap().body, "done");
    assert_eq!(second.await.unwrap().body, "done");
    until("free places", || gate.in_use() == 0).await;
    // In the order of their ends: the one that was refused first.
    let lines = pair.server.log_lines(3).await;
    for line in &lines {
        assert_eq!(line["priority"], "default", "{line}");
        assert!(line["queue_ms"].is_number(), "{line}");
    }
    let waited = lines.iter().map(|line| line["queue_ms"].as_f64().unwrap());
    assert!(waited.fold(0.0, f64::max) > 0.0);
    // The caller's side has no queue.
    let lines = pair.caller.log_lines(3).await;
    assert!(lines.iter().all(|line| line["queue_ms"].is_null()));
}

#[tokio::test]
async fn a_client_that_leaves_the_queue_leaves_no_place_taken() {
    let app = held().await;
    let pair = Pair::new(Calls::default(), app.address);
    let gate = gate(&pair, Some(10));
    serve(&pair, app.address, |port| {
        port.gate = Some(Arc::clone(&gate))
    });
    let first = later(pair.address(), "/held");
    until("the first", || gate.in_use() == 1).await;
    let leaving = later(pair.address(), "/");
    until("who waits", || gate.waiting() == 1).await;
    leaving.abort();
    until("nobody waits", || gate.waiting() == 0).await;
    app.go.add_permits(1);
    assert_eq!(first.await.unwrap().body, "done");
    until("free places", || gate.in_use() == 0).await;
    assert_eq!(get(pair.address(), "/").await.head.status, 200);
}

#[tokio::test]
async fn a_rate_is_each_tenants_own_and_says_nothing_of_the_endpoint() {
    let app = held().await;
    let pair = Pair::new(Calls::default(), app.address);
    let key = vec![
        KeyPart::Identity,
        KeyPart::Header(http::HeaderName::from_static("x-tenant")),
    ];
    let limits = RateLimits {
        limits: vec![RateLimit {
            policy: "default/limits".into(),
            name: "each".into(),
            matches: Vec::new(),
            counts: Arc::new(RateLimitCounts::new(&key, 100)),
            key,
            rate: Rate::new(2, Duration::from_secs(3600), 2),
            always_report: true,
        }],
        budgets: Vec::new(),
        refusals: Arc::default(),
    };
    serve(&pair, app.address, |port| {
        port.rate_limits = Some(Arc::new(limits));
    });
    for tenant in ["a", "b"] {
        let head = format!("GET / HTTP/1.1\r\nhost: chat\r\nx-tenant: {tenant}\r\n\r\n");
        for left in ["1", "0"] {
            let answer = once(pair.address(), &head).await;
            assert_eq!(answer.head.status, 200);
            assert_eq!(answer.head.get("ratelimit-remaining"), Some(left));
        }
        let refused = once(pair.address(), &head).await;
        assert_eq!(
            (refused.head.status, refused.head.reason()),
            (429, "rate-limited")
        );
        let wait = refused.head.get("retry-after").unwrap();
        assert!((1790..=1800).contains(&wait.parse().unwrap()), "{wait}");
    }
    let snapshot = pair.caller.shared.snapshot.load();
    let endpoints = &snapshot.services["default/chat"].upstream.endpoints;
    assert_eq!(endpoints.stats()[0].failures, 0);
}
