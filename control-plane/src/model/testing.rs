//! Arbitrary valid resources, for property tests.
#![allow(clippy::unwrap_used)]

mod health;
mod inference;
mod limits;

use std::net::{Ipv4Addr, SocketAddr};

use proptest::collection::{btree_map, btree_set, vec};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::{
    AccessLog, BackendRef, ConnectionPool, Continuation, ContinuationMode, Duration, Fallback,
    FallbackCause, FallbackRef, FallbackResponse, FaultAbort, FaultDelay, FaultInjection,
    FilterType, GrpcCode, GrpcMatch, HashInput, Header, HeaderMatch, HeaderModifier, Hedge,
    Http1Pool, Http2Pool, KeepAlive, Labels, LoadBalancing, LoadBalancingPolicy, MeshSpec,
    MeshTimeouts, MirrorBackend, Mtls, MtlsMode, ParentRef, PathMatch, PathMatchType, Protocol,
    QueryParamMatch, RequestMirror, RequestTimeouts, Resource, Retry, RetryBudget, RingHash,
    RouteFilter, RouteMatch, RouteRule, RouteSpec, ServiceEndpoints, ServicePort, ServiceSpec,
    ServiceTimeouts, SlowStart, StaticEndpoint, Telemetry, ValueMatchType, ZoneMode,
    ZonePreference,
};

/// A `Mesh`, a `Service`, a `Route` or a `RateLimit`.
pub(crate) fn resource() -> impl Strategy<Value = Resource> {
    let service =
        (name(), name(), labels(), service_spec()).prop_map(|(namespace, name, labels, spec)| {
            let mut resource = Resource::new(&namespace, &name, spec);
            resource.metadata.labels = labels;
            resource
        });
    let route = (name(), name(), route_spec())
        .prop_map(|(namespace, name, spec)| Resource::new(&namespace, &name, spec));
    prop_oneof![
        // Boxed: together their state is too large for a test's stack.
        mesh_spec()
            .prop_map(|spec| Resource::new("", "default", spec))
            .boxed(),
        service.boxed(),
        route.boxed(),
        limits::rate_limit().boxed()
    ]
}

fn name() -> impl Strategy<Value = String> {
    // Such as YAML takes for something else when it is not quoted are among them.
    prop_oneof![
        "[a-z]([a-z0-9-]{0,8}[a-z0-9])?",
        select(vec!["true", "null", "on", "1", "0x1", "1e3", "12"]).prop_map(str::to_owned)
    ]
}

fn labels() -> impl Strategy<Value = Labels> {
    btree_map(
        "([a-z]{1,4}\\.example/)?[a-zA-Z]([a-zA-Z0-9_.-]{0,6}[a-z])?",
        "|[a-z0-9]|1|true|[a-z][a-z.]{1,5}x",
        0..3,
    )
}

fn timeout() -> impl Strategy<Value = Option<Duration>> {
    of((1u64..2_592_000_000).prop_map(Duration::from_millis))
}

fn request_timeouts() -> impl Strategy<Value = RequestTimeouts> {
    let before = (timeout(), timeout(), timeout(), timeout());
    (before, timeout(), timeout()).prop_map(|(before, stream_idle, stream_lifetime)| {
        let (request, backend_request, response_headers, first_byte) = before;
        RequestTimeouts {
            request,
            backend_request,
            response_headers,
            first_byte,
            stream_idle,
            stream_lifetime,
        }
    })
}

