//! What the fuzzer of the configuration begins with: one resource for each kind, filter and policy, as the control plane would
//! send it.

mod services;

use std::collections::BTreeSet;
use std::path::Path;

use outrigger_proto::dataplane::v1 as wire;
use prost::Message;
use wire::filter::Kind;
use wire::resource::Body;
use wire::string_match::Kind as Text;

use crate::control::convert;
use crate::control::testing::{endpoints, service};

const SERVER: &str = "spiffe://outrigger.local/ns/default/sa/chat";

fn time(millis: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration {
        seconds: millis / 1000,
        nanos: i32::try_from(millis % 1000).unwrap() * 1_000_000,
    })
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

fn text(kind: Text) -> Option<wire::StringMatch> {
    Some(wire::StringMatch { kind: Some(kind) })
}

fn header(name: &str, value: &str) -> wire::Header {
    wire::Header {
        name: name.into(),
        value: value.into(),
    }
}

fn one_in_ten() -> Option<wire::Fraction> {
    Some(wire::Fraction {
        numerator: 1,
        denominator: 10,
    })
}

fn backend(service: &str) -> wire::Backend {
    wire::Backend {
        service: service.into(),
        port: 80,
        weight: 1,
        ..wire::Backend::default()
    }
}

fn resource(name: &str, body: Body) -> wire::Resource {
    wire::Resource {
        name: name.into(),
        version: 1,
        body: Some(body),
    }
}

fn filters() -> Vec<Kind> {
    let modifier = || wire::HeaderModifier {
        set: vec![header("x-a", "1")],
        add: vec![header("x-b", "2")],
        remove: vec!["x-c".into()],
    };
    let path = |kind| Some(wire::PathModifier { kind: Some(kind) });
    use wire::fault_injection::{Abort, Delay, Truncate, abort::Status};
    use wire::path_modifier::Kind as Path;
    vec![
        Kind::RequestHeaders(modifier()),
        Kind::ResponseHeaders(modifier()),
        Kind::UrlRewrite(wire::UrlRewrite {
            hostname: "api.example".into(),
            path: path(Path::Prefix(wire::PrefixReplacement {
                prefix: "/v1".into(),
                replacement: "/v2".into(),
            })),
        }),
        Kind::Redirect(wire::Redirect {
            scheme: "https".into(),
            hostname: "api.example".into(),
            port: 8443,
            path: path(Path::FullPath("/new".into())),
            status: 301,
        }),
        Kind::Mirror(wire::Mirror {
            backend: Some(backend("default/shadow")),
            fraction: one_in_ten(),
        }),
        Kind::Cors(wire::Cors {
            allow_origins: vec!["https://app.example".into(), "https://*.example".into()],
            allow_credentials: true,
            allow_methods: vec!["GET".into()],
            allow_headers: vec!["x-a".into()],
            expose_headers: vec!["x-b".into()],
            max_age: time(60_000),
        }),
        Kind::DirectResponse(wire::DirectResponse {
            status: 418,
            content_type: "text/plain".into(),
            body: b"no".to_vec(),
        }),
        Kind::FaultInjection(wire::FaultInjection {
            delay: Some(Delay {
                duration: time(100),
                fraction: one_in_ten(),
            }),
            abort: Some(Abort {
                status: Some(Status::Grpc(14)),
                fraction: one_in_ten(),
            }),
            truncate: Some(Truncate {
                after_bytes: 100,
                fraction: one_in_ten(),
            }),
            headers: vec![wire::HeaderMatch {
                name: "x-a".into(),
                value: text(Text::Prefix("1".into())),
            }],
        }),
    ]
}

/// Named so that a kind that is added does not compile before it is here.
fn name_of(kind: &Kind) -> &'static str {
    match kind {
        Kind::RequestHeaders(_) => "request_headers",
        Kind::ResponseHeaders(_) => "response_headers",
        Kind::UrlRewrite(_) => "url_rewrite",
        Kind::Redirect(_) => "redirect",
        Kind::Mirror(_) => "mirror",
        Kind::Cors(_) => "cors",
        Kind::DirectResponse(_) => "direct_response",
        Kind::FaultInjection(_) => "fault_injection",
    }
}

