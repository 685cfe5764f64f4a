#![allow(clippy::unwrap_used)]
use outrigger_proto::dataplane::v1 as wire;
use wire::resource::Body;
use wire::string_match::Kind;

use super::{Spec, resource};
use crate::control::testing::{endpoint, endpoints, rule_to, service};

const TRUST_DOMAIN: &str = "outrigger.local";

fn refusal(wire: wire::Resource) -> String {
    resource(&wire, TRUST_DOMAIN).unwrap_err()
}

fn with_service(change: impl FnOnce(&mut wire::Service)) -> wire::Resource {
    let mut resource = service("default", "chat", 1);
    let Some(Body::Service(body)) = &mut resource.body else {
        unreachable!()
    };
    change(body);
    resource
}

fn with_rule(change: impl FnOnce(&mut wire::Rule)) -> wire::Resource {
    with_service(|service| change(&mut service.rules[0]))
}

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

#[test]
fn defaults_are_those_of_the_contract() {
    let wire = with_rule(|rule| rule.retry = Some(wire::Retry::default()));
    let Spec::Service(spec) = resource(&wire, TRUST_DOMAIN).unwrap() else {
        panic!("not a service")
    };
    assert_eq!(spec.connect_timeout.as_secs(), 1);
    assert_eq!(spec.balancing.decay.as_secs(), 10);
    let rule = &spec.rules[0];
    assert_eq!(rule.budget, (20, 10));
    let retry = rule.retry.as_ref().unwrap();
    assert_eq!(retry.backoff.base.as_millis(), 25);
    assert_eq!(retry.backoff.max.as_millis(), 250);
    assert_eq!(retry.max_body_bytes, 65_536);
}

