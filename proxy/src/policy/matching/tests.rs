#![allow(clippy::unwrap_used)]

use http::header::{HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;
use crate::balance::{DEFAULT_DECAY, EndpointSet, Policy};
use crate::policy::{Protocol, Recovery, Timeouts, Upstream};
use crate::resilience::RetryBudget;
use crate::telemetry::Direction;
use crate::telemetry::metrics::Metrics;

fn backend(weight: u32, port: u16) -> Backend {
    let endpoints = Arc::new(EndpointSet::new(Policy::Random, DEFAULT_DECAY, Vec::new()));
    Backend {
        model_endpoints: Box::default(),
        upstream: Arc::new(Upstream {
            inference: None,
            names: Box::default(),
            tls: None,
            has_loop: false,
            limits: None,
            service: "default/chat".into(),
            ports: Vec::new(),
            identities: Vec::new(),
            pool: Arc::default(),
            connect_timeout: std::time::Duration::from_secs(1),
            endpoints: endpoints.clone(),
            health: Default::default(),
        }),
        port,
        protocol: Protocol::Http,
        weight,
        endpoints,
        server_name: "80.chat.default.outrigger.local".try_into().unwrap(),
        metrics: Metrics::new().request(Direction::Outbound, "default/chat", "", "default/chat"),
    }
}

/// Backends are told apart by their ports: 0, 1, 2, …
fn rule(matches: Vec<Match>, weights: &[u32]) -> Arc<Rule> {
    Arc::new(Rule {
        session: None,
        route: "default/route".into(),
        matches,
        backends: weights
            .iter()
            .enumerate()
            .map(|(i, weight)| backend(*weight, i as u16))
            .collect(),
        total_weight: weights.iter().sum(),
        turns: Arc::default(),
        timeouts: Timeouts::default(),
        retry: None,
        budget: Arc::new(RetryBudget::new(20, 10)),
        recovery: Recovery::default(),
        filters: None,
    })
}

fn headers(pairs: &[(&str, &[u8])]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| {
            (
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_bytes(value).unwrap(),
            )
        })
        .fold(HeaderMap::new(), |mut map, (name, value)| {
            map.append(name, value);
            map
        })
}

fn header(name: &str, value: StringMatch) -> HeaderMatch {
    HeaderMatch {
        name: name.parse().unwrap(),
        value,
    }
}

fn path_matches(pattern: &StringMatch, path: &str) -> bool {
    pattern.matches(path.as_bytes())
}

#[test]
fn a_prefix_is_made_of_whole_segments() {
    // The table of the Gateway API's specification (HTTPPathMatch).
    for (prefix, path, expected) in [
        ("/xyz/", "/xyz/", true),
        ("/xyz/", "/xyz", true),
        ("/xyz", "/xyz/", true),
        ("/xyz", "/xyz", true),
        ("/xyz", "/xyz/abc", true),
        ("/xyz", "/xyzabc", false),
        ("/xyz", "/XYZ", false),
        ("/", "/", true),
        ("/", "/abc", true),
        // OPTIONS * and CONNECT have no path with a slash.
        ("/", "*", true),
        ("/", "", true),
        ("/v1/models", "/v1", false),
    ] {
        assert_eq!(
            path_matches(&StringMatch::prefix(prefix), path),
            expected,
            "{prefix} {path}"
        );
    }
    assert_eq!(StringMatch::prefix("/").value(), "/");
}

#[test]
fn an_expression_has_to_match_the_whole_value() {
    let pattern = StringMatch::regex("/v1|/v2/[a-z]+").unwrap();
    for (path, expected) in [
        ("/v1", true),
        ("/v2/chat", true),
        ("/v2/chat1", false),
        ("/v10", false),
        ("x/v1", false),
        ("/v1\n", false),
    ] {
        assert_eq!(path_matches(&pattern, path), expected, "{path}");
    }
    assert_eq!(pattern.value(), "/v1|/v2/[a-z]+");
    assert!(StringMatch::regex("(?i)gold").unwrap().matches(b"GOLD"));
    assert!(
        StringMatch::regex(r"(?-u)\xff+")
            .unwrap()
            .matches(b"\xff\xff"),
        "bytes that are no text"
    );
}

#[test]
fn expressions_that_are_none_or_too_much_are_refused() {
    let refusal = |pattern: &str| StringMatch::regex(pattern).unwrap_err().to_string();
    assert!(
        refusal("a)|(b").contains("\"a)|(b\" is no regular expression"),
        "{}",
        refusal("a)|(b")
    );
    assert!(
        refusal("(?=a)").contains("look-around"),
        "{}",
        refusal("(?=a)")
    );
    assert!(
        refusal("[a").contains("unclosed character class"),
        "{}",
        refusal("[a")
    );
    assert!(refusal(&"a".repeat(4097)).contains("4097 bytes; at most 4096"));
    assert!(
        refusal(r"(\w{100}){100}").contains("too large"),
        "{}",
        refusal(r"(\w{100}){100}")
    );
    assert_eq!(refusal("[a\nb").lines().count(), 1, "one line");
    // Nested repetition is linear here.
    let pattern = StringMatch::regex("(a+)+$").unwrap();
    let begun = std::time::Instant::now();
    assert!(!pattern.matches(format!("{}!", "a".repeat(20_000)).as_bytes()));
    assert!(begun.elapsed().as_millis() < 2000);
}

