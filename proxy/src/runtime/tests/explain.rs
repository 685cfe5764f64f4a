//! What `explain` says is what the data path does: tables of rules and requests by chance, from fixed seeds.

use http::{Method, Request};
use outrigger_proto::dataplane::v1 as wire;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use wire::string_match::Kind;

use super::client::once;
use super::mesh::{Sidecar, application, calling, text};
use crate::control::explain::snapshot;
use crate::explain::{Explanation, explain};
use crate::tls::test_ca::TestCa;

const TRUST_DOMAIN: &str = "outrigger.local";
const TABLES: u64 = 120;
const REQUESTS: usize = 5;
const BACKENDS: usize = 3;
/// What an application answers that fails on purpose.
const FAILS: u32 = 500;
/// Seconds: an application that hangs never answers, and one that does not takes no time.
const HANG_TIMEOUT: i64 = 2;

const HOSTS: [&str; 3] = ["chat", "chat.models", "x.chat.example"];
const PATHS: [&str; 6] = ["/", "/v1", "/v1/models", "/v10", "/v1/re7", "/other"];
const METHODS: [Method; 3] = [Method::GET, Method::POST, Method::DELETE];
const TIERS: [&str; 3] = ["gold", "silver", "golden"];

fn pick<T: Clone>(rng: &mut SmallRng, from: &[T]) -> T {
    from[rng.random_range(0..from.len())].clone()
}

fn string(kind: Kind) -> Option<wire::StringMatch> {
    Some(wire::StringMatch { kind: Some(kind) })
}

/// Few words, so that many requests match something and many come close.
fn one_match(rng: &mut SmallRng) -> wire::Match {
    let mut made = wire::Match::default();
    if rng.random_bool(0.3) {
        made.hosts = vec![pick(rng, &["chat", "chat.models", "*.chat.example"]).to_owned()];
    }
    if rng.random_bool(0.7) {
        let path = pick(rng, &PATHS).to_owned();
        made.path = match rng.random_range(0..3) {
            0 => string(Kind::Exact(path)),
            1 => string(Kind::Prefix(path)),
            _ => string(Kind::Regex("/v1/re[0-9]+|/other".into())),
        };
    }
    if rng.random_bool(0.3) {
        made.method = pick(rng, &METHODS).to_string();
    }
    if rng.random_bool(0.3) {
        made.headers.push(wire::HeaderMatch {
            name: "x-tier".into(),
            value: match rng.random_bool(0.5) {
                true => string(Kind::Exact(pick(rng, &TIERS).into())),
                false => string(Kind::Regex("gold.*".into())),
            },
        });
    }
    if rng.random_bool(0.2) {
        made.query_params.push(wire::QueryParamMatch {
            name: "model".into(),
            value: string(Kind::Exact(pick(rng, &["a", "b"]).into())),
        });
    }
    made
}

fn rule(rng: &mut SmallRng, number: usize, is_last: bool) -> wire::Rule {
    let count = match is_last {
        true => 0,
        false => rng.random_range(1..3),
    };
    let mut made = wire::Rule {
        route: format!("default/route-{number}"),
        matches: (0..count).map(|_| one_match(rng)).collect(),
        backends: backends(rng),
        expose_attempts: true,
        ..wire::Rule::default()
    };
    if rng.random_bool(0.3) {
        made.filters.push(filter(rng));
    }
    if rng.random_bool(0.3) {
        made.timeouts = Some(wire::Timeouts {
            request: Some(prost_types::Duration {
                seconds: HANG_TIMEOUT,
                nanos: 0,
            }),
            ..wire::Timeouts::default()
        });
    }
    if rng.random_bool(0.3) {
        made.retry = Some(wire::Retry {
            max_retries: rng.random_range(1..4),
            statuses: vec![pick(rng, &[502, FAILS])],
            methods: vec![pick(rng, &METHODS).to_string()],
            backoff_base: millis(1),
            backoff_max: millis(1),
            // Never what decides.
            budget_min_per_second: 1000,
            ..wire::Retry::default()
        });
    }
    made
}

