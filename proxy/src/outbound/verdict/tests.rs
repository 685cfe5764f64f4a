#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use http::HeaderValue;

use super::*;
use crate::balance::Endpoint;
use crate::resilience::health::Health;
use crate::resilience::outlier::{Outliers, Policy};
use crate::runtime::tests::mesh::endpoint;

/// What one failure of this kind is counted as, by which threshold of 1 it reaches.
fn counted(judge: impl Fn(&mut InFlight)) -> Option<&'static str> {
    let outliers = Arc::new(Outliers::default());
    let made = |port| {
        let address = std::net::SocketAddr::from(([10, 0, 0, 1], port));
        Arc::new(Endpoint {
            health: Arc::new(Health::of(&outliers)),
            ..Arc::into_inner(endpoint(address, true)).unwrap()
        })
    };
    let endpoints = [made(1), made(2)];
    let members = [endpoints[0].health.clone(), endpoints[1].health.clone()];
    let policy = Policy {
        consecutive: [1; 3],
        ..Policy::default()
    };
    outliers.update(Some(&Arc::new(policy)), &[], &members);
    let mut in_flight = endpoints[0].begin();
    judge(&mut in_flight);
    in_flight.first_byte();
    in_flight.succeeded();
    endpoints[0].health.view().reason()
}

fn answer(status: u16, headers: &[(&'static str, &'static str)]) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in headers {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(*name, value);
    }
    response
}

#[test]
fn statuses() {
    let of = |status| counted(|it| response(&answer(status, &[]), false, it));
    for fine in [200, 204, 302, 400, 401, 404, 408, 429, 499, 501, 505] {
        assert_eq!(of(fine), None, "{fine}");
    }
    assert_eq!(of(500), Some("consecutive-5xx"));
    assert_eq!(of(507), Some("consecutive-5xx"));
    for gateway in [502, 503, 504] {
        assert_eq!(of(gateway), Some("consecutive-gateway-failures"));
    }
}

#[test]
fn what_a_sidecar_says_of_its_answer() {
    let of = |reason: &'static str, from_sidecar| {
        let answer = answer(503, &[("x-outrigger-reason", reason)]);
        counted(|it| response(&answer, from_sidecar, it))
    };
    let fault = Some("consecutive-gateway-failures");
    assert_eq!(of("connect-failed", true), fault);
    assert_eq!(of("draining", true), None);
    assert_eq!(of("client-gone", true), None);
    assert_eq!(of("draining", false), fault, "anybody can write a header");
}

#[test]
fn grpc_statuses() {
    let of = |status| {
        let answer = answer(
            200,
            &[
                ("content-type", "application/grpc"),
                ("grpc-status", status),
            ],
        );
        counted(|it| response(&answer, true, it))
    };
    assert_eq!(of("0"), None);
    assert_eq!(of("5"), None);
    assert_eq!(of("8"), None);
    assert_eq!(of("14"), Some("consecutive-gateway-failures"));
    assert_eq!(of("13"), Some("consecutive-5xx"));
    let mut late = HeaderMap::new();
    late.insert("grpc-status", HeaderValue::from_static("14"));
    assert_eq!(
        counted(|it| trailers(&late, it)),
        Some("consecutive-gateway-failures")
    );
}

#[test]
fn without_a_response() {
    let of = |reason, unprocessed, stale| {
        let failed = Failure {
            reason,
            unprocessed,
            stale,
        };
        counted(|it| failure(&failed, it))
    };
    let connect = Some("consecutive-connect-failures");
    assert_eq!(of(Reason::ConnectFailed, true, false), connect);
    assert_eq!(of(Reason::UpstreamUntrusted, true, false), connect);
    let gateway = Some("consecutive-gateway-failures");
    assert_eq!(of(Reason::UpstreamReset, false, false), gateway);
    assert_eq!(of(Reason::PerTryTimeout, false, false), gateway);
    // A connection closed while it was idle, a GOAWAY, our own missing identity.
    assert_eq!(of(Reason::UpstreamReset, false, true), None);
    assert_eq!(of(Reason::UpstreamReset, true, false), None);
    assert_eq!(of(Reason::NotReady, true, false), None);
}