fn kind_of(body: &Body) -> &'static str {
    match body {
        Body::Mesh(_) => "mesh",
        Body::Workload(_) => "workload",
        Body::Host(_) => "host",
        Body::Service(_) => "service",
        Body::Endpoints(_) => "endpoints",
    }
}

fn all() -> Vec<(String, wire::Resource)> {
    let mut all = vec![
        ("service", service("default", "chat", 1)),
        ("endpoints", endpoints_with(|_| {})),
    ];
    all.extend(others());
    all.extend(services::workloads());
    all.extend(services::of_services());
    all.extend(of_rules());
    let mut all: Vec<_> = all
        .into_iter()
        .map(|(name, resource)| (name.to_owned(), resource))
        .collect();
    for kind in filters() {
        let name = format!("filter_{}", name_of(&kind));
        let filter = wire::Filter { kind: Some(kind) };
        all.push((name, with_rule(|rule| rule.filters = vec![filter])));
    }
    all
}

fn endpoints_with(change: impl FnOnce(&mut wire::Endpoints)) -> wire::Resource {
    let endpoint = wire::Endpoint {
        address: "10.0.0.1:15006".into(),
        identity: SERVER.into(),
        weight: 1,
        mtls: true,
        instance: "i".into(),
        ..wire::Endpoint::default()
    };
    let mut resource = endpoints("default/chat", 1, vec![endpoint]);
    let Some(Body::Endpoints(body)) = &mut resource.body else {
        unreachable!()
    };
    change(body);
    resource
}

fn others() -> Vec<(&'static str, wire::Resource)> {
    let mesh = wire::Mesh {
        trust_domain: "outrigger.local".into(),
        mtls_mode: wire::MtlsMode::Permissive.into(),
        access_log: wire::AccessLog::Errors.into(),
        unknown_hosts: wire::UnknownHosts::PassThrough.into(),
        tracing: Some(wire::Tracing {
            endpoint: "http://collector:4317".into(),
            sampling_percent: 5.0,
            ca_certificates: Vec::new(),
        }),
    };
    let host = wire::Host {
        service: "default/chat".into(),
        port: 80,
    };
    let labels = || [("version".to_owned(), "v1".to_owned())].into();
    vec![
        ("mesh", resource("mesh", Body::Mesh(mesh))),
        ("host", resource("host/chat:80", Body::Host(host))),
        (
            "endpoints_labelled",
            endpoints_with(|body| {
                let endpoint = &mut body.endpoints[0];
                endpoint.ports = vec![80, 81];
                endpoint.labels = labels();
                endpoint.zone = "a".into();
                endpoint.address = "[2001:db8::1]:15006".into();
            }),
        ),
        (
            "endpoints_dns",
            endpoints_with(|body| {
                body.endpoints.clear();
                body.dns = vec![wire::DnsEndpoint {
                    host: "api.example".into(),
                    port: 443,
                    labels: labels(),
                    weight: 2,
                    zone: "a".into(),
                }];
            }),
        ),
    ]
}