fn millis(millis: i32) -> Option<prost_types::Duration> {
    Some(prost_types::Duration {
        seconds: 0,
        nanos: millis * 1_000_000,
    })
}

/// One to three, some of them without a share, some of a subset, of which one kind is empty.
fn backends(rng: &mut SmallRng) -> Vec<wire::Backend> {
    let one = |number, weight, rng: &mut SmallRng| wire::Backend {
        service: format!("default/backend-{number}"),
        port: 80,
        weight,
        subset: match rng.random_range(0..6) {
            0 => [("version".to_owned(), "v1".to_owned())].into(),
            1 => [("version".to_owned(), "none".to_owned())].into(),
            _ => Default::default(),
        },
    };
    let mut made = vec![one(
        rng.random_range(0..BACKENDS),
        rng.random_range(1..4),
        rng,
    )];
    for number in 0..BACKENDS {
        if rng.random_bool(0.3) && made[0].service != format!("default/backend-{number}") {
            made.push(one(number, rng.random_range(0..3), rng));
        }
    }
    made
}

fn filter(rng: &mut SmallRng) -> wire::Filter {
    use wire::filter::Kind;
    let kind = match rng.random_range(0..4) {
        0 => Kind::DirectResponse(wire::DirectResponse {
            status: 418,
            content_type: "text/plain".into(),
            body: b"direct".to_vec(),
        }),
        1 => Kind::Redirect(wire::Redirect {
            hostname: "elsewhere".into(),
            status: 302,
            ..wire::Redirect::default()
        }),
        2 => Kind::UrlRewrite(wire::UrlRewrite {
            path: Some(wire::PathModifier {
                kind: Some(wire::path_modifier::Kind::FullPath("/rewritten".into())),
            }),
            ..wire::UrlRewrite::default()
        }),
        _ => Kind::RequestHeaders(wire::HeaderModifier {
            set: vec![wire::Header {
                name: "x-set".into(),
                value: "1".into(),
            }],
            ..wire::HeaderModifier::default()
        }),
    };
    wire::Filter { kind: Some(kind) }
}

fn resource(name: String, body: wire::resource::Body) -> wire::Resource {
    wire::Resource {
        name,
        version: 1,
        body: Some(body),
    }
}

fn service(name: &str, rules: Vec<wire::Rule>) -> wire::Resource {
    let body = wire::Service {
        namespace: "default".into(),
        name: name.into(),
        ports: vec![wire::ServicePort {
            port: 80,
            protocol: wire::Protocol::Http.into(),
            ..wire::ServicePort::default()
        }],
        server_identities: vec![format!("spiffe://{TRUST_DOMAIN}/ns/default/sa/*")],
        rules,
        ..wire::Service::default()
    };
    resource(
        format!("service/default/{name}"),
        wire::resource::Body::Service(body),
    )
}

/// Everything that a sidecar would hold for the service `chat`, whose rules are by chance.
fn table(rng: &mut SmallRng, applications: &[std::net::SocketAddr]) -> wire::Delta {
    let count = rng.random_range(1..7);
    // Sometimes nothing matches what is left.
    let has_last = rng.random_bool(0.5);
    let rules = (0..count)
        .map(|number| rule(rng, number, has_last && number + 1 == count))
        .collect();
    let mut resources = vec![service("chat", rules)];
    for host in HOSTS {
        let body = wire::Host {
            service: "default/chat".into(),
            port: 80,
        };
        resources.push(resource(
            format!("host/{host}"),
            wire::resource::Body::Host(body),
        ));
    }
    for (number, application) in applications.iter().enumerate() {
        let name = format!("backend-{number}");
        resources.push(service(&name, Vec::new()));
        let body = wire::Endpoints {
            service: format!("default/{name}"),
            endpoints: vec![wire::Endpoint {
                address: application.to_string(),
                weight: 1,
                labels: [("version".to_owned(), "v1".to_owned())].into(),
                ..wire::Endpoint::default()
            }],
            ..wire::Endpoints::default()
        };
        resources.push(resource(
            format!("endpoints/default/{name}"),
            wire::resource::Body::Endpoints(body),
        ));
    }
    wire::Delta {
        version: 1,
        resources,
        removed: vec!["host/nobody".into()],
        ..wire::Delta::default()
    }
}