#[test]
fn what_is_wrong_is_told_with_its_field() {
    let cases: Vec<(wire::Resource, &str)> = vec![
        (
            with_service(|service| service.name = "Chat".into()),
            "namespace/name: name \"Chat\" is not a DNS label (lower-case letters, digits and '-', at most 63)",
        ),
        (
            with_service(|service| service.server_identities.clear()),
            "server_identities: empty, nobody could serve it",
        ),
        (
            with_service(|service| service.server_identities = vec!["chat".into()]),
            "server_identities[0]: \"chat\" is not of the form spiffe://<trust domain>/ns/<namespace>/sa/<account>",
        ),
        (
            with_service(|service| service.ports[0].port = 70_000),
            "ports[0].port: 70000 is not a port (1 to 65535)",
        ),
        (
            with_service(|service| service.ports[0].protocol = 9),
            "ports[0].protocol: 9 is a value that this version does not know",
        ),
        (
            with_service(|service| service.connect_timeout = seconds(0)),
            "connect_timeout: 0.000000000 s is not above 0",
        ),
        (
            with_rule(|rule| rule.backends.clear()),
            "rules[0].backends: at least one must have a weight above 0",
        ),
        (
            with_rule(|rule| rule.backends[0].weight = 0),
            "rules[0].backends: at least one must have a weight above 0",
        ),
        (
            with_rule(|rule| rule.backends[0].service = "chat".into()),
            "rules[0].backends[0].service: \"chat\" is not <namespace>/<name>",
        ),
        (
            with_rule(|rule| {
                rule.backends.push(rule.backends[0].clone());
                rule.backends[1].weight = u32::MAX;
            }),
            "rules[0].backends: the sum of the weights is above 4294967295",
        ),
        (
            with_rule(|rule| {
                rule.timeouts = Some(wire::Timeouts {
                    request: seconds(-1),
                    ..Default::default()
                });
            }),
            "rules[0].timeouts.request: -1.000000000 s is not above 0",
        ),
        (
            with_rule(|rule| {
                rule.retry = Some(wire::Retry {
                    statuses: vec![503, 1000],
                    ..Default::default()
                });
            }),
            "rules[0].retry.statuses[1]: 1000 is not an HTTP status",
        ),
        (
            with_rule(|rule| rule.hedge = Some(wire::Hedge::default())),
            "rules[0].hedge.delay: unset; it has no default",
        ),
        (
            with_rule(|rule| {
                rule.hedge = Some(wire::Hedge {
                    delay: seconds(1),
                    max_requests: 1,
                    ..Default::default()
                });
            }),
            "rules[0].hedge.max_requests: 1 is the request itself; at least 2 are wanted",
        ),
        (
            with_rule(|rule| rule.fallbacks = vec![wire::Fallback::default()]),
            "rules[0].fallbacks[0].on: empty; it would never be used",
        ),
        (
            with_rule(|rule| {
                rule.fallbacks = vec![wire::Fallback {
                    on: vec![1, 99],
                    to: None,
                    model: String::new(),
                }];
            }),
            "rules[0].fallbacks[0].on[1]: 99 is a value that this version does not know",
        ),
        (
            with_rule(|rule| {
                let response = wire::StaticResponse {
                    status: 100,
                    ..Default::default()
                };
                rule.fallbacks = vec![wire::Fallback {
                    on: vec![1],
                    to: Some(wire::fallback::To::Response(response)),
                    model: String::new(),
                }];
            }),
            "rules[0].fallbacks[0].response.status: 100 is not a status from 200 to 599",
        ),
        (
            with_rule(|rule| {
                let response = wire::StaticResponse {
                    status: 503,
                    ..Default::default()
                };
                rule.fallbacks = vec![wire::Fallback {
                    on: vec![1],
                    to: Some(wire::fallback::To::Response(response)),
                    model: "tiny".into(),
                }];
            }),
            "rules[0].fallbacks[0].model: a response asks for none",
        ),
        (
            with_rule(|rule| {
                rule.fallbacks = vec![wire::Fallback {
                    on: vec![1],
                    to: rule
                        .backends
                        .first()
                        .cloned()
                        .map(wire::fallback::To::Backend),
                    model: "a\nb".into(),
                }];
            }),
            "rules[0].fallbacks[0].model: \"a\\nb\" has characters that no header can have",
        ),
        (
            with_rule(|rule| {
                rule.matches = vec![wire::Match {
                    method: "GE T".into(),
                    ..Default::default()
                }];
            }),
            "rules[0].matches[0].method: \"GE T\" is not an HTTP method",
        ),
        (
            with_rule(|rule| {
                rule.matches = vec![wire::Match {
                    headers: vec![wire::HeaderMatch {
                        name: "x-tier".into(),
                        value: None,
                    }],
                    ..Default::default()
                }];
            }),
            "rules[0].matches[0].headers[0].value: unset; exact, prefix or regex is wanted",
        ),
        (
            with_rule(|rule| {
                rule.matches = vec![wire::Match {
                    query_params: vec![wire::QueryParamMatch {
                        name: "a".into(),
                        value: Some(wire::StringMatch {
                            kind: Some(Kind::Prefix("/b".into())),
                        }),
                    }],
                    ..Default::default()
                }];
            }),
            "rules[0].matches[0].query_params[0].value: a prefix; exact or regex is wanted",
        ),
        (
            with_rule(|rule| {
                rule.matches = vec![wire::Match {
                    grpc: Some(wire::GrpcMatch {
                        service: None,
                        method: Some(wire::StringMatch {
                            kind: Some(Kind::Regex("(".into())),
                        }),
                    }),
                    ..Default::default()
                }];
            }),
            "rules[0].matches[0].grpc.method.regex: \"(\" is no regular expression (RE2-like syntax, without look-around and back-references): error: unclosed group",
        ),
    ];
    for (wire, expected) in cases {
        assert_eq!(refusal(wire), expected);
    }
}

#[test]
fn a_bad_regex_is_refused_with_its_place() {
    for pattern in ["(", "(?=x)", &"(a{1000}){1000}".repeat(10)] {
        let wire = with_rule(|rule| {
            rule.matches = vec![wire::Match {
                path: Some(wire::StringMatch {
                    kind: Some(Kind::Regex(pattern.to_owned())),
                }),
                ..Default::default()
            }];
        });
        let reason = refusal(wire);
        assert!(
            reason.starts_with("rules[0].matches[0].path.regex: ") && !reason.contains('\n'),
            "{reason}"
        );
    }
}