fn retry() -> impl Strategy<Value = Retry> {
    let grpc = vec![
        GrpcCode::Unavailable,
        GrpcCode::Internal,
        GrpcCode::DeadlineExceeded,
        GrpcCode::DataLoss,
    ];
    let methods = vec!["GET".to_owned(), "POST".to_owned(), "PUT".to_owned()];
    let budget =
        (of(1u32..=1000), of(1u32..=1000)).prop_map(|(percent, min_per_second)| RetryBudget {
            percent,
            min_per_second,
        });
    (
        of(0u32..=10),
        of(btree_set(400u16..600, 0..4).prop_map(|codes| codes.into_iter().collect())),
        of(subsequence(grpc, 0..4)),
        of(subsequence(methods, 0..3)),
        of(any::<bool>()),
        of(any::<bool>()),
        of((1u64..60, 0u64..60)),
        of(1u64..16_000_000),
        of(budget),
    )
        .prop_map(
            |(
                attempts,
                codes,
                grpc_codes,
                methods,
                on_reset,
                on_timeout,
                pauses,
                max_body_bytes,
                budget,
            )| Retry {
                attempts,
                codes,
                grpc_codes,
                methods,
                on_reset,
                on_timeout,
                backoff: pauses.map(|(first, _)| Duration::from_millis(first)),
                max_backoff: pauses.map(|(first, more)| Duration::from_millis(first + more)),
                max_body_bytes,
                budget,
            },
        )
}

fn mesh_spec() -> impl Strategy<Value = MeshSpec> {
    (
        of(Just("outrigger.local".to_owned())),
        of(select(vec![MtlsMode::Strict, MtlsMode::Permissive])),
        (timeout(), request_timeouts()),
        (of(retry()), of(health::outlier_detection())),
        of(select(vec![
            AccessLog::Off,
            AccessLog::Errors,
            AccessLog::All,
        ])),
    )
        .prop_map(
            |(trust_domain, mode, (connect, requests), (retry, outlier_detection), access_log)| {
                MeshSpec {
                    outlier_detection,
                    trust_domain,
                    mtls: Mtls { mode },
                    timeouts: MeshTimeouts {
                        connect,
                        request: requests.request,
                        backend_request: requests.backend_request,
                        response_headers: requests.response_headers,
                        first_byte: requests.first_byte,
                        stream_idle: requests.stream_idle,
                        stream_lifetime: requests.stream_lifetime,
                    },
                    retry,
                    telemetry: Telemetry {
                        access_log,
                        tracing: None,
                    },
                    outbound: crate::model::MeshOutbound::default(),
                }
            },
        )
}

fn connection_pool() -> impl Strategy<Value = ConnectionPool> {
    let millis = || of((1000u64..3_600_000).prop_map(Duration::from_millis));
    (
        (millis(), of(1u32..65_536)),
        (of(1u32..65_536), of(1u32..1024), millis(), millis()),
        (millis(), of(1u64..1_000_000_000), of(0u32..=16)),
    )
        .prop_map(|(http1, http2, (age, requests, pre_warm))| ConnectionPool {
            http1: Http1Pool {
                idle_timeout: http1.0,
                max_idle: http1.1,
            },
            http2: Http2Pool {
                max_concurrent_streams: http2.0,
                max_connections: http2.1,
                keep_alive: KeepAlive {
                    interval: http2.2,
                    timeout: http2.3,
                },
            },
            max_connection_age: age,
            max_requests_per_connection: requests,
            pre_warm,
        })
}