fn request(rng: &mut SmallRng) -> Request<()> {
    let host = match rng.random_bool(0.1) {
        true => "nobody",
        false => pick(rng, &HOSTS),
    };
    let mut path = pick(rng, &PATHS).to_owned();
    if rng.random_bool(0.4) {
        path.push_str(pick(rng, &["?model=a", "?x=1&model=b", "?model"]));
    }
    let mut request = Request::builder()
        .method(pick(rng, &METHODS))
        .uri(path)
        .header("host", host);
    if rng.random_bool(0.5) {
        request = request.header("x-tier", pick(rng, &TIERS));
    }
    if rng.random_bool(0.1) {
        // Removed before any rule sees it.
        request = request.header("connection", "x-tier");
    }
    request.body(()).unwrap()
}

/// What the data path did with the request: status, who answered (empty: the sidecar) and how it came there, the route of the access
/// log, and how often it was sent.
type Done = (u16, String, String, u64);

async fn send(caller: &Sidecar, count: usize, request: &Request<()>) -> Done {
    let mut head = format!("{} {} HTTP/1.1\r\n", request.method(), request.uri());
    for (name, value) in request.headers() {
        head.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
    }
    head.push_str("content-length: 0\r\n\r\n");
    let whole = once(caller.outbound(), &head).await;
    let instance = match whole.head.reason() {
        "" => whole.body,
        _ => String::new(),
    };
    let lines = caller.log_lines(count).await;
    let line = &lines[count - 1];
    let route = line["route"].as_str().unwrap_or_default();
    let attempts = line["attempts"].as_u64().unwrap_or_default();
    (whole.head.status, instance, route.to_owned(), attempts)
}

/// All that may come of it, by what is explained: one for each backend that has a share.
fn told(explanation: &Explanation, request: &Request<()>) -> Vec<Done> {
    let refused = |route: &str| {
        let refused = explanation.refused.as_ref().unwrap();
        (refused.status, String::new(), route.to_owned(), 0)
    };
    let Some(route) = &explanation.route else {
        return vec![refused("")];
    };
    let policy = &route.policy;
    let of_filter = |kind: &str| {
        let filters = policy["filters"].as_array().unwrap();
        filters
            .iter()
            .find(|it| it["type"] == kind)
            .map(|it| &it["policy"])
    };
    for (kind, body) in [("DirectResponse", "direct"), ("RequestRedirect", "")] {
        if let Some(answer) = of_filter(kind) {
            let status = u16::try_from(answer["status"].as_u64().unwrap()).unwrap();
            return vec![(status, body.to_owned(), route.route.clone(), 0)];
        }
    }
    let path = match of_filter("URLRewrite") {
        Some(rewrite) => rewrite["path"]["full"].as_str().unwrap().to_owned(),
        None => request.uri().path().to_owned(),
    };
    let set = of_filter("RequestHeaderModifier").is_some();
    let mut all = Vec::new();
    for backend in route.backends.iter().filter(|it| it.percent > 0.0) {
        if backend.endpoints.is_empty() {
            all.push((503, String::new(), route.route.clone(), 0));
            continue;
        }
        if request.headers().contains_key("x-hang") {
            all.push((504, String::new(), route.route.clone(), 1));
            continue;
        }
        let name = backend.service.strip_prefix("default/").unwrap();
        let instance = format!("{name} {path} {set}");
        let (status, attempts) = match request.headers().contains_key("x-fail") {
            true => (FAILS as u16, 1 + retries(&policy["retry"], request)),
            false => (200, 1),
        };
        all.push((status, instance, route.route.clone(), attempts));
    }
    if explanation.refused.is_some() {
        assert!(all.iter().all(|done| *done == refused(&route.route)));
    }
    all
}