#[test]
fn endpoints_are_checked() {
    let mut bad = endpoint("10.0.0.1:80", "a");
    bad.address = "host:80".into();
    let wire = endpoints("default/chat", 1, vec![endpoint("10.0.0.1:80", "a"), bad]);
    assert_eq!(
        refusal(wire),
        "endpoints[1].address: \"host:80\" is not <IP>:<port>"
    );
    let mut bad = endpoint("10.0.0.1:80", "a");
    bad.ports = vec![80, 0];
    assert_eq!(
        refusal(endpoints("default/chat", 1, vec![bad])),
        "endpoints[0].ports[1]: 0 is not a port (1 to 65535)"
    );
}

#[test]
fn a_resource_is_what_its_name_says() {
    let mut wire = service("default", "chat", 1);
    wire.name = "service/default/other".into();
    assert!(refusal(wire).starts_with("name: "));
    let mut wire = service("default", "chat", 1);
    wire.name = "mesh".into();
    assert!(refusal(wire).starts_with("name: "));
    let mut wire = service("default", "chat", 1);
    wire.body = None;
    assert!(refusal(wire).starts_with("body: "));
    let mut wire = endpoints("default/chat", 1, vec![]);
    wire.name = "endpoints/default/other".into();
    assert!(refusal(wire).starts_with("name: "));
}

#[test]
fn the_trust_domain_of_the_mesh_is_this_one() {
    let mesh = |trust_domain: &str, mode: i32| wire::Resource {
        name: "mesh".into(),
        version: 1,
        body: Some(Body::Mesh(wire::Mesh {
            trust_domain: trust_domain.into(),
            mtls_mode: mode,
            access_log: 0,
            unknown_hosts: 0,
            tracing: None,
        })),
    };
    assert!(resource(&mesh(TRUST_DOMAIN, 0), TRUST_DOMAIN).is_ok());
    assert!(refusal(mesh("other.local", 0)).starts_with("trust_domain: "));
    assert!(refusal(mesh(TRUST_DOMAIN, 7)).starts_with("mtls_mode: "));
}

#[test]
fn a_receiver_of_traces_is_a_url() {
    let mesh = |endpoint: &str, sampling_percent: f64| wire::Resource {
        name: "mesh".into(),
        version: 1,
        body: Some(Body::Mesh(wire::Mesh {
            trust_domain: TRUST_DOMAIN.into(),
            tracing: Some(wire::Tracing {
                endpoint: endpoint.into(),
                sampling_percent,
                ca_certificates: Vec::new(),
            }),
            ..Default::default()
        })),
    };
    for good in ["http://collector:4317", "https://[fd00::1]:4317"] {
        assert!(resource(&mesh(good, 100.0), TRUST_DOMAIN).is_ok(), "{good}");
    }
    for bad in [
        "",
        "collector:4317",
        "ftp://collector:4317",
        "http://",
        "http://a b",
    ] {
        let why = refusal(mesh(bad, 1.0));
        assert!(why.starts_with("tracing.endpoint: "), "{bad}: {why}");
    }
    for bad in [-1.0, 100.5, f64::NAN] {
        let why = refusal(mesh("http://collector:4317", bad));
        assert!(why.starts_with("tracing.sampling_percent: "), "{why}");
    }
}

#[test]
fn a_rule_without_retry_has_a_budget_for_failed_connects() {
    let wire = with_service(|service| service.rules = vec![rule_to("default/chat")]);
    let Spec::Service(spec) = resource(&wire, TRUST_DOMAIN).unwrap() else {
        panic!("not a service")
    };
    assert!(spec.rules[0].retry.is_none());
    assert_eq!(spec.rules[0].budget, (20, 10));
}

