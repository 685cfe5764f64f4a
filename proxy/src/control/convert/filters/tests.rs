#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use wire::fault_injection::{self, abort};

use super::*;

fn refusal(kind: Kind) -> String {
    filter(&wire::Filter { kind: Some(kind) }).unwrap_err()
}

fn header(name: &str, value: &str) -> wire::Header {
    wire::Header {
        name: name.into(),
        value: value.into(),
    }
}

#[test]
fn each_problem_is_told_with_its_place() {
    let set = |name: &str, value: &str| wire::HeaderModifier {
        set: vec![header("x-a", "b"), header(name, value)],
        ..Default::default()
    };
    let half = Some(wire::Fraction {
        numerator: 3,
        denominator: 2,
    });
    let cases = [
        (
            Kind::RequestHeaders(set("a b", "c")),
            "request_headers.set[1].name: \"a b\" is not a header's name",
        ),
        (
            Kind::ResponseHeaders(set("x-b", "a\r\nx-evil: 1")),
            "response_headers.set[1].value: \"a\\r\\nx-evil: 1\" has characters that a header cannot have",
        ),
        (
            Kind::RequestHeaders(wire::HeaderModifier {
                remove: vec!["content-length".into()],
                ..Default::default()
            }),
            "request_headers.remove[0]: \"content-length\" concerns the connection, the message's framing or the mesh, and cannot be changed",
        ),
        (
            Kind::UrlRewrite(wire::UrlRewrite {
                hostname: "a:80".into(),
                path: None,
            }),
            "url_rewrite.hostname: \"a:80\" is not a host without a port",
        ),
        (
            Kind::UrlRewrite(wire::UrlRewrite {
                hostname: String::new(),
                path: Some(wire::PathModifier { kind: None }),
            }),
            "url_rewrite.path: neither full_path nor prefix",
        ),
        (
            Kind::Redirect(wire::Redirect {
                scheme: "ftp".into(),
                ..Default::default()
            }),
            "redirect.scheme: \"ftp\" is neither http nor https",
        ),
        (
            Kind::Redirect(wire::Redirect {
                status: 304,
                ..Default::default()
            }),
            "redirect.status: 304 is none of 301, 302, 303, 307, 308",
        ),
        (
            Kind::Mirror(wire::Mirror {
                backend: Some(wire::Backend {
                    service: "a/b".into(),
                    port: 80,
                    ..Default::default()
                }),
                fraction: half,
            }),
            "mirror.fraction: 3 of 2 is more than all",
        ),
        (
            Kind::Mirror(wire::Mirror::default()),
            "mirror.backend: unset",
        ),
        (
            Kind::Cors(wire::Cors {
                allow_origins: vec!["*".into(), "evil".into()],
                ..Default::default()
            }),
            "cors.allow_origins[1]: \"evil\" is not an origin: *, <scheme>://<host>[:<port>] or <scheme>://*.<host>[:<port>]",
        ),
        (
            Kind::Cors(wire::Cors {
                allow_headers: vec!["x-a, x-b".into()],
                ..Default::default()
            }),
            "cors.allow_headers[0]: \"x-a, x-b\" is neither a method nor a header's name",
        ),
        (
            Kind::Cors(wire::Cors {
                allow_credentials: true,
                expose_headers: vec!["*".into()],
                ..Default::default()
            }),
            "cors.expose_headers: \"*\" means nothing with credentials",
        ),
        (
            Kind::DirectResponse(wire::DirectResponse {
                status: 101,
                ..Default::default()
            }),
            "direct_response.status: 101 is not a status from 200 to 599",
        ),
        (
            Kind::DirectResponse(wire::DirectResponse {
                status: 204,
                body: b"x".to_vec(),
                ..Default::default()
            }),
            "direct_response.body: a response with the status 204 No Content has none",
        ),
        (
            Kind::FaultInjection(wire::FaultInjection {
                delay: Some(fault_injection::Delay::default()),
                ..Default::default()
            }),
            "fault_injection.delay.duration: unset",
        ),
        (
            Kind::FaultInjection(wire::FaultInjection {
                abort: Some(fault_injection::Abort {
                    status: Some(abort::Status::Grpc(17)),
                    fraction: None,
                }),
                ..Default::default()
            }),
            "fault_injection.abort.grpc: 17 is not a code from 1 to 16",
        ),
    ];
    for (kind, expected) in cases {
        assert_eq!(refusal(kind), expected);
    }
    let none = filter(&wire::Filter { kind: None }).unwrap_err();
    assert_eq!(none, ": none, or of a kind that this version does not know");
}

#[test]
fn defaults() {
    let ready = |kind| match filter(&wire::Filter { kind: Some(kind) }).unwrap() {
        FilterSpec::Ready(filter) => filter,
        FilterSpec::Mirror(..) => panic!("a mirror"),
    };
    let Filter::Redirect(redirect) = ready(Kind::Redirect(wire::Redirect::default())) else {
        panic!("not a redirect")
    };
    assert_eq!(redirect.status, 302);
    let Filter::Cors(cors) = ready(Kind::Cors(wire::Cors::default())) else {
        panic!("not CORS")
    };
    assert_eq!(cors.max_age, "5");
    let mirror = wire::Mirror {
        backend: Some(wire::Backend {
            service: "a/b".into(),
            port: 80,
            ..Default::default()
        }),
        fraction: Some(wire::Fraction {
            numerator: 7,
            denominator: 0,
        }),
    };
    let kind = Some(Kind::Mirror(mirror));
    let FilterSpec::Mirror(backend, share) = filter(&wire::Filter { kind }).unwrap() else {
        panic!("not a mirror")
    };
    assert_eq!((&*backend.service, share.denominator), ("a/b", 100));
}

proptest! {
    /// Whatever is configured: what is written to the wire has one line for each header, and frames the message as before.
    #[test]
    fn header_modifications_cannot_smuggle(
        pairs in prop::collection::vec((
            prop_oneof![
                "[!-~]{1,12}",
                prop::sample::select(vec!["Content-Length", "transfer-encoding", "TE", "host", "x-a", "x-b", "X-Outrigger-Peer"]).prop_map(str::to_owned),
            ],
            "[ -~\\r\\n\\t\u{0}]{0,16}",
        ), 1..4),
    ) {
        let modifier = wire::HeaderModifier {
            set: pairs.iter().map(|(name, value)| header(name, value)).collect(),
            add: pairs.iter().map(|(name, value)| header(name, value)).collect(),
            remove: pairs.iter().map(|(name, _)| name.clone()).collect(),
        };
        let bad = pairs.iter().any(|(_, value)| value.contains(['\r', '\n', '\0']));
        let Ok(modifier) = headers(&modifier) else { return Ok(()) };
        prop_assert!(!bad);
        let mut map = http::HeaderMap::new();
        map.insert("content-length", 5.into());
        map.insert("host", "chat".parse().unwrap());
        modifier.apply(&mut map);
        prop_assert_eq!(map.get_all("content-length").iter().collect::<Vec<_>>(), ["5"]);
        prop_assert_eq!(map.get_all("host").iter().collect::<Vec<_>>(), ["chat"]);
        prop_assert!(!map.contains_key("transfer-encoding"));
        for (name, value) in &map {
            prop_assert!(!value.as_bytes().iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)), "{name}");
            prop_assert!(!name.as_str().starts_with("x-outrigger-"));
        }
    }
}
