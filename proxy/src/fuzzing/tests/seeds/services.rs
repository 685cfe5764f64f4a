//! Ports that are served, and what services say.

use outrigger_proto::dataplane::v1 as wire;
use wire::resource::Body;

use super::{SERVER, resource, time, with_service};

fn inbound(protocol: wire::Protocol) -> wire::InboundPort {
    wire::InboundPort {
        service: "default/chat".into(),
        port: 80,
        protocol: protocol.into(),
        ..wire::InboundPort::default()
    }
}

fn workload(ports: Vec<wire::InboundPort>) -> wire::Resource {
    resource("workload", Body::Workload(wire::Workload { ports }))
}

pub(super) fn workloads() -> Vec<(&'static str, wire::Resource)> {
    use wire::rate_limit_key::Of;
    use wire::server_limits::Concurrency;
    let limited = |concurrency| wire::InboundPort {
        limits: Some(wire::ServerLimits {
            concurrency: Some(concurrency),
            queue: Some(wire::Queue {
                max_length: 10,
                max_wait: time(1000),
                target: time(5),
                interval: time(100),
            }),
            priorities: Some(wire::Priorities {
                header: "x-outrigger-priority".into(),
                reserved_percent: 10,
                callers: vec![wire::CallerPriority {
                    identities: vec![SERVER.into()],
                    priority: wire::Priority::Default.into(),
                    highest: wire::Priority::Critical.into(),
                }],
            }),
        }),
        ..inbound(wire::Protocol::Http)
    };
    let key = |of: Of, header: &str| wire::RateLimitKey {
        of: of.into(),
        header: header.into(),
    };
    let rate_limit = wire::RateLimit {
        tokens: Some(wire::TokenBudget {
            tokens: 100_000,
            shared: true,
            advance: 5000,
            ..Default::default()
        }),
        policy: "default/fair".into(),
        name: "each".into(),
        matches: vec![wire::Match {
            method: "POST".into(),
            ..wire::Match::default()
        }],
        key: vec![
            key(Of::Identity, ""),
            key(Of::Namespace, ""),
            key(Of::Path, ""),
            key(Of::Method, ""),
            key(Of::Header, "x-tenant"),
        ],
        requests: 10,
        per: time(1000),
        burst: 20,
        max_keys: 100,
        always_report: true,
    };
    let adaptive = wire::AdaptiveLimit {
        algorithm: wire::adaptive_limit::Algorithm::Gradient2.into(),
        min_limit: 2,
        max_limit: 50,
        tolerance_percent: 150,
    };
    let batch = wire::BatchLimit {
        size: 0,
        head_room_percent: 10,
        start: 64,
        max: 512,
    };
    vec![
        (
            "workload",
            workload(vec![
                inbound(wire::Protocol::Http),
                wire::InboundPort {
                    port: 81,
                    ..inbound(wire::Protocol::Grpc)
                },
            ]),
        ),
        (
            "workload_bytes",
            workload(vec![wire::InboundPort {
                tcp_idle_timeout: time(60_000),
                tcp_lifetime: time(3_600_000),
                detection_timeout: time(500),
                server_first: true,
                ..inbound(wire::Protocol::Auto)
            }]),
        ),
        (
            "workload_fixed_limit",
            workload(vec![limited(Concurrency::Fixed(4))]),
        ),
        (
            "workload_adaptive_limit",
            workload(vec![limited(Concurrency::Adaptive(adaptive))]),
        ),
        (
            "workload_batch_limit",
            workload(vec![limited(Concurrency::Batch(batch))]),
        ),
        (
            "workload_rate_limits",
            workload(vec![wire::InboundPort {
                rate_limits: vec![rate_limit],
                ..inbound(wire::Protocol::Http2)
            }]),
        ),
    ]
}