fn service_spec() -> impl Strategy<Value = ServiceSpec> {
    let protocol = select(vec![
        Protocol::Http,
        Protocol::Http2,
        Protocol::Grpc,
        Protocol::Tcp,
        Protocol::Tls,
        Protocol::Auto,
    ]);
    let ports = btree_map(1u16.., (any::<bool>(), protocol), 1..4).prop_map(|ports| {
        let port = |(port, (named, protocol)): (u16, (bool, Protocol))| ServicePort {
            name: named.then(|| format!("p{port}")),
            port,
            protocol,
            detection_timeout: (named && protocol == Protocol::Auto)
                .then(|| Duration::from_millis(u64::from(port.clamp(1, 60_000)))),
            server_first: (protocol == Protocol::Auto).then_some(named),
        };
        ports.into_iter().map(port).collect::<Vec<_>>()
    });
    let endpoint = (
        of(1u32..1_000_000),
        labels(),
        of("[a-z]{0,3}"),
        of(any::<bool>()),
    );
    let endpoints = btree_map((1u32.., 1u16..), endpoint, 0..3).prop_map(|endpoints| {
        let endpoint = |((ip, port), (weight, labels, zone, mtls))| StaticEndpoint {
            address: SocketAddr::new(Ipv4Addr::from(ip).into(), port),
            weight,
            labels,
            zone,
            mtls,
        };
        ServiceEndpoints {
            fixed: endpoints.into_iter().map(endpoint).collect(),
            dns: Vec::new(),
        }
    });
    // Boxed: the stack of a test is small for all of it.
    let balancing = balancing().boxed();
    let set = |pattern: &'static str| {
        btree_set(pattern, 0..3).prop_map(|set| set.into_iter().collect::<Vec<_>>())
    };
    (
        set("(\\*\\.)?[a-z]{1,5}\\.example"),
        ports,
        set("[a-z]{1,5}"),
        set("spiffe://outrigger\\.local/ns/[a-z]{1,3}/(sa/[a-z]|\\*)"),
        endpoints,
        balancing,
        (timeout(), timeout(), request_timeouts()),
        (of(retry()), connection_pool(), of(limits::limits().boxed())),
        (
            of(health::outlier_detection()),
            health::health_checks(),
            of(inference::inference().boxed()),
        ),
    )
        .prop_map(
            |(
                hosts,
                ports,
                service_accounts,
                identities,
                endpoints,
                load_balancing,
                times,
                (retry, connection_pool, limits),
                (outlier_detection, health_checks, inference),
            )| {
                let (connect, tcp_idle, requests) = times;
                // A batch is a model server's.
                let batch = limits.as_ref().and_then(|limits| limits.batch);
                let inference = inference.or(batch.map(|_| super::Inference::default()));
                ServiceSpec {
                    hosts,
                    ports,
                    service_accounts,
                    identities,
                    endpoints,
                    tls: None,
                    load_balancing,
                    timeouts: ServiceTimeouts {
                        connect,
                        request: requests.request,
                        backend_request: requests.backend_request,
                        response_headers: requests.response_headers,
                        first_byte: requests.first_byte,
                        stream_idle: requests.stream_idle,
                        stream_lifetime: requests.stream_lifetime,
                        tcp_idle,
                        tcp_lifetime: connect,
                    },
                    retry,
                    connection_pool,
                    limits,
                    outlier_detection,
                    health_checks,
                    inference,
                }
            },
        )
}

fn balancing() -> impl Strategy<Value = LoadBalancing> {
    let decay = of((100u64..3_600_000).prop_map(Duration::from_millis));
    let zone = (
        of(Just(ZoneMode::Prefer)),
        of(100u32..=1000),
        of(0u32..=100),
    )
        .prop_map(
            |(preference, overprovisioning, min_local_percent)| ZonePreference {
                preference,
                overprovisioning,
                min_local_percent,
            },
        );
    let slow_start = (1u64..3600, of(1u32..=10), of(1u32..=100)).prop_map(
        |(seconds, aggression, min_percent)| SlowStart {
            window: Duration::from_secs(seconds),
            aggression,
            min_percent,
        },
    );
    let plain = select(vec![
        LoadBalancingPolicy::PeakEwma,
        LoadBalancingPolicy::Random,
    ]);
    let plain = (of(plain), decay, of(zone), of(slow_start), of(0u32..=100)).prop_map(
        |(policy, ewma_decay, zone, slow_start, panic_threshold)| LoadBalancing {
            policy,
            ewma_decay,
            zone,
            slow_start,
            panic_threshold,
            ..LoadBalancing::default()
        },
    );
    let hashing = (
        "[a-z]{1,6}",
        of(101u32..=1000),
        of(1u32..65_536),
        any::<bool>(),
    )
        .prop_map(
            |(header, bounded_load, minimum_ring_size, terminal)| LoadBalancing {
                policy: Some(LoadBalancingPolicy::RingHash),
                hash: vec![HashInput {
                    header: Some(header),
                    terminal: Some(terminal),
                    ..HashInput::default()
                }],
                ring_hash: Some(RingHash { minimum_ring_size })
                    .filter(|ring| ring.minimum_ring_size.is_some()),
                bounded_load,
                ..LoadBalancing::default()
            },
        );
    prop_oneof![plain, hashing]
}

