#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::balance::{DEFAULT_DECAY, Endpoint, EndpointSet, Policy};
use crate::dns::Names;
use crate::policy::{
    Backend, Detection, HeaderMatch, HostEntry, HostMatch, InboundPort, Match, MeshPolicy,
    Protocol, QueryParamMatch, Recovery, Retry, Rule, Service, ServicePort, Snapshot, StringMatch,
    TcpLimits, Timeouts, Upstream,
};
use crate::resilience::{Backoff, RetryBudget};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{Direction, logging, testing};

/// Both ports of a sidecar with one service, and what keeps its log level alive.
struct Served {
    shared: Arc<Shared>,
    admin: SocketAddr,
    metrics: SocketAddr,
    _log: Box<dyn std::any::Any>,
}

async fn serve_snapshot(snapshot: Snapshot) -> Served {
    let shared = testing::shared(snapshot);
    let (log, log_level) = logging::detached("info").unwrap();
    let listeners = [
        bind("127.0.0.1:0".parse().unwrap()).await.unwrap(),
        bind("[::1]:0".parse().unwrap()).await.unwrap(),
    ];
    let [admin, metrics] = listeners
        .each_ref()
        .map(|listener| listener.local_addr().unwrap());
    let [admin_listener, metrics_listener] = listeners;
    tokio::spawn(serve(
        shared.clone(),
        log_level,
        admin_listener,
        metrics_listener,
    ));
    Served {
        shared,
        admin,
        metrics,
        _log: Box::new(log),
    }
}

/// Status and body. `head` is the request's first line and headers, each with its end.
async fn exchange(address: SocketAddr, head: &str, body: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "{head}Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_ascii_lowercase(), body.to_owned())
}

async fn ask(address: SocketAddr, method: &str, path: &str, body: &str) -> (u16, String, String) {
    exchange(
        address,
        &format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\n"),
        body,
    )
    .await
}

async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let (status, _, body) = ask(address, "GET", path, "").await;
    (status, body)
}

fn endpoint() -> Arc<Endpoint> {
    Arc::new(Endpoint {
        address: "10.0.0.5:15006".parse().unwrap(),
        mtls: true,
        identity: Some(
            "spiffe://outrigger.local/ns/default/sa/chat"
                .parse()
                .unwrap(),
        ),
        ports: Box::default(),
        labels: BTreeMap::from([("version".to_owned(), "v1".to_owned())]),
        weight: 3,
        zone: "a".into(),
        instance: "7d1f".into(),
        load: Arc::default(),
        outside: None,
        health: Arc::default(),
    })
}