/// How often a request whose answers have the status [`FAILS`] is sent again.
fn retries(policy: &serde_json::Value, request: &Request<()>) -> u64 {
    let has = |list: &serde_json::Value, what: serde_json::Value| {
        list.as_array().is_some_and(|list| list.contains(&what))
    };
    let again = has(&policy["statuses"], FAILS.into())
        && has(&policy["methods"], request.method().as_str().into());
    match again {
        true => policy["max_retries"].as_u64().unwrap(),
        false => 0,
    }
}

/// Says who it is and what came; fails or hangs where it is asked to.
async fn backend(number: usize) -> std::net::SocketAddr {
    application(move |request| async move {
        let headers = request.headers();
        if headers.contains_key("x-hang") {
            std::future::pending::<()>().await;
        }
        let (path, set) = (request.uri().path(), headers.contains_key("x-set"));
        let mut answer = text(&format!("backend-{number} {path} {set}"));
        if headers.contains_key("x-fail") {
            *answer.status_mut() = http::StatusCode::from_u16(FAILS as u16).unwrap();
        }
        answer
    })
    .await
}

#[tokio::test]
async fn explain_agrees_with_the_data_path() {
    let mut applications = Vec::new();
    for number in 0..BACKENDS {
        applications.push(backend(number).await);
    }
    let caller = calling(&TestCa::new());
    let mut sent = 0;
    // By chance is not by luck: each kind must be there in numbers.
    let mut seen = std::collections::BTreeMap::<&str, usize>::new();
    let mut count = |kind, is| *seen.entry(kind).or_default() += usize::from(is);
    for seed in 0..TABLES {
        let mut rng = SmallRng::seed_from_u64(seed);
        let delta = table(&mut rng, &applications);
        let (snapshot, refusals) = snapshot(delta.clone(), TRUST_DOMAIN);
        assert_eq!(refusals, [], "seed {seed}");
        caller.set(snapshot);
        for _ in 0..REQUESTS {
            let mut request = request(&mut rng);
            if rng.random_bool(0.3) {
                request.headers_mut().insert("x-fail", "1".parse().unwrap());
            }
            let explain = |request: &Request<()>| {
                let head = request.clone().into_parts().0;
                explain(delta.clone(), TRUST_DOMAIN, head, "")
            };
            let explanation = explain(&request);
            let has_clock =
                |route: &crate::explain::Routed| !route.policy["timeouts"]["request_ms"].is_null();
            // Only where something ends it.
            if explanation.route.as_ref().is_some_and(has_clock) && rng.random_bool(0.06) {
                request.headers_mut().insert("x-hang", "1".parse().unwrap());
            }
            sent += 1;
            let done = send(&caller, sent, &request).await;
            let told = told(&explanation, &request);
            assert!(
                told.contains(&done),
                "seed {seed}: {done:?} is none of {told:?}\n{request:?}\n{explanation:#?}\n{delta:#?}"
            );
            count("split", told.len() > 1);
            count("retried", done.3 > 1);
            count("timed out", done.0 == 504);
            count("without endpoints", done.0 == 503 && done.3 == 0);
            count("answered by a filter", matches!(done.0, 302 | 418));
            count("rewritten", done.1.contains("/rewritten"));
            match explanation.route {
                Some(route) => {
                    count("routed", true);
                    // Each rule before it missed something; the ones that say nothing miss nothing.
                    assert_eq!(explanation.passed_over.len(), route.rule);
                    assert!(
                        explanation
                            .passed_over
                            .iter()
                            .all(|rule| !rule.unmet.is_empty())
                    );
                }
                None => count("refused", true),
            }
        }
    }
    assert!(seen.values().all(|count| *count >= 3), "{seen:?}");
    assert!(seen["routed"] >= 200 && seen["refused"] >= 50, "{seen:?}");
    assert!(seen["split"] >= 50, "{seen:?}");
}
