//! What model servers say of their load, from their metrics to a caller's choice.

use std::time::Duration;

use outrigger_tests::client::{self, Answer, full};
use outrigger_tests::{ControlPlane, ModelServer, Sidecar, eventually, upstream};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::mesh::{plain_endpoints, service};

const LONG: Duration = Duration::from_secs(20);
const REPORT: &str = "endpoint-load-metrics";

fn example() -> String {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../examples/policies/engine-signals.yaml"
    );
    std::fs::read_to_string(path).unwrap()
}

fn completion(tokens: u32, stream: bool) -> (http::request::Builder, String) {
    let body = json!({
        "model": "tiny-chat", "stream": stream, "max_tokens": tokens, "ignore_eos": true,
        "messages": [{"role": "user", "content": "Tell me of the sea."}],
    });
    let head = http::Request::builder()
        .method("POST")
        .uri("/v1/chat/completions")
        .header("host", "chat")
        .header("content-type", "application/json");
    (head, body.to_string())
}

async fn chat(to: std::net::SocketAddr, tokens: u32, stream: bool) -> Answer {
    let (head, body) = completion(tokens, stream);
    let answer = client::request(to, head, full(body)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer
}

/// Waits until it serves a request.
async fn reaches(caller: &Sidecar) {
    eventually("chat is reached", LONG, async || {
        match caller.get("chat", "/health").await.status.as_u16() {
            200 => Ok(()),
            status => Err(status.to_string()),
        }
    })
    .await;
}

/// What a caller's sidecar knows of an endpoint.
async fn reported(caller: &Sidecar, server: &Sidecar) -> Value {
    let page = caller.admin("/endpoints").await.json();
    let address = server.inbound().to_string();
    let all = page["services"][0]["endpoints"].as_array().cloned();
    let mut all = all.unwrap_or_default().into_iter();
    let found = all.find(|it| it["address"] == *address);
    found.map_or(Value::Null, |it| it["reported"].clone())
}

/// Requests of others, at the model server itself.
fn others(model: &ModelServer, count: usize) -> JoinSet<Answer> {
    let address = model.address();
    let mut requests = JoinSet::new();
    for _ in 0..count {
        requests.spawn(async move {
            let (head, body) = completion(4000, true);
            // As long as the test takes.
            let limit = Duration::from_secs(600);
            client::try_request_within(limit, address, head, full(body))
                .await
                .unwrap()
        });
    }
    requests
}

/// Two replicas of a service with this spec; the first one has so many requests of others.
struct Replicas {
    control_plane: ControlPlane,
    _models: [ModelServer; 2],
    servers: [Sidecar; 2],
    _others: JoinSet<Answer>,
}

impl Replicas {
    async fn start(spec: &str, batch: &str, busy: usize) -> Replicas {
        let control_plane = ControlPlane::start().await;
        control_plane.apply(&service("chat", spec));
        let flags = ["--max-batch", batch, "--decode-base-ms", "20"];
        let models = [
            ModelServer::start("busy", &flags).await,
            ModelServer::start("idle", &flags).await,
        ];
        let servers = [
            Sidecar::serving(&control_plane, "chat:80", models[0].address()).await,
            Sidecar::serving(&control_plane, "chat:80", models[1].address()).await,
        ];
        let others = others(&models[0], busy);
        let replicas = Replicas {
            control_plane,
            _models: models,
            servers,
            _others: others,
        };
        eventually("the load is known beside it", LONG, async || {
            let metrics = replicas.servers[0].metrics().await;
            let sum = |name| metrics.sum(name, &[("engine", "vllm")]);
            let waiting = sum("outrigger_engine_requests_waiting");
            let running = sum("outrigger_engine_requests_running");
            match waiting + running == busy as f64 {
                true => Ok(()),
                false => Err(format!("{waiting} wait, {running} run")),
            }
        })
        .await;
        replicas
    }
}

fn count(answers: &[Answer], name: &str) -> usize {
    let named = |answer: &&Answer| answer.header("x-model-server") == name;
    answers.iter().filter(named).count()
}

#[tokio::test]
async fn reports_go_from_sidecar_to_sidecar_and_no_further() {
    let control_plane = ControlPlane::start().await;
    control_plane.apply(&example());
    let model = ModelServer::start("model", &[]).await;
    let server = Sidecar::serving(&control_plane, "chat:80", model.address()).await;
    let caller = Sidecar::caller(&control_plane).await;
    reaches(&caller).await;
    eventually("the engine is known", LONG, async || {
        let page = server.admin("/endpoints").await.json();
        match page["model_servers"][0]["engine"] == "vllm" {
            true => Ok(()),
            false => Err(page["model_servers"].to_string()),
        }
    })
    .await;
    let metrics = server.metrics().await;
    let ok = [("engine", "vllm"), ("result", "ok")];
    assert!(metrics.sum("outrigger_engine_scrapes_total", &ok) >= 1.0);
    let running = [("engine", "vllm"), ("service", "default/chat")];
    assert_eq!(
        metrics.get("outrigger_engine_requests_running", &running),
        Some(0.0)
    );
    let accepted = async || {
        let metrics = caller.metrics().await;
        metrics.sum("outrigger_load_reports_total", &[("result", "accepted")])
    };
    for stream in [false, true] {
        let before = accepted().await;
        let answer = chat(caller.outbound(), 3, stream).await;
        assert!(!answer.headers.contains_key(REPORT), "{answer:?}");
        assert_eq!(accepted().await, before + 1.0, "stream: {stream}");
        let report = reported(&caller, &server).await;
        assert!(report["running"].as_u64().is_some(), "{report}");
        assert!(report["waiting"].as_u64().is_some(), "{report}");
        assert!(report["kv_usage"].as_f64().is_some(), "{report}");
    }
    // What goes wrong has durations of its own.
    let head = http::Request::builder()
        .method("POST")
        .uri("/v1/chat/completions")
        .header("host", "chat")
        .header("content-type", "application/json");
    let refused = full(r#"{"model":"tiny-chat","messages":17}"#);
    let answer = client::request(caller.outbound(), head, refused).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    let metrics = caller.metrics().await;
    let durations = "gen_ai_client_operation_duration_seconds_count";
    let of = |error| metrics.sum(durations, &[("error_type", error)]);
    assert_eq!((of("4xx"), of("")), (1.0, 2.0));
    let exposed = example().replace("  inference:\n", "  inference:\n    exposeLoad: true\n");
    control_plane.apply(&exposed);
    for stream in [false, true] {
        eventually("clients see it", LONG, async || {
            let answer = chat(caller.outbound(), 3, stream).await;
            let report = answer.header(REPORT);
            match report.contains("named_metrics.num_requests_running=") {
                true => Ok(()),
                false => Err(format!("{report:?}")),
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_server_without_a_sidecar_is_not_believed() {
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\
        endpoint-load-metrics: TEXT named_metrics.num_requests_waiting=0\r\n\r\n";
    let app = upstream::scripted(answer).await;
    let control_plane = ControlPlane::start().await;
    let spec = format!("inference: {{}}\n{}", plain_endpoints(&[app.address()]));
    control_plane.apply(&service("chat", &spec));
    let caller = Sidecar::caller(&control_plane).await;
    let answer = caller.reaches("chat").await;
    assert!(!answer.headers.contains_key(REPORT));
    let metrics = caller.metrics().await;
    let of = |result| metrics.sum("outrigger_load_reports_total", &[("result", result)]);
    assert!(of("untrusted") >= 1.0);
    assert_eq!(of("accepted"), 0.0);
    let page = caller.admin("/endpoints").await.json();
    assert!(page["services"][0]["endpoints"][0]["reported"].is_null());
}

/// With model-load, by what responses say alone.
#[tokio::test]
async fn a_replica_that_others_use_gets_less() {
    let spec = "loadBalancing: {policy: model-load}\ninference: {engine: {}, outOfBandLoad: {enabled: false}}";
    let replicas = Replicas::start(spec, "64", 40).await;
    let caller = Sidecar::caller(&replicas.control_plane).await;
    reaches(&caller).await;
    let mut answers = Vec::new();
    for _ in 0..30 {
        answers.push(chat(caller.outbound(), 1, true).await);
    }
    let (busy, idle) = (count(&answers, "busy"), count(&answers, "idle"));
    assert_eq!(busy + idle, 30);
    assert!(idle >= 4 * busy, "{busy} to {idle}");
    let metrics = caller.metrics().await;
    let asked = metrics.sum("outrigger_load_questions_total", &[]);
    assert_eq!(asked, 0.0);
}

#[tokio::test]
async fn a_fresh_caller_asks_before_its_first_request() {
    let spec = "loadBalancing: {policy: model-load}\ninference: {engine: {}, outOfBandLoad: {after: 200ms}}";
    let replicas = Replicas::start(spec, "2", 8).await;
    let caller = Sidecar::caller(&replicas.control_plane).await;
    reaches(&caller).await;
    // The request that found it was in a report of its own; the next one is an answer.
    eventually("both have answered", LONG, async || {
        let [busy, idle] = &replicas.servers;
        let (busy, idle) = (reported(&caller, busy).await, reported(&caller, idle).await);
        let is_known = busy["waiting"] == 6 && busy["running"] == 2;
        match is_known && idle["waiting"] == 0 && idle["running"] == 0 {
            true => Ok(()),
            false => Err(format!("{busy} {idle}")),
        }
    })
    .await;
    let mut answers = Vec::new();
    for _ in 0..10 {
        answers.push(chat(caller.outbound(), 1, false).await);
    }
    assert_eq!(count(&answers, "idle"), 10, "none waits behind others");
    let metrics = caller.metrics().await;
    let answered = [("result", "answered")];
    assert!(metrics.sum("outrigger_load_questions_total", &answered) >= 2.0);
    // It is between sidecars: no request of anybody's, and nobody else's to ask.
    let metrics = replicas.servers[0].metrics().await;
    let inbound = [("direction", "inbound"), ("code", "2xx")];
    let requests = metrics.sum("outrigger_requests_total", &inbound);
    let health = metrics.sum("outrigger_requests_in_flight", &[("direction", "inbound")]);
    assert_eq!(health, 0.0);
    assert!(requests <= 1.0, "{requests}");
    // An application that asks learns nothing.
    let answer = caller.get("chat", WELL_KNOWN).await;
    assert_eq!(answer.status, 204);
    assert!(!answer.headers.contains_key(REPORT), "{answer:?}");
    let described = replicas.control_plane.ctl(&["describe", "service", "chat"]);
    assert!(
        described.contains("asked for their load after 200ms"),
        "{described}"
    );
}

const WELL_KNOWN: &str = "/.well-known/outrigger/load";