fn snapshot() -> Snapshot {
    let endpoints = Arc::new(EndpointSet::new(
        Policy::PeakEwma,
        DEFAULT_DECAY,
        vec![endpoint()],
    ));
    let ports = vec![ServicePort {
        port: 80,
        name: "http".into(),
        protocol: Protocol::Http,
        detection: Detection::default(),
    }];
    let upstream = Arc::new(Upstream {
        inference: None,
        names: Box::default(),
        tls: None,
        has_loop: false,
        limits: None,
        service: "default/chat".into(),
        ports: ports.clone(),
        identities: vec!["spiffe://outrigger.local/ns/default/sa/*".parse().unwrap()],
        connect_timeout: Duration::from_secs(1),
        pool: Arc::default(),
        endpoints: endpoints.clone(),
        health: Default::default(),
    });
    let rule = Rule {
        session: None,
        route: "default/canary".into(),
        matches: vec![Match {
            model: None,
            hosts: vec![HostMatch::new("*.models")],
            path: Some(StringMatch::prefix("/v1/")),
            method: Some(http::Method::POST),
            headers: vec![HeaderMatch {
                name: "x-tier".parse().unwrap(),
                value: StringMatch::regex("gold|silver").unwrap(),
            }],
            query_params: vec![QueryParamMatch {
                name: "beta".into(),
                value: StringMatch::exact("1"),
            }],
            grpc: None,
            port: Some(80),
        }],
        backends: vec![Backend {
            model_endpoints: Box::default(),
            upstream: upstream.clone(),
            port: 80,
            protocol: Protocol::Http,
            weight: 90,
            endpoints,
            server_name: "80.chat.default.outrigger.local".try_into().unwrap(),
            metrics: Metrics::new().request(
                Direction::Outbound,
                "default/chat",
                "",
                "default/chat",
            ),
        }],
        total_weight: 90,
        turns: Arc::default(),
        timeouts: Timeouts {
            request: Some(Duration::from_secs(30)),
            ..Timeouts::default()
        },
        retry: Some(Retry {
            max_retries: 2,
            statuses: vec![http::StatusCode::SERVICE_UNAVAILABLE],
            grpc_codes: vec![14],
            methods: vec![http::Method::GET],
            on_reset: true,
            on_timeout: false,
            backoff: Backoff::default(),
            max_body_bytes: 65536,
        }),
        budget: Arc::new(RetryBudget::new(20, 10)),
        recovery: Recovery::default(),
        filters: None,
    };
    let service = Arc::new(Service {
        name: "default/chat".into(),
        ports,
        rules: vec![Arc::new(rule)],
        upstream,
        tcp: TcpLimits::default(),
    });
    let mut names = Names::unresolved(Arc::default());
    Snapshot {
        version: 7,
        // An address is its own answer.
        names: vec![names.want(&"default/llm".into(), &"192.0.2.1".into())],
        mesh: MeshPolicy {
            permissive: false,
            access_log: None,
            pass_through: false,
            tracing: None,
        },
        hosts: HashMap::from([
            (
                "chat".into(),
                HostEntry::Service {
                    service: service.clone(),
                    port: 80,
                },
            ),
            ("nobody.example".into(), HostEntry::Absent),
        ]),
        services: HashMap::from([("default/chat".into(), service)]),
        inbound: HashMap::from([(
            "80.embed.default.outrigger.local".into(),
            Arc::new(InboundPort {
                signals: None,
                inference: None,
                gate: None,
                rate_limits: None,
                service: "default/embed".into(),
                port: 80,
                protocol: Protocol::Grpc,
                application: "127.0.0.1:9001".parse().unwrap(),
                stream_idle_timeout: Some(Duration::from_secs(300)),
                proxy_protocol: None,
                tcp: TcpLimits::default(),
                detection: Detection::default(),
                pool: Arc::default(),
            }),
        )]),
        ..Snapshot::default()
    }
}

#[tokio::test]
async fn live_from_the_first_moment_and_ready_when_everything_is_there() {
    let served = serve_snapshot(Snapshot::default()).await;
    for address in [served.admin, served.metrics] {
        assert_eq!(get(address, "/live").await, (200, "live\n".to_owned()));
        let expected = "not ready\nno identity yet\nno configuration yet\n".to_owned();
        assert_eq!(get(address, "/ready").await, (503, expected));
    }
    served.shared.status.set_config();
    assert_eq!(
        get(served.metrics, "/ready").await,
        (503, "not ready\nno identity yet\n".to_owned())
    );
}

#[tokio::test]
async fn metrics_on_both_ports() {
    let served = serve_snapshot(snapshot()).await;
    for address in [served.admin, served.metrics] {
        let (status, head, body) = ask(address, "GET", "/metrics", "").await;
        assert_eq!(status, 200);
        assert!(
            head.contains("content-type: text/plain; version=0.0.4"),
            "{head}"
        );
        assert!(body.contains("\noutrigger_config_version 7\n"));
        assert!(
            body.contains("\noutrigger_endpoints{service=\"default/chat\",state=\"ready\"} 1\n")
        );
        assert!(body.contains("\nprocess_resident_memory_bytes "));
    }
    let (status, _, body) = ask(served.metrics, "HEAD", "/metrics", "").await;
    assert_eq!((status, body.len()), (200, 0));
}