fn route_match() -> impl Strategy<Value = RouteMatch> {
    let path = (
        of(select(vec![
            PathMatchType::Exact,
            PathMatchType::PathPrefix,
            PathMatchType::RegularExpression,
        ])),
        of("/[a-z0-9%]{0,5}"),
    )
        .prop_map(|(match_type, value)| PathMatch { match_type, value });
    let kind = of(select(vec![
        ValueMatchType::Exact,
        ValueMatchType::RegularExpression,
    ]));
    let headers =
        btree_map("[A-Za-z-]{1,6}", (kind.clone(), "[a-z0-9]{1,5}"), 0..3).prop_map(|headers| {
            let header = |(name, (match_type, value))| HeaderMatch {
                match_type,
                name,
                value,
            };
            headers.into_iter().map(header).collect()
        });
    let query_params = btree_map("[A-Za-z %]{1,6}", (kind.clone(), "[a-z0-9]{1,5}"), 0..3)
        .prop_map(|params| {
            let param = |(name, (match_type, value))| QueryParamMatch {
                match_type,
                name,
                value,
            };
            params.into_iter().map(param).collect::<Vec<_>>()
        });
    let grpc = (kind, "[a-z]{1,3}(\\.[A-Z]{1,3})?", of("[A-Z][a-z]{0,3}")).prop_map(
        |(match_type, service, method)| GrpcMatch {
            match_type,
            service: Some(service),
            method,
        },
    );
    (
        of(path),
        of(select(vec!["GET".to_owned(), "POST".to_owned()])),
        headers,
        query_params,
        of(grpc),
        of(inference::model_match()),
    )
        .prop_map(|(path, method, headers, query_params, grpc, model)| {
            let plain = grpc.is_none();
            RouteMatch {
                path: path.filter(|_| plain),
                method: method.filter(|_| plain),
                headers,
                query_params: if plain { query_params } else { Vec::new() },
                grpc,
                model,
            }
        })
}

fn filters() -> impl Strategy<Value = Vec<RouteFilter>> {
    let header = ("x-[a-z]{1,4}", "[a-z]([a-z ,]{0,5}[a-z])?")
        .prop_map(|(name, value)| Header { name, value });
    let modifier = (header, of("x-[a-z]{1,4}")).prop_map(|(header, remove)| HeaderModifier {
        set: vec![header.clone()],
        add: vec![header],
        remove: remove.into_iter().collect(),
    });
    let mirror = (name(), of(0u32..=100)).prop_map(|(name, percent)| RouteFilter {
        request_mirror: Some(RequestMirror {
            backend_ref: MirrorBackend {
                name,
                namespace: None,
                port: None,
                subset: Labels::new(),
            },
            percent,
            fraction: None,
        }),
        ..RouteFilter::new(FilterType::RequestMirror)
    });
    let fault = (of(1u64..60_000), of(0u32..=100)).prop_map(|(delay, percent)| RouteFilter {
        fault_injection: Some(FaultInjection {
            delay: delay.map(|delay| FaultDelay {
                duration: Duration::from_millis(delay),
                percent,
            }),
            abort: Some(FaultAbort {
                status_code: percent.map(|_| 503),
                grpc_status: percent.is_none().then_some(GrpcCode::Unavailable),
                percent,
            }),
            ..FaultInjection::default()
        }),
        ..RouteFilter::new(FilterType::FaultInjection)
    });
    (of(modifier), vec(mirror, 0..2), of(fault)).prop_map(|(modifier, mirrors, fault)| {
        let modifier = modifier.map(|modifier| RouteFilter {
            request_header_modifier: Some(modifier),
            ..RouteFilter::new(FilterType::RequestHeaderModifier)
        });
        modifier.into_iter().chain(mirrors).chain(fault).collect()
    })
}