#[test]
fn hosts() {
    for (pattern, host, expected) in [
        ("chat.models", "chat.models", true),
        ("chat.models", "Chat.Models", true),
        ("chat.models", "x.chat.models", false),
        ("*.models", "chat.models", true),
        ("*.models", "a.b.MODELS", true),
        ("*.models", "models", false),
        ("*.models", ".models", false),
        ("*.models", ".chat.models", false),
        ("*.models", "chatmodels", false),
        ("*.models", "chat.models.evil", false),
    ] {
        assert_eq!(
            HostMatch::new(pattern).matches(host),
            expected,
            "{pattern} {host}"
        );
        assert_eq!(HostMatch::new(pattern).to_string(), pattern);
    }
}

#[test]
fn a_header_that_occurs_twice_is_its_values_joined() {
    let gold = header("x-tier", StringMatch::exact("gold"));
    assert!(gold.matches(&headers(&[("x-tier", b"gold")])));
    assert!(!gold.matches(&headers(&[])));
    assert!(
        !gold.matches(&headers(&[("x-tier", b"free"), ("x-tier", b"gold")])),
        "nobody adds to what was set"
    );
    let both = header("x-tier", StringMatch::exact("free,gold"));
    assert!(both.matches(&headers(&[("x-tier", b"free"), ("x-tier", b"gold")])));
    assert!(both.matches(&headers(&[("x-tier", b"free,gold")])));
    let any = header("x-tier", StringMatch::regex("(.*,)?gold(,.*)?").unwrap());
    assert!(any.matches(&headers(&[
        ("x-tier", b"free"),
        ("x-tier", b"gold"),
        ("x-tier", b"")
    ])));
    let long = "a".repeat(10_000);
    assert!(!any.matches(&headers(&[
        ("x-tier", long.as_bytes()),
        ("x-tier", b"golden")
    ])));
    assert!(
        any.matches(&headers(&[("x-tier", b"a"), ("x-tier", b"gold")])),
        "the buffer is clean again"
    );
}

#[test]
fn the_first_rule_that_matches_is_taken() {
    let exact = |path: &str| Match {
        path: Some(StringMatch::exact(path)),
        ..Match::default()
    };
    let rules = [
        rule(vec![exact("/a"), exact("/b")], &[1]),
        rule(
            vec![Match {
                method: Some(Method::POST),
                ..Match::default()
            }],
            &[1],
        ),
        rule(
            vec![Match {
                port: Some(8080),
                ..Match::default()
            }],
            &[1],
        ),
    ];
    let none = HeaderMap::new();
    let found = |method: &Method, port: u16, path: &str| {
        let facts = RequestFacts {
            host: "chat",
            port,
            path,
            query: "",
            method,
            headers: &none,
            model: None,
        };
        find(&rules, &facts).map(|found| {
            rules
                .iter()
                .position(|rule| Arc::ptr_eq(rule, found))
                .unwrap()
        })
    };
    assert_eq!(found(&Method::POST, 80, "/b"), Some(0));
    assert_eq!(found(&Method::POST, 8080, "/c"), Some(1));
    assert_eq!(found(&Method::GET, 8080, "/c"), Some(2));
    assert_eq!(found(&Method::GET, 80, "/c"), None);
    let everything = rule(Vec::new(), &[1]);
    assert!(everything.matches(&RequestFacts {
        host: "",
        port: 1,
        path: "*",
        query: "",
        method: &Method::OPTIONS,
        headers: &none,
        model: None,
    }));
}

#[test]
fn backends_take_turns_and_weight_nought_gets_none() {
    assert_eq!(rule(Vec::new(), &[1]).choose().port, 0);
    let split = rule(Vec::new(), &[0, 9, 0, 1, 0]);
    // Any ten in a row, across the end of a round as well.
    for _ in 0..20 {
        let ports: Vec<u16> = (0..10).map(|_| split.choose().port).collect();
        assert_eq!(
            ports.iter().filter(|port| **port == 1).count(),
            9,
            "{ports:?}"
        );
        assert_eq!(
            ports.iter().filter(|port| **port == 3).count(),
            1,
            "{ports:?}"
        );
        split.choose();
    }
}