#[test]
fn balancing_that_cannot_work_is_refused_and_the_rest_is_taken_over() {
    use wire::hash_input::Kind as Key;
    use wire::load_balancing::Policy;
    let input = |kind| wire::HashInput {
        kind: Some(kind),
        terminal: false,
    };
    let header = || input(Key::Header("x-user".into()));
    let cookie = || {
        input(Key::Cookie(wire::HashCookie {
            name: "c".into(),
            ttl: None,
            path: String::new(),
        }))
    };
    let with = |change: &dyn Fn(&mut wire::LoadBalancing)| {
        let mut balancing = wire::LoadBalancing {
            policy: Policy::RingHash.into(),
            hash: vec![header()],
            ..Default::default()
        };
        change(&mut balancing);
        with_service(|service| service.load_balancing = Some(balancing))
    };
    type Change<'a> = &'a dyn Fn(&mut wire::LoadBalancing);
    let cases: [(Change<'_>, &str); 9] = [
        (&|it| it.hash.clear(), "hash: empty"),
        (&|it| it.policy = Policy::Random.into(), "hash: given"),
        (
            &|it| it.hash = vec![cookie(), cookie()],
            "more than one cookie",
        ),
        (
            &|it| it.hash = vec![input(Key::Path(false))],
            "hash[0]: false",
        ),
        (&|it| it.maglev_table_size = 100, "100 is not a prime"),
        (
            &|it| it.minimum_ring_size = 1 << 20,
            "is not from 1 to 65536",
        ),
        (
            &|it| it.bounded_load_percent = 100,
            "is not from 101 to 1000",
        ),
        (
            &|it| it.panic_threshold_percent = Some(101),
            "is not from 0 to 100",
        ),
        (
            &|it| it.slow_start = Some(wire::SlowStart::default()),
            "slow_start.window: unset",
        ),
    ];
    for (change, expected) in cases {
        let found = refusal(with(change));
        assert!(found.starts_with("load_balancing."), "{found}");
        assert!(found.contains(expected), "{found}: {expected}");
    }
    let good = with(&|it| {
        it.hash.push(cookie());
        it.bounded_load_percent = 125;
        it.panic_threshold_percent = Some(0);
    });
    let Spec::Service(spec) = resource(&good, TRUST_DOMAIN).unwrap() else {
        panic!("not a service")
    };
    let settings = &spec.balancing;
    assert_eq!(
        (settings.panic_percent, settings.bounded_load),
        (0, Some(125))
    );
    let hash = settings.hash.as_ref().unwrap();
    assert_eq!(hash.inputs.len(), 2);
    assert_eq!(&*hash.cookie().unwrap().path, "/");
    for keys in [vec![], vec![header()]] {
        let good = with(&|it| {
            it.policy = Policy::PrefixAffinity.into();
            it.hash.clone_from(&keys);
        });
        let Spec::Service(spec) = resource(&good, TRUST_DOMAIN).unwrap() else {
            panic!("not a service")
        };
        assert_eq!(spec.balancing.hash.is_some(), !keys.is_empty());
    }
}

#[test]
fn a_session_needs_a_whole_key_and_a_name() {
    let with = |change: fn(&mut wire::SessionPersistence)| {
        let mut session = wire::SessionPersistence {
            name: "chat".into(),
            key: vec![1; 32],
            ..Default::default()
        };
        change(&mut session);
        with_rule(|rule| rule.session_persistence = Some(session))
    };
    type Change = fn(&mut wire::SessionPersistence);
    let cases: [(Change, &str); 3] = [
        (
            |it| it.key.clear(),
            "rules[0].session_persistence.key: 0 bytes",
        ),
        (
            |it| it.name = "a;b".into(),
            "rules[0].session_persistence.name",
        ),
        (
            |it| it.permanent = true,
            "rules[0].session_persistence.absolute_timeout",
        ),
    ];
    for (change, expected) in cases {
        let found = refusal(with(change));
        assert!(found.starts_with(expected), "{found}");
    }
    assert!(resource(&with(|_| {}), TRUST_DOMAIN).is_ok());
}