fn of_rules() -> Vec<(&'static str, wire::Resource)> {
    use wire::fallback::{Cause, To};
    use wire::session_persistence::Carrier;
    let matched = |each: wire::Match| with_rule(|rule| rule.matches = vec![each]);
    let fallback = |on: Cause, to| wire::Fallback {
        on: vec![on.into()],
        model: match &to {
            To::Backend(_) => "tiny".into(),
            To::Response(_) => String::new(),
        },
        to: Some(to),
    };
    vec![
        (
            "rule_matches",
            matched(wire::Match {
                hosts: vec!["chat".into(), "*.example".into()],
                path: text(Text::Regex("/v[0-9]+/.*".into())),
                method: "GET".into(),
                headers: vec![wire::HeaderMatch {
                    name: "x-a".into(),
                    value: text(Text::Exact("1".into())),
                }],
                port: 80,
                query_params: vec![wire::QueryParamMatch {
                    name: "q".into(),
                    value: text(Text::Regex("a.*".into())),
                }],
                grpc: None,
                model: Some(wire::ModelMatch {
                    kind: Some(wire::model_match::Kind::Glob("llama-*".into())),
                }),
            }),
        ),
        (
            "rule_grpc_match",
            matched(wire::Match {
                grpc: Some(wire::GrpcMatch {
                    service: text(Text::Exact("a.B".into())),
                    method: text(Text::Regex("Get.*".into())),
                }),
                ..wire::Match::default()
            }),
        ),
        (
            "rule_backends",
            with_rule(|rule| {
                rule.backends[0].subset = [("version".to_owned(), "v1".to_owned())].into();
                rule.backends.push(wire::Backend {
                    weight: 9,
                    ..backend("default/other")
                });
            }),
        ),
        (
            "rule_timeouts",
            with_rule(|rule| {
                rule.timeouts = Some(wire::Timeouts {
                    request: time(30_000),
                    per_try: time(5000),
                    response_headers: time(10_000),
                    stream_idle: time(60_000),
                    stream_lifetime: time(600_000),
                    first_byte: time(20_000),
                });
            }),
        ),
        (
            "rule_retry",
            with_rule(|rule| {
                rule.expose_attempts = true;
                rule.retry = Some(wire::Retry {
                    max_retries: 2,
                    statuses: vec![502, 503],
                    grpc_codes: vec![14],
                    methods: vec!["GET".into(), "POST".into()],
                    on_reset: true,
                    on_timeout: true,
                    backoff_base: time(25),
                    backoff_max: time(250),
                    max_body_bytes: 4096,
                    budget_percent: 20,
                    budget_min_per_second: 10,
                });
            }),
        ),
        (
            "rule_hedge",
            with_rule(|rule| {
                rule.hedge = Some(wire::Hedge {
                    delay: time(200),
                    max_requests: 2,
                    methods: vec!["GET".into()],
                });
            }),
        ),
        (
            "rule_continuation",
            with_rule(|rule| {
                rule.continuation = Some(wire::Continuation {
                    mode: wire::continuation::Mode::Auto.into(),
                    max_attempts: 2,
                    max_bytes: 65_536,
                });
            }),
        ),
        (
            "rule_fallbacks",
            with_rule(|rule| {
                let response = wire::StaticResponse {
                    status: 503,
                    content_type: "application/json".into(),
                    body: b"{}".to_vec(),
                };
                rule.fallbacks = vec![
                    fallback(Cause::NoEndpoints, To::Backend(backend("default/spare"))),
                    fallback(Cause::ServerError, To::Response(response)),
                ];
            }),
        ),
        (
            "rule_session",
            with_rule(|rule| {
                rule.session_persistence = Some(wire::SessionPersistence {
                    name: "session".into(),
                    carrier: Carrier::Cookie.into(),
                    absolute_timeout: time(3_600_000),
                    permanent: true,
                    key: vec![7; 32],
                });
            }),
        ),
    ]
}

#[test]
fn there_is_one_of_each() {
    let all = all();
    let mut kinds = BTreeSet::new();
    let mut filters = BTreeSet::new();
    for (name, resource) in &all {
        assert_eq!(
            convert::check(resource, "outrigger.local"),
            Ok(()),
            "{name}"
        );
        let body = resource.body.as_ref().unwrap();
        kinds.insert(kind_of(body));
        if let Body::Service(service) = body {
            let each = service.rules.iter().flat_map(|rule| &rule.filters);
            filters.extend(each.filter_map(|filter| filter.kind.as_ref()).map(name_of));
        }
    }
    assert_eq!(kinds.len(), 5, "{kinds:?}");
    assert_eq!(filters.len(), 8, "{filters:?}");
}

/// `UPDATE_GOLDEN=1` writes them.
#[test]
fn the_files_are_up_to_date() {
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/seeds/config_conversion");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let all = all();
    for (name, resource) in &all {
        let path = folder.join(name);
        let bytes = resource.encode_to_vec();
        if update {
            std::fs::write(&path, &bytes).unwrap();
        }
        let held = std::fs::read(&path).unwrap_or_default();
        assert_eq!(held, bytes, "{name}: run with UPDATE_GOLDEN=1");
    }
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), all.len());
}
