//! A request that would wait for too long at one endpoint is asked elsewhere, before its client notices.

use std::sync::Arc;
use std::time::Duration;

use super::client::{self, Whole};
use super::mesh::{CHAT, Calls, Sidecar, application, calling, endpoint, server, serving, text};
use crate::admission::{Ask, BatchLimit, Gate, QueueSettings, Served};
use crate::balance::Policy;
use crate::policy::{Concurrency, Inference, Protocol, ServerLimits};
use crate::tls::test_ca::TestCa;

/// A replica with one place and one of head room.
struct Replica {
    sidecar: Sidecar,
    gate: Arc<Gate>,
}

impl Replica {
    /// `hold`: how long answers take, as far as it knows.
    async fn start(ca: &TestCa, name: &'static str, hold: Duration) -> Replica {
        let app = application(move |_| async move { text(name) }).await;
        let limits = ServerLimits {
            concurrency: Concurrency::Batch(BatchLimit {
                size: Some(1),
                head_room: 10,
                start: 1,
                max: 1,
            }),
            queue: Some(QueueSettings {
                max_length: 10,
                max_wait: Duration::from_secs(1),
                target: Duration::MAX,
                interval: Duration::MAX,
            }),
            priorities: None,
        };
        let gate = Gate::new(limits, Arc::default(), Arc::default());
        let hold = u64::try_from(hold.as_nanos()).unwrap();
        gate.settings().batch().unwrap().0.ended(hold, 2);
        let sidecar = server(ca, CHAT);
        let mut snapshot = serving(app, Protocol::Http);
        let port = snapshot.inbound.values_mut().next().unwrap();
        Arc::get_mut(port).unwrap().gate = Some(Arc::clone(&gate));
        sidecar.set(snapshot);
        Replica { sidecar, gate }
    }

    /// Takes both places.
    async fn fill(&self) -> [Served; 2] {
        let place = || self.gate.enter(Ask::default());
        [place().await.unwrap(), place().await.unwrap()]
    }
}

fn caller(ca: &TestCa, replicas: &[&Replica]) -> Sidecar {
    let calls = Calls {
        inference: Some(Inference {
            max_body_bytes: 1 << 20,
            ..Inference::default()
        }),
        policy: Policy::PeakEwma,
        ..Calls::default()
    };
    let caller = calling(ca);
    let endpoints = replicas
        .iter()
        .map(|replica| endpoint(replica.sidecar.inbound(), true));
    caller.set(calls.snapshot(&caller.shared.metrics, endpoints.collect()));
    caller
}

/// No method that may be repeated, and no retry policy.
async fn post(caller: &Sidecar) -> Whole {
    let body = r#"{"model":"m","messages":[]}"#;
    client::post(caller.outbound(), "/v1/chat/completions", body).await
}

#[tokio::test]
async fn the_client_does_not_notice_that_one_replica_is_full() {
    let ca = TestCa::new();
    let full = Replica::start(&ca, "full", Duration::from_secs(20)).await;
    let free = Replica::start(&ca, "free", Duration::from_secs(20)).await;
    let _places = full.fill().await;
    let caller = caller(&ca, &[&full, &free]);
    for _ in 0..20 {
        let answer = post(&caller).await;
        assert_eq!((answer.head.status, answer.body.as_str()), (200, "free"));
    }
    // Once: then it was known how long it takes there.
    let moved = ["outrigger_retries_total", "cause=\"busy\""];
    caller.expect_metric(&moved).await;
    assert!(
        full.gate
            .refusals
            .get(crate::admission::Limit::ExpectedWait)
            < 5
    );
}

#[tokio::test]
async fn where_all_are_full_the_client_hears_of_the_shortest_wait() {
    let ca = TestCa::new();
    let seconds = Duration::from_secs;
    let long = Replica::start(&ca, "long", seconds(40)).await;
    let short = Replica::start(&ca, "short", seconds(5)).await;
    let middle = Replica::start(&ca, "middle", seconds(20)).await;
    let _places = [long.fill().await, short.fill().await, middle.fill().await];
    let caller = caller(&ca, &[&long, &short, &middle]);
    for _ in 0..6 {
        let answer = post(&caller).await;
        assert_eq!(
            (answer.head.status, answer.head.reason()),
            (503, "overloaded")
        );
        // Two places, five seconds each.
        assert_eq!(
            answer.head.get("x-outrigger-expected-wait-ms"),
            Some("2500")
        );
        assert_eq!(answer.head.get("retry-after"), Some("3"));
        let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(body["error"]["expected_wait_ms"], 2500);
        assert_eq!(body["error"]["code"], "overloaded");
    }
    let moved = ["outrigger_retries_total", "cause=\"busy\"", " 12"];
    caller.expect_metric(&moved).await;
}

#[tokio::test]
async fn a_lone_endpoint_s_word_is_passed_on() {
    let ca = TestCa::new();
    let lone = Replica::start(&ca, "lone", Duration::from_secs(20)).await;
    let _places = lone.fill().await;
    let caller = caller(&ca, &[&lone]);
    let answer = post(&caller).await;
    assert_eq!(
        answer.head.get("x-outrigger-expected-wait-ms"),
        Some("10000")
    );
    assert!(!caller.metrics().contains("outrigger_retries_total{"));
}