#[tokio::test]
async fn the_configuration() {
    let served = serve_snapshot(snapshot()).await;
    let (status, body) = get(served.admin, "/config").await;
    assert_eq!(status, 200);
    let found: Value = serde_json::from_str(&body).unwrap();
    let pool = json!({
        "http1": { "idle_timeout_ms": 4000, "max_idle": 512 },
        "http2": {
            "max_concurrent_streams": null, "max_connections": 16,
            "keep_alive_interval_ms": 20_000, "keep_alive_timeout_ms": 10_000,
        },
        "max_age_ms": null, "max_requests": null, "pre_warm": 0,
    });
    let expected = json!({
        "version": 7,
        "proxy_version": env!("CARGO_PKG_VERSION"),
        "drain": "running",
        "identity": null,
        "mesh": { "mtls": "strict", "access_log": null, "tracing": null, "unknown_hosts": "refuse" },
        "hosts": { "chat": { "service": "default/chat", "port": 80 }, "nobody.example": null },
        "services": {
            "default/chat": {
                "ports": [{ "port": 80, "name": "http", "protocol": "http" }],
                "server_identities": ["spiffe://outrigger.local/ns/default/sa/*"],
                "load_balancing": {
                    "policy": "peak-ewma", "ewma_decay_ms": 10_000, "panic_threshold_percent": 50,
                    "hash": null, "places": null, "prompts_again": null,
                    "bounded_load_percent": null,
                    "zone": null, "slow_start": null,
                },
                "endpoints": 1,
                "dns": [],
                "tls": null,
                "inference": null,
                "limits": null,
                "health": { "outlier_detection": null, "checks": [] },
                "connect_timeout_ms": 1000,
                "tcp_idle_timeout_ms": null, "tcp_lifetime_ms": null,
                "connection_pool": pool,
                "rules": [{
                    "route": "default/canary",
                    "matches": [{
                        "hosts": ["*.models"],
                        "path": { "type": "prefix", "value": "/v1" },
                        "method": "POST",
                        "headers": [{ "name": "x-tier", "value": { "type": "regex", "value": "gold|silver" } }],
                        "model": null,
                        "query_params": [{ "name": "beta", "value": { "type": "exact", "value": "1" } }],
                        "grpc": null,
                        "port": 80,
                    }],
                    "backends": [{ "service": "default/chat", "port": 80, "protocol": "http", "weight": 90, "endpoints": 1 }],
                    "timeouts": { "request_ms": 30_000, "per_try_ms": null, "response_headers_ms": null, "first_byte_ms": null, "stream_idle_ms": null, "stream_lifetime_ms": null },
                    "retry": {
                        "max_retries": 2, "statuses": [503], "grpc_codes": [14], "methods": ["GET"],
                        "on_reset": true, "on_timeout": false, "backoff_ms": 25, "max_backoff_ms": 250, "max_body_bytes": 65536,
                    },
                    "filters": [],
                    "session": null,
                    "retry_budget": { "percent": 20, "min_per_second": 10 },
                    "hedge": null,
                    "continuation": null,
                    "fallbacks": [],
                    "expose_attempts": false,
                }],
            },
        },
        "inbound": {
            "80.embed.default.outrigger.local": {
                "service": "default/embed", "port": 80, "protocol": "grpc", "application": "127.0.0.1:9001",
                "stream_idle_timeout_ms": 300_000,
                "inference": null,
                "limits": null, "rate_limits": null,
                "tcp_idle_timeout_ms": null, "tcp_lifetime_ms": null,
                "connection_pool": pool,
            },
        },
    });
    assert_eq!(found, expected);
}

