//! Where traces begin.

use std::sync::Arc;

use super::client::once;
use super::http1::mirror;
use super::mesh::{Calls, Pair, application, serving};
use crate::policy::{Protocol, Tracing};
use crate::telemetry::trace::Fate;

#[tokio::test]
async fn a_server_begins_none_for_a_sidecar_that_has_decided() {
    let app = application(mirror).await;
    let pair = Pair::new(Calls::default(), app);
    let mut all = serving(app, Protocol::Http);
    all.mesh.tracing = Some(Arc::new(Tracing {
        endpoint: "http://127.0.0.1:1".into(),
        sampling_percent: 100.0,
        roots: Vec::new(),
    }));
    pair.server.set(all);
    let plain = "GET / HTTP/1.1\r\nhost: chat\r\n\r\n";
    let answer = once(pair.address(), plain).await;
    assert!(!answer.body.contains("traceparent"), "{}", answer.body);
    // What arrives sampled is.
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let sampled = format!("GET / HTTP/1.1\r\nhost: chat\r\ntraceparent: {parent}\r\n\r\n");
    let answer = once(pair.address(), &sampled).await;
    assert!(answer.body.contains(trace), "{}", answer.body);
    assert!(!answer.body.contains(&parent), "{}", answer.body);
    // Nobody wants to know of it here.
    assert!(
        Fate::ALL
            .iter()
            .all(|fate| pair.server.shared.traces.count(*fate) == 0)
    );
}
