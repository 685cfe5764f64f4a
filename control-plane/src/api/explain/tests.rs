#![allow(clippy::unwrap_used)]
use outrigger_proto::api::v1 as api;

use super::{Question, head, identity};

const TRUST_DOMAIN: &str = "outrigger.local";

fn request(method: &str, url: &str, headers: &[(&str, &str)]) -> api::ExplainRequest {
    api::ExplainRequest {
        identity: "default/web".into(),
        method: method.into(),
        url: url.into(),
        headers: headers
            .iter()
            .map(|(name, value)| api::RequestHeader {
                name: (*name).into(),
                value: (*value).into(),
            })
            .collect(),
        ..api::ExplainRequest::default()
    }
}

#[test]
fn identities_are_ids_or_names() {
    let id = "spiffe://outrigger.local/ns/default/sa/web";
    for text in [id, "default/web"] {
        assert_eq!(identity(text, TRUST_DOMAIN).unwrap().as_str(), id);
    }
    for text in [
        "",
        "web",
        "Default/web",
        "spiffe://outrigger.local/web",
        "a/b/c",
    ] {
        let problem = identity(text, TRUST_DOMAIN).unwrap_err();
        assert!(problem.contains("<namespace>/<account>"), "{problem}");
    }
    let foreign = identity("spiffe://other/ns/default/sa/web", TRUST_DOMAIN).unwrap_err();
    assert!(foreign.contains("another trust domain"), "{foreign}");
}

#[test]
fn requests_are_read_as_clients_send_them() {
    let read = |request: &api::ExplainRequest| head(request).unwrap();
    let url = read(&request("POST", "http://chat.models:80/v1?x=1", &[]));
    assert_eq!(url.uri.authority().unwrap(), "chat.models:80");
    assert_eq!((url.uri.path(), url.uri.query()), ("/v1", Some("x=1")));
    let short = read(&request("", "chat", &[]));
    assert_eq!((short.method.as_str(), short.uri.path()), ("GET", "/"));
    // With a Host header the URL is the sidecar's own.
    let based = read(&request(
        "GET",
        "http://127.0.0.1:15001/v1",
        &[("host", "chat")],
    ));
    assert_eq!(based.uri.authority(), None);
    assert_eq!(
        (&based.headers["host"], based.uri.path()),
        (&"chat".parse().unwrap(), "/v1")
    );
    let tunnel = read(&request("CONNECT", "api.example:443", &[]));
    assert_eq!(tunnel.uri.authority().unwrap(), "api.example:443");
    for bad in [
        request("G T", "chat", &[]),
        request("GET", "http://", &[]),
        request("GET", "chat", &[("x y", "1")]),
        request("GET", "chat", &[("x", "a\nb")]),
    ] {
        assert!(head(&bad).is_err(), "{bad:?}");
        assert!(Question::parse(&bad, TRUST_DOMAIN).is_err());
    }
}

#[test]
fn clocks_have_the_names_of_resources() {
    for (field, name) in [
        ("request_ms", "request"),
        ("per_try_ms", "backendRequest"),
        ("response_headers_ms", "responseHeaders"),
        ("stream_idle_ms", "streamIdle"),
    ] {
        assert_eq!(super::levels::name(field), name);
    }
}