#[test]
fn query_and_grpc_conditions_are_joined_to_the_others() {
    let condition = Match {
        method: Some(Method::POST),
        query_params: vec![
            QueryParamMatch {
                name: "a".into(),
                value: StringMatch::exact("1"),
            },
            QueryParamMatch {
                name: "b".into(),
                value: StringMatch::exact("2"),
            },
        ],
        ..Match::default()
    };
    let grpc = Match {
        grpc: Some(GrpcMatch {
            service: Some(StringMatch::exact("s.S")),
            method: None,
        }),
        ..Match::default()
    };
    let map = headers(&[("content-type", b"application/grpc")]);
    let facts = |method, query| RequestFacts {
        host: "",
        port: 80,
        path: "/s.S/M",
        query,
        method,
        headers: &map,
        model: None,
    };
    assert!(condition.matches(&facts(&Method::POST, "b=2&a=1")));
    assert!(!condition.matches(&facts(&Method::POST, "b=2")));
    assert!(!condition.matches(&facts(&Method::GET, "b=2&a=1")));
    assert!(grpc.matches(&facts(&Method::POST, "")));
    assert!(!grpc.matches(&RequestFacts {
        path: "/s.T/M",
        ..facts(&Method::POST, "")
    }));
}

proptest! {
    // The same conditions, said the slow way.
    #[test]
    fn conditions_agree_with_a_naive_model(
        hosts in prop::collection::vec(prop::sample::select(vec!["a.b", "b", "*.b", "*.a.b"]), 0..3),
        path in prop::option::of((0_usize..3, prop::sample::select(vec!["/", "/v1", "/v1/", "/v1/x", "/v2"]))),
        method in prop::option::of(prop::sample::select(vec![Method::GET, Method::POST])),
        port in prop::option::of(80_u16..82),
        wanted in prop::collection::vec((prop::sample::select(vec!["x-a", "x-b"]), 0_usize..3, prop::sample::select(vec!["p", "p/q", "p,q"])), 0..3),
        host in prop::sample::select(vec!["a.b", "b", "c.b", "c.a.b", "B", "ab"]),
        request_path in prop::sample::select(vec!["/", "/v1", "/v1/", "/v1/x", "/v1/x/y", "/v10", "/v2", "*"]),
        request_method in prop::sample::select(vec![Method::GET, Method::POST, Method::PUT]),
        request_port in 80_u16..82,
        request_headers in prop::collection::vec((prop::sample::select(vec!["x-a", "x-b", "x-c"]), prop::sample::select(vec!["p", "q", "p/q", "p,q"])), 0..4),
    ) {
        let string = |kind: usize, value: &str| match kind {
            0 => StringMatch::exact(value),
            1 => StringMatch::prefix(value),
            _ => StringMatch::regex(&regex::escape(value)).unwrap(),
        };
        let naive_string = |kind: usize, pattern: &str, value: &str| match kind {
            1 => {
                let segments = pattern.trim_end_matches('/');
                value == segments || value.starts_with(&format!("{segments}/")) || segments.is_empty()
            }
            _ => pattern == value,
        };
        let condition = Match {
            hosts: hosts.iter().map(|host| HostMatch::new(host)).collect(),
            path: path.map(|(kind, value)| string(kind, value)),
            method: method.clone(),
            headers: wanted.iter().map(|(name, kind, value)| header(name, string(*kind, value))).collect(),
            port,
            ..Match::default()
        };
        let map = headers(&request_headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect::<Vec<_>>());
        let facts = RequestFacts { host, port: request_port, path: request_path, method: &request_method, query: "", headers: &map, model: None };

        let host = host.to_lowercase();
        let host_fits = hosts.is_empty() || hosts.iter().any(|pattern| match pattern.strip_prefix("*.") {
            Some(rest) => host.split_once('.').is_some_and(|_| host.ends_with(&format!(".{rest}"))),
            None => *pattern == host,
        });
        let headers_fit = wanted.iter().all(|(name, kind, pattern)| {
            let values: Vec<&str> = request_headers.iter().filter(|(n, _)| n == name).map(|(_, v)| *v).collect();
            !values.is_empty() && naive_string(*kind, pattern, &values.join(","))
        });
        let expected = host_fits
            && path.is_none_or(|(kind, pattern)| naive_string(kind, pattern, request_path))
            && method.is_none_or(|method| method == request_method)
            && port.is_none_or(|port| port == request_port)
            && headers_fit;
        prop_assert_eq!(condition.matches(&facts), expected);
    }

    #[test]
    fn no_pattern_and_no_value_makes_it_panic(pattern in ".{0,40}", value in prop::collection::vec(any::<u8>(), 0..40)) {
        let _ = StringMatch::prefix(&pattern).matches(&value);
        let _ = StringMatch::exact(&pattern).matches(&value);
        if let Ok(regex) = StringMatch::regex(&pattern) {
            let _ = regex.matches(&value);
        }
        let _ = HostMatch::new(&pattern).matches(&String::from_utf8_lossy(&value));
    }
}