#[tokio::test]
async fn the_endpoints() {
    let served = serve_snapshot(snapshot()).await;
    let (_, before) = get(served.admin, "/endpoints").await;
    let before: Value = serde_json::from_str(&before).unwrap();
    let found = &before["services"][0]["endpoints"][0]["ewma_ms"];
    assert!(found.is_null(), "it has not answered: {found}");
    let held = {
        let snapshot = served.shared.snapshot.load();
        let endpoints = &snapshot.services["default/chat"].upstream.endpoints;
        endpoints.endpoints()[0].begin().first_byte();
        let mut failed = endpoints.endpoints()[0].begin();
        failed.failed();
        endpoints.endpoints()[0].begin()
    };
    let (status, body) = get(served.admin, "/endpoints").await;
    drop(held);
    assert_eq!(status, 200);
    let mut found: Value = serde_json::from_str(&body).unwrap();
    let ewma = found["services"][0]["endpoints"][0]["ewma_ms"].take();
    assert!(ewma.as_f64().is_some(), "{ewma}");
    let expected = json!({
        "version": 7,
        "services": [{
            "service": "default/chat",
            "policy": "peak-ewma",
            "panic": false,
            "local_share": null,
            "endpoints": [{
                "address": "10.0.0.5:15006",
                "state": "penalised",
                "weight": 3,
                "weight_in_effect": 3.0,
                "available": true,
                "labels": { "version": "v1" },
                "ports": [],
                "mtls": true,
                "host": null,
                "tls": false,
                "identity": "spiffe://outrigger.local/ns/default/sa/chat",
                "zone": "a",
                "instance": "7d1f",
                "in_flight": 1,
                "prompt_tokens": 0,
                "streams": 0,
                "prefill_rate": null,
                "reported_work": null,
                "kv_usage": null,
                "ewma_ms": null,
                "picks": 3,
                "failures": 1,
                "reported": null,
                "health": {
                    "reason": null,
                    "since": null,
                    "until": null,
                    "times_ejected": 0,
                    "last_check_failure": null,
                },
            }],
        }],
        "model_servers": [],
        "dns": [{
            "service": "default/llm",
            "host": "192.0.2.1",
            "addresses": ["192.0.2.1"],
            "ttl_s": 300,
            "answer_age_s": 0,
            "error": null,
            "error_at": null,
        }],
    });
    assert_eq!(found, expected);
}

#[tokio::test]
async fn the_log_level() {
    let served = serve_snapshot(Snapshot::default()).await;
    assert_eq!(
        get(served.admin, "/log-level").await,
        (200, "info\n".to_owned())
    );
    let put = |body: &'static str| ask(served.admin, "PUT", "/log-level", body);
    let (status, _, body) = put("outrigger_proxy=debug,info\n").await;
    assert_eq!(
        (status, body.as_str()),
        (200, "outrigger_proxy=debug,info\n")
    );
    let (status, _, body) = put("loud").await;
    assert_eq!(status, 400);
    assert!(
        body.contains("\"loud\" is not a level; allowed are error, warn"),
        "{body}"
    );
    let long = "x".repeat(5000);
    let (status, _, _) = ask(served.admin, "PUT", "/log-level", &long).await;
    assert_eq!(status, 400);
    assert_eq!(
        get(served.admin, "/log-level").await.1,
        "outrigger_proxy=debug,info\n"
    );
}

#[tokio::test]
async fn drain_begins_and_is_seen() {
    let served = serve_snapshot(Snapshot::default()).await;
    let _guard = served.shared.drain.guard();
    let (status, _, body) = ask(served.admin, "POST", "/drain", "").await;
    let found: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (status, found),
        (202, json!({ "phase": "announcing", "under_way": 1 }))
    );
    assert!(served.shared.drain.is_draining());
    let (status, body) = get(served.metrics, "/ready").await;
    assert!(status == 503 && body.contains("\ndraining\n"), "{body}");
}

#[tokio::test]
async fn what_is_not_there_is_told() {
    let served = serve_snapshot(Snapshot::default()).await;
    let (status, body) = get(served.admin, "/").await;
    assert_eq!(status, 404);
    for path in [
        "/live",
        "/ready",
        "/metrics",
        "/config",
        "/endpoints",
        "/log-level",
        "/drain",
    ] {
        assert!(body.contains(&format!("\n{path} ")), "{path} in {body}");
    }
    // The metrics port is open to the network: nothing else is there.
    for (method, path) in [
        ("GET", "/config"),
        ("GET", "/endpoints"),
        ("PUT", "/log-level"),
        ("POST", "/drain"),
    ] {
        let (status, _, body) = ask(served.metrics, method, path, "").await;
        assert_eq!(status, 404, "{path}");
        assert!(!body.contains("/drain"), "{body}");
    }
    let (status, head, _) = ask(served.admin, "GET", "/drain", "").await;
    assert_eq!(status, 405);
    assert!(head.contains("\r\nallow: post"), "{head}");
    let (status, head, _) = ask(served.metrics, "DELETE", "/live", "").await;
    assert_eq!(status, 405);
    assert!(head.contains("\r\nallow: get, head"), "{head}");
    assert!(!served.shared.drain.is_draining());
}

