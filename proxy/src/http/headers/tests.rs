#![allow(clippy::unwrap_used)]
use http::{HeaderMap, HeaderName, HeaderValue};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::{
    clean_request, clean_response, content_length, ensure_request_id, is_grpc, wanted_upgrade,
};

fn headers(list: &[(&str, &str)]) -> HeaderMap {
    list.iter()
        .map(|(name, value)| {
            (
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            )
        })
        .collect()
}

fn names(headers: &HeaderMap) -> Vec<&str> {
    let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    names
}

#[test]
fn what_concerns_one_connection_goes() {
    let mut map = headers(&[
        ("host", "chat"),
        ("connection", "keep-alive, X-Mine"),
        ("connection", "x-other"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("proxy-authorization", "Basic x"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAMAAABkAARAAAAAAAIAAAAA"),
        ("te", "gzip"),
        ("expect", "100-continue"),
        ("x-mine", "1"),
        ("x-other", "2"),
        ("accept", "*/*"),
        (
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ),
        ("trailer", "x-sum"),
    ]);
    clean_request(&mut map, None);
    assert_eq!(names(&map), ["accept", "host", "traceparent", "trailer"]);
}

#[test]
fn framing_and_host_are_not_the_clients_to_remove() {
    let mut map = headers(&[
        ("host", "chat"),
        ("content-length", "5"),
        ("te", "trailers"),
        (
            "connection",
            "host, content-length, te, authorization, close",
        ),
        ("authorization", "Bearer x"),
    ]);
    clean_request(&mut map, None);
    assert_eq!(names(&map), ["content-length", "host", "te"]);
}

#[test]
fn a_length_beside_a_coding_goes() {
    let mut map = headers(&[("transfer-encoding", "chunked"), ("content-length", "5")]);
    clean_request(&mut map, None);
    assert!(map.is_empty());
    let mut map = headers(&[("transfer-encoding", "chunked"), ("content-length", "5")]);
    clean_response(&mut map, true);
    assert!(map.is_empty());
}

#[test]
fn nobody_claims_an_identity() {
    let mut map = headers(&[
        (
            "x-forwarded-client-cert",
            "URI=spiffe://outrigger.local/ns/a/sa/b",
        ),
        ("X-Outrigger-Peer", "somebody"),
        ("x-outrigger-reason", "no-route"),
        ("x-forwarded-for", "10.0.0.1"),
    ]);
    clean_request(&mut map, None);
    assert_eq!(names(&map), ["x-forwarded-for"]);
}

#[test]
fn reasons_are_believed_from_sidecars_only() {
    let answer = [("x-outrigger-reason", "connect-failed"), ("date", "x")];
    let mut map = headers(&answer);
    clean_response(&mut map, true);
    assert_eq!(names(&map), ["date", "x-outrigger-reason"]);
    let mut map = headers(&answer);
    clean_response(&mut map, false);
    assert_eq!(names(&map), ["date"]);
}

#[test]
fn upgrades() {
    let asked = headers(&[
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "websocket"),
    ]);
    let wanted = wanted_upgrade(&asked).unwrap();
    assert_eq!(wanted, "websocket");
    let mut map = asked;
    clean_request(&mut map, Some(&wanted));
    assert_eq!(map["connection"], "upgrade");
    assert_eq!(map["upgrade"], "websocket");
    // Not named as a connection's header, or an upgrade to HTTP/2.
    assert!(wanted_upgrade(&headers(&[("upgrade", "websocket")])).is_none());
    let h2c = headers(&[
        ("connection", "upgrade, http2-settings"),
        ("upgrade", "h2c"),
    ]);
    assert!(wanted_upgrade(&h2c).is_none());
}

#[test]
fn grpc_keeps_its_trailers() {
    let mut map = headers(&[
        ("te", "Trailers, deflate;q=0.5"),
        ("content-type", "application/grpc+proto"),
    ]);
    clean_request(&mut map, None);
    assert_eq!(map["te"], "trailers");
    assert!(is_grpc(&map));
    for (value, grpc) in [
        ("application/grpc", true),
        ("application/grpc;charset=x", true),
        ("application/grpc-web", false),
        ("application/json", false),
    ] {
        assert_eq!(
            is_grpc(&headers(&[("content-type", value)])),
            grpc,
            "{value}"
        );
    }
}

#[test]
fn request_ids() {
    let mut rng = SmallRng::seed_from_u64(1);
    let mut map = headers(&[("x-request-id", "mine")]);
    let found = clean_request(&mut map, None);
    ensure_request_id(&mut map, found, &mut rng);
    assert_eq!(map["x-request-id"], "mine");

    let mut map = HeaderMap::new();
    let found = clean_request(&mut map, None);
    ensure_request_id(&mut map, found, &mut rng);
    let id = map["x-request-id"].to_str().unwrap().to_owned();
    assert_eq!(id.len(), 32);
    assert!(id.bytes().all(|byte| byte.is_ascii_hexdigit()));

    // Named as the connection's own: gone, and made anew.
    let mut map = headers(&[("x-request-id", "mine"), ("connection", "x-request-id")]);
    let found = clean_request(&mut map, None);
    ensure_request_id(&mut map, found, &mut rng);
    assert_ne!(map["x-request-id"], "mine");
}

#[test]
fn lengths() {
    assert_eq!(
        content_length(&headers(&[("content-length", "12")])),
        Some(12)
    );
    assert_eq!(content_length(&headers(&[("content-length", "-1")])), None);
    assert_eq!(content_length(&HeaderMap::new()), None);
}
