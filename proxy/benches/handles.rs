//! What choosing an endpoint, counting a request and reading a token cost: `cargo bench -p outrigger-proxy --bench handles`.
//!
//! Prints nanoseconds for each operation, the best of several rounds, with one thread and with two on the same handles.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, Method, StatusCode};
use outrigger_proxy::balance::{DEFAULT_DECAY, Endpoint, EndpointSet, Policy};
use outrigger_proxy::inference::Api;
use outrigger_proxy::inference::stream::Observer;
use outrigger_proxy::policy::matching::{Match, RequestFacts, StringMatch};
use outrigger_proxy::resilience::RetryBudget;
use outrigger_proxy::telemetry::metrics::Metrics;
use outrigger_proxy::telemetry::{Direction, Outcome};
use rand::SeedableRng;
use rand::rngs::StdRng;

/// As vLLM writes it.
const TOKEN: &str = "data: {\"id\":\"chatcmpl-0123456789abcdef0123456789abcdef\",\"object\":\"chat.completion.chunk\",\
     \"created\":1763650000,\"model\":\"meta-llama/Llama-3.1-8B-Instruct\",\"choices\":[{\"index\":0,\
     \"delta\":{\"content\":\" hello\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n";

const OPERATIONS: u32 = 200_000;
const ROUNDS: u32 = 7;

fn main() {
    println!("{:<50}{:>10}{:>12}", "operation", "1 thread", "2 threads");
    for (policy, endpoints) in [
        (Policy::PeakEwma, 3),
        (Policy::PeakEwma, 100),
        (Policy::LeastRequest, 100),
        (Policy::RoundRobin, 100),
        (Policy::Random, 100),
    ] {
        let set = Arc::new(set(policy, endpoints));
        let name = format!("pick, {}, {endpoints} endpoints", policy.as_str());
        report(&name, || {
            let set = set.clone();
            let mut rng = StdRng::seed_from_u64(1);
            move || {
                black_box(set.pick(&mut rng, &[]));
            }
        });
    }
    let set = Arc::new(set(Policy::PeakEwma, 3));
    report("pick, begin, first byte, end", || {
        let set = set.clone();
        let mut rng = StdRng::seed_from_u64(1);
        move || {
            if let Some(endpoint) = set.pick(&mut rng, &[]) {
                endpoint.begin().first_byte();
            }
        }
    });
    let metrics = Metrics::new();
    let handles = metrics.request(Direction::Outbound, "default/chat", "", "default/chat");
    let outcome = Outcome {
        status: Some(StatusCode::OK),
        reason: None,
        duration: Duration::from_millis(20),
        first_byte: Some(Duration::from_millis(3)),
        request_bytes: 800,
        response_bytes: 12_000,
    };
    report("metrics: begin and finish", || {
        let handles = handles.clone();
        move || {
            handles.begin();
            handles.finish(black_box(&outcome));
        }
    });
    let budget = Arc::new(RetryBudget::new(20, 10));
    report("retry budget: deposit", || {
        let budget = budget.clone();
        move || budget.deposit()
    });
    for pieces in [1, 2] {
        let name = format!(
            "token of a stream, {} bytes in {pieces} piece(s)",
            TOKEN.len()
        );
        report(&name, || {
            let mut observer = Observer::new(Api::Chat);
            move || {
                for piece in black_box(TOKEN.as_bytes()).chunks(TOKEN.len().div_ceil(pieces)) {
                    observer.feed(piece);
                }
                black_box(observer.seen().tokens);
            }
        });
    }
    let matches: Arc<[Match]> = (0..10).map(condition).collect();
    report("match: 10 prefixes with a method, last fits", || {
        let matches = matches.clone();
        let headers = HeaderMap::new();
        move || {
            let facts = RequestFacts {
                host: "chat.default",
                port: 80,
                path: "/v1/9/completions",
                query: "",
                method: &Method::POST,
                headers: &headers,
                model: None,
            };
            black_box(
                matches
                    .iter()
                    .position(|each| each.matches(black_box(&facts))),
            );
        }
    });
}

fn set(policy: Policy, endpoints: u16) -> EndpointSet {
    let endpoints = (0..endpoints).map(|index| {
        Arc::new(Endpoint {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 10_000 + index)),
            mtls: true,
            identity: None,
            ports: Box::default(),
            labels: BTreeMap::new(),
            weight: 1,
            zone: "".into(),
            instance: "".into(),
            load: Arc::default(),
            outside: None,
            health: Arc::default(),
        })
    });
    EndpointSet::new(policy, DEFAULT_DECAY, endpoints.collect())
}

fn condition(index: usize) -> Match {
    Match {
        path: Some(StringMatch::prefix(&format!("/v1/{index}"))),
        method: Some(Method::POST),
        ..Match::default()
    }
}

fn report<F: FnMut() + Send>(name: &str, make: impl Fn() -> F) {
    println!(
        "{name:<50}{:>7.1} ns{:>9.1} ns",
        best(1, &make),
        best(2, &make)
    );
}

/// Nanoseconds for one operation in the best round, each thread doing all operations.
fn best<F: FnMut() + Send>(threads: usize, make: &impl Fn() -> F) -> f64 {
    (0..ROUNDS)
        .map(|_| {
            let mut workers: Vec<F> = (0..threads).map(|_| make()).collect();
            let begun = Instant::now();
            std::thread::scope(|scope| {
                for worker in &mut workers {
                    scope.spawn(move || (0..OPERATIONS).for_each(|_| worker()));
                }
            });
            begun.elapsed().as_nanos() as f64 / f64::from(OPERATIONS)
        })
        .fold(f64::INFINITY, f64::min)
}