type Recovery = (
    Option<Hedge>,
    Vec<Fallback>,
    Option<Continuation>,
    Option<bool>,
);

fn recovery() -> impl Strategy<Value = Recovery> {
    let methods = of(subsequence(vec!["GET".to_owned(), "POST".to_owned()], 0..3));
    let hedge = (1u64..60_000, of(2u32..=5), methods).prop_map(|(delay, max_requests, methods)| {
        let delay = Duration::from_millis(delay);
        Hedge {
            delay,
            max_requests,
            methods,
        }
    });
    let reference =
        (name(), of(name()), of(1u16..), labels()).prop_map(|(name, namespace, port, subset)| {
            FallbackRef {
                name,
                namespace,
                port,
                subset,
            }
        });
    let response = (
        200u16..600,
        of(Just("text/html".to_owned())),
        "[a-z: é\n]{0,9}",
    )
        .prop_map(|(status_code, content_type, body)| FallbackResponse {
            status_code,
            content_type,
            body,
        });
    let way = prop_oneof![
        reference.prop_map(|reference| (Some(reference), None)),
        response.prop_map(|response| (None, Some(response)))
    ];
    let causes = of(subsequence(FallbackCause::UNPROCESSED.to_vec(), 1..4));
    let fallback = (causes, way, of(Just("org/tiny".to_owned()))).prop_map(
        |(on, (backend_ref, direct_response), model)| Fallback {
            on,
            model: model.filter(|_| backend_ref.is_some()),
            backend_ref,
            direct_response,
        },
    );
    let modes = vec![
        ContinuationMode::Auto,
        ContinuationMode::Tokens,
        ContinuationMode::Text,
    ];
    let continuation = (of(select(modes)), of(1u32..=3), of(1024u32..=4 << 20)).prop_map(
        |(mode, max_attempts, max_bytes)| Continuation {
            mode,
            max_attempts,
            max_bytes,
        },
    );
    (
        of(hedge),
        vec(fallback, 0..2),
        of(continuation),
        of(any::<bool>()),
    )
}

fn route_spec() -> impl Strategy<Value = RouteSpec> {
    let parent = (name(), of(name()), of(1u16..)).prop_map(|(name, namespace, port)| {
        let kind = port.map(|_| "Service".to_owned());
        ParentRef {
            kind,
            name,
            namespace,
            port,
        }
    });
    let backend = (
        name(),
        of(name()),
        of(1u16..),
        of(1u32..1_000_000),
        labels(),
    )
        .prop_map(|(name, namespace, port, weight, subset)| BackendRef {
            name,
            namespace,
            port,
            weight,
            subset,
        });
    let rule = (
        vec(route_match(), 0..2),
        vec(backend, 0..2),
        request_timeouts(),
        of(retry()),
        recovery(),
        filters(),
    )
        .prop_map(
            |(matches, backend_refs, timeouts, retry, recovery, filters)| {
                let (hedge, fallbacks, continuation, expose_attempts) = recovery;
                RouteRule {
                    name: None,
                    matches,
                    filters,
                    backend_refs,
                    timeouts,
                    retry,
                    hedge,
                    fallbacks,
                    continuation,
                    expose_attempts,
                    session_persistence: None,
                }
            },
        );
    let hostnames =
        btree_set("[a-z]{1,4}\\.example", 0..2).prop_map(|set| set.into_iter().collect());
    (parent, hostnames, vec(rule, 1..4)).prop_map(|(parent, hostnames, mut rules)| {
        for (index, rule) in rules.iter_mut().enumerate().skip(1) {
            rule.name = Some(format!("rule-{index}"));
        }
        RouteSpec {
            parent_refs: vec![parent],
            hostnames,
            rules,
        }
    })
}