#[tokio::test]
async fn web_pages_are_kept_out_of_the_admin_port_only() {
    let served = serve_snapshot(Snapshot::default()).await;
    let rebound = "POST /drain HTTP/1.1\r\nHost: evil.example\r\n";
    assert_eq!(exchange(served.admin, rebound, "").await.0, 403);
    let page = format!(
        "POST /drain HTTP/1.1\r\nHost: {}\r\nOrigin: https://evil.example\r\n",
        served.admin
    );
    assert_eq!(exchange(served.admin, &page, "").await.0, 403);
    assert!(!served.shared.drain.is_draining());
    // Prometheus may know the sidecar by name.
    let scrape = "GET /metrics HTTP/1.1\r\nHost: chat-0.chat.default.svc:15020\r\n";
    assert_eq!(exchange(served.metrics, scrape, "").await.0, 200);
}

#[tokio::test]
async fn connections_are_bounded_and_kept_alive() {
    let served = serve_snapshot(Snapshot::default()).await;
    let mut idle = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        idle.push(TcpStream::connect(served.metrics).await.unwrap());
    }
    // All of them were accepted: each answers, twice.
    for stream in &mut idle {
        for _ in 0..2 {
            stream
                .write_all(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n")
                .await
                .unwrap();
            let mut reply = [0; 15];
            stream.read_exact(&mut reply).await.unwrap();
            assert_eq!(&reply, b"HTTP/1.1 200 OK");
            let mut rest = [0; 4096];
            assert!(stream.read(&mut rest).await.unwrap() > 0);
        }
    }
    let late = tokio::spawn(async move { get(served.metrics, "/live").await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!late.is_finished(), "one too many waits");
    idle.pop();
    assert_eq!(
        tokio::time::timeout(Duration::from_secs(10), late)
            .await
            .unwrap()
            .unwrap()
            .0,
        200
    );
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let first = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = first.local_addr().unwrap();
    let error = bind(address).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert!(
        error
            .to_string()
            .starts_with(&format!("cannot listen on {address}: ")),
        "{error}"
    );
}

/// The names of all fields, as paths; `*` for names that are data.
fn shape(value: &Value, path: &str, out: &mut BTreeSet<String>) {
    const MAPS: [&str; 4] = ["hosts", "services", "inbound", "labels"];
    match value {
        Value::Object(fields) => {
            let is_map = MAPS.iter().any(|map| path.ends_with(&format!(".{map}")));
            for (name, value) in fields {
                let path = format!("{path}.{}", if is_map { "*" } else { name });
                shape(value, &path, out);
                out.insert(path);
            }
        }
        Value::Array(values) => values
            .iter()
            .for_each(|value| shape(value, &format!("{path}[]"), out)),
        _ => {}
    }
}

/// What operators read shows the fields that there are.
#[tokio::test]
async fn the_documented_json_has_the_fields_of_the_real_one() {
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/admin.md"))
            .unwrap();
    let served = serve_snapshot(snapshot()).await;
    for path in ["/config", "/endpoints"] {
        let (_, section) = page.split_once(&format!("\n## `{path}`\n")).unwrap();
        let (_, block) = section.split_once("```json\n").unwrap();
        let documented: Value = serde_json::from_str(block.split("```").next().unwrap()).unwrap();
        let real: Value = serde_json::from_str(&get(served.admin, path).await.1).unwrap();
        let [documented, real] = [documented, real].map(|value| {
            let mut names = BTreeSet::new();
            shape(&value, "", &mut names);
            // There is no identity in this test.
            names.retain(|name| !name.starts_with(".identity."));
            names
        });
        assert!(real.len() > 10);
        assert_eq!(documented, real, "{path}");
    }
}