pub(super) fn of_services() -> Vec<(&'static str, wire::Resource)> {
    use wire::hash_input::Kind as Hash;
    use wire::health_check::Check;
    use wire::load_balancing::Policy;
    let balanced = |balancing| with_service(|it| it.load_balancing = Some(balancing));
    let check = |check| wire::HealthCheck {
        check: Some(check),
        port: 80,
        interval: time(5000),
        timeout: time(1000),
        unhealthy_threshold: 3,
        healthy_threshold: 2,
    };
    let hashed = |kind, terminal| wire::HashInput {
        kind: Some(kind),
        terminal,
    };
    vec![
        (
            "service_ports",
            with_service(|it| {
                let protocols = [
                    wire::Protocol::Http2,
                    wire::Protocol::Tls,
                    wire::Protocol::Auto,
                ];
                let ports = (81..)
                    .zip(protocols)
                    .map(|(port, protocol)| wire::ServicePort {
                        port,
                        name: format!("p{port}"),
                        protocol: protocol.into(),
                        ..wire::ServicePort::default()
                    });
                it.ports.extend(ports);
                it.tcp_idle_timeout = time(60_000);
                it.tcp_lifetime = time(3_600_000);
                it.connect_timeout = time(1500);
            }),
        ),
        (
            "service_hash",
            balanced(wire::LoadBalancing {
                policy: Policy::Maglev.into(),
                maglev_table_size: 251,
                bounded_load_percent: 125,
                hash: vec![
                    hashed(Hash::Header("x-user".into()), true),
                    hashed(
                        Hash::Cookie(wire::HashCookie {
                            name: "c".into(),
                            ttl: time(60_000),
                            path: "/".into(),
                        }),
                        false,
                    ),
                    hashed(Hash::SourceIdentity(true), false),
                    hashed(Hash::Path(true), false),
                    hashed(Hash::QueryParameter("q".into()), false),
                ],
                ..wire::LoadBalancing::default()
            }),
        ),
        (
            "service_ewma",
            balanced(wire::LoadBalancing {
                policy: Policy::PeakEwma.into(),
                ewma_decay: time(10_000),
                zone: Some(wire::ZonePreference {
                    overprovisioning_percent: 140,
                    min_local_percent: 50,
                }),
                slow_start: Some(wire::SlowStart {
                    window: time(30_000),
                    aggression: 2,
                    min_percent: 10,
                }),
                panic_threshold_percent: Some(30),
                ..wire::LoadBalancing::default()
            }),
        ),
        (
            "service_limits",
            with_service(|it| {
                it.limits = Some(wire::CallerLimits {
                    connections: Some(10),
                    pending: Some(10),
                    requests: Some(100),
                    retries: Some(3),
                    endpoint_connections: Some(5),
                    endpoint_requests: Some(50),
                    throttling: Some(wire::Throttling {
                        ratio_percent: 200,
                        window: time(120_000),
                    }),
                });
            }),
        ),
        (
            "service_outliers",
            with_service(|it| {
                it.outlier_detection = Some(wire::OutlierDetection {
                    consecutive_5xx: 5,
                    consecutive_gateway_failures: 5,
                    consecutive_connect_failures: 3,
                    interval: time(10_000),
                    base_ejection_time: time(30_000),
                    max_ejection_time: time(300_000),
                    max_ejection_percent: 10,
                    min_healthy_percent: 50,
                    success_rate: Some(wire::SuccessRate {
                        minimum_hosts: 5,
                        request_volume: 100,
                        stdev_factor_thousandths: 1900,
                    }),
                });
            }),
        ),
        (
            "service_checks",
            with_service(|it| {
                it.health_checks = vec![
                    check(Check::Http(wire::HttpCheck {
                        path: "/healthz".into(),
                        host: "chat".into(),
                        expected_statuses: vec![wire::StatusRange {
                            first: 200,
                            last: 299,
                        }],
                    })),
                    check(Check::Grpc(wire::GrpcCheck {
                        service: "a.B".into(),
                        host: "chat".into(),
                    })),
                    check(Check::Tcp(wire::TcpCheck {})),
                ];
            }),
        ),
        (
            "service_pool",
            with_service(|it| {
                it.connection_pool = Some(wire::ConnectionPool {
                    http1_idle_timeout: time(60_000),
                    http1_max_idle: 8,
                    http2_max_streams: 100,
                    http2_max_connections: 4,
                    keep_alive_interval: time(20_000),
                    keep_alive_timeout: time(5000),
                    max_age: time(600_000),
                    max_requests: 1000,
                    pre_warm: 1,
                });
            }),
        ),
        (
            "service_inference",
            with_service(|it| {
                it.inference = Some(wire::Inference {
                    max_body_bytes: 65_536,
                    models: vec![wire::Model {
                        name: "llama-3".into(),
                        aliases: vec!["llama".into()],
                        served_as: "meta/llama-3".into(),
                        subset: [("gpu".to_owned(), "a".to_owned())].into(),
                    }],
                    unknown_models: wire::UnknownModels::Refuse.into(),
                    answer_model_list: true,
                    streams: Some(wire::TokenStreams {
                        first_token_timeout: time(20_000),
                        token_idle_timeout: time(10_000),
                        keep_alive: time(5000),
                        request_usage: true,
                    }),
                    ..wire::Inference::default()
                });
            }),
        ),
        (
            "service_tls",
            with_service(|it| {
                it.tls = Some(wire::OriginTls {
                    sni: "api.example".into(),
                    subject_alt_names: vec!["api.example".into()],
                    ..wire::OriginTls::default()
                });
            }),
        ),
    ]
}
