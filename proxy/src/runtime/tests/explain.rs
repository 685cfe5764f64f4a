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
const TABLES: u64 = 40;
const REQUESTS: usize = 10;
const BACKENDS: usize = 3;

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
    wire::Rule {
        route: format!("default/route-{number}"),
        matches: (0..count).map(|_| one_match(rng)).collect(),
        // One backend: which one a split takes is decided by its turns, and not told before.
        backends: vec![wire::Backend {
            service: format!("default/backend-{}", rng.random_range(0..BACKENDS)),
            port: 80,
            weight: 1,
            ..wire::Backend::default()
        }],
        ..wire::Rule::default()
    }
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

/// What the data path did with the request: status, who answered (empty: the sidecar), and the route of the access log.
async fn send(caller: &Sidecar, count: usize, request: &Request<()>) -> (u16, String, String) {
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
    let route = lines[count - 1]["route"].as_str().unwrap_or_default();
    (whole.head.status, instance, route.to_owned())
}

/// The same of what is explained.
fn told(explanation: &Explanation) -> (u16, String, String) {
    match (&explanation.route, &explanation.refused) {
        (Some(route), None) => {
            let [backend] = route.backends.as_slice() else {
                panic!("{explanation:?}")
            };
            let name = backend.service.strip_prefix("default/").unwrap();
            (200, name.to_owned(), route.route.clone())
        }
        (None, Some(refused)) => (refused.status, String::new(), String::new()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn explain_agrees_with_the_data_path() {
    let mut applications = Vec::new();
    for number in 0..BACKENDS {
        let answer = move |_| async move { text(&format!("backend-{number}")) };
        applications.push(application(answer).await);
    }
    let caller = calling(&TestCa::new());
    let (mut sent, mut routed, mut refused) = (0, 0, 0);
    for seed in 0..TABLES {
        let mut rng = SmallRng::seed_from_u64(seed);
        let delta = table(&mut rng, &applications);
        let (snapshot, refusals) = snapshot(delta.clone(), TRUST_DOMAIN);
        assert_eq!(refusals, [], "seed {seed}");
        caller.set(snapshot);
        for _ in 0..REQUESTS {
            let request = request(&mut rng);
            sent += 1;
            let done = send(&caller, sent, &request).await;
            let head = request.clone().into_parts().0;
            let explanation = explain(delta.clone(), TRUST_DOMAIN, head, "");
            assert_eq!(
                told(&explanation),
                done,
                "seed {seed}: {request:?}\n{explanation:#?}\n{delta:#?}"
            );
            match explanation.route {
                Some(route) => {
                    routed += 1;
                    // Each rule before it missed something; the ones that say nothing miss nothing.
                    assert_eq!(explanation.passed_over.len(), route.rule);
                    assert!(
                        explanation
                            .passed_over
                            .iter()
                            .all(|rule| !rule.unmet.is_empty())
                    );
                }
                None => refused += 1,
            }
        }
    }
    // By chance is not by luck: both kinds are there in numbers.
    assert!(
        routed >= 150 && refused >= 50,
        "{routed} routed, {refused} refused"
    );
}
