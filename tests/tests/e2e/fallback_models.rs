//! Fallbacks by model: the example's policy as it stands, with an example model server for each of its models.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use outrigger_tests::client::{self, Answer};
use outrigger_tests::{ControlPlane, Process, Sidecar, binary, eventually, loopback};
use serde_json::{Value, json};
use tempfile::TempDir;

const EXAMPLE: &str = include_str!("../../../examples/policies/fallback-models.yaml");
const LONG: Duration = Duration::from_secs(20);
/// For the models that no other rule is for.
const FOR_ALL: &str = "kind: Route
metadata: {name: chat-all}
spec: {parentRefs: [{name: chat}], rules: [{fallbacks: [{on: [overload], model: small}]}]}
";
/// Each caller's second request within a day is one too many.
const LIMIT: &str = "kind: RateLimit
metadata: {name: chat-callers}
spec: {targetRefs: [{kind: Service, name: chat}], limits: [{name: all, key: [identity], requests: 1, per: 24h}]}
";

/// Nobody has a token to spend.
const TOKENS: &str = "kind: RateLimit
metadata: {name: chat-tokens}
spec: {targetRefs: [{kind: Service, name: chat}], limits: [{name: tokens, key: [identity, model], tokens: 10, per: 24h}]}
";

/// The servers of the models `large`, `small` and `tiny`, their sidecars, and a caller's.
struct Mesh {
    models: Vec<(SocketAddr, Process)>,
    servers: Vec<Sidecar>,
    caller: Sidecar,
    control_plane: ControlPlane,
    _directory: TempDir,
}

impl Mesh {
    async fn start(policy: &str) -> Mesh {
        let control_plane = ControlPlane::start().await;
        control_plane.apply(policy);
        let directory = tempfile::tempdir().unwrap();
        let (mut models, mut servers) = (Vec::new(), Vec::new());
        for (service, label, name) in [
            ("chat", "large", "org/chat-70b"),
            ("chat", "small", "org/chat-8b"),
            ("chat-spare", "tiny", "org/chat-1b"),
        ] {
            let address = SocketAddr::new(loopback().into(), 28100);
            let mut command = Command::new(binary("model-server"));
            command.args(["--listen", &address.to_string(), "--model", name]);
            command.args(["--name", label]);
            models.push((address, Process::spawn(label, command, directory.path())));
            eventually(label, LONG, async || {
                let connected = tokio::net::TcpStream::connect(address).await;
                connected.map(drop).map_err(|error| error.to_string())
            })
            .await;
            let sidecar = Sidecar::builder(&control_plane, service)
                .serve(&format!("{service}:80"), address)
                .label("model", label);
            servers.push(sidecar.start().await);
        }
        let caller = Sidecar::caller(&control_plane).await;
        let mesh = Mesh {
            models,
            servers,
            caller,
            control_plane,
            _directory: directory,
        };
        for model in ["large", "small"] {
            eventually(model, LONG, async || {
                // A limit of requests is not to be used up.
                let answer = mesh.caller.get("chat", &format!("/health?{model}")).await;
                let known = mesh.caller.admin("/endpoints").await.text();
                let all = mesh.servers[..2]
                    .iter()
                    .all(|server| known.contains(&server.inbound().to_string()));
                match (answer.status.as_u16(), all) {
                    (200 | 429, true) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await;
        }
        mesh
    }

    async fn ask(&self, model: &str, stream: bool) -> Answer {
        let head = http::Request::builder()
            .method("POST")
            .uri("/v1/chat/completions")
            .header("host", "chat")
            .header("content-type", "application/json");
        let body = json!({
            "messages": [{"role": "user", "content": "Tell me of the sea."}],
            "model": model, "stream": stream, "max_tokens": 4,
        });
        client::request(self.caller.outbound(), head, client::full(body.to_string())).await
    }

    async fn faults(&self, model: usize, faults: Value) {
        let head = http::Request::builder()
            .method("POST")
            .uri("/faults")
            .header("host", "faults");
        let body = client::full(faults.to_string());
        let answer = client::request(self.models[model].0, head, body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    async fn fallbacks(&self, cause: &str, to: &str, model: &str) -> f64 {
        let labels = [("cause", cause), ("to", to), ("model", model)];
        self.caller
            .metrics()
            .await
            .sum("outrigger_fallbacks_total", &labels)
    }
}

/// The answer is this model's, whole, and says so.
fn is_from(answer: &Answer, name: &str, service: &str, model: &str) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let server_name = match model {
        "large" => "org/chat-70b",
        "small" => "org/chat-8b",
        _ => "org/chat-1b",
    };
    assert_eq!(answer.header("x-model-server"), model, "{name}");
    assert!(answer.text().contains(server_name), "{}", answer.text());
    let marks = (
        answer.header("x-outrigger-fallback"),
        answer.header("x-outrigger-fallback-model"),
    );
    let expected = if service.is_empty() {
        ("", "")
    } else {
        (service, model)
    };
    assert_eq!(marks, expected, "{name}");
}

#[tokio::test]
async fn a_smaller_model_answers_where_the_large_one_does_not() {
    let mesh = Mesh::start(EXAMPLE).await;
    is_from(&mesh.ask("large", false).await, "all is well", "", "large");

    // The same service has another model.
    for (faults, stream, cause) in [
        (json!({"error_503_rate": 1}), false, "overload"),
        (json!({"error_429_rate": 1}), true, "overload"),
        (json!({"error_after_tokens": 0}), true, "model-error"),
    ] {
        let name = faults.to_string();
        let before = mesh.fallbacks(cause, "default/chat", "small").await;
        mesh.faults(0, faults).await;
        let answer = mesh.ask("large", stream).await;
        is_from(&answer, &name, "default/chat", "small");
        assert_eq!(stream, answer.text().contains("[DONE]"));
        let after = mesh.fallbacks(cause, "default/chat", "small").await;
        assert_eq!(after - before, 1.0, "{name}");
    }
    mesh.faults(0, json!({"die_after_tokens": 0})).await;
    let answer = mesh.ask("large", true).await;
    is_from(&answer, "a connection that breaks", "default/chat", "small");

    // Both refuse: then another service's. The small one has only its own rule.
    for model in 0..2 {
        mesh.faults(model, json!({"error_503_rate": 1})).await;
    }
    let answer = mesh.ask("large", true).await;
    is_from(&answer, "both refuse", "default/chat-spare", "tiny");
    assert_eq!(mesh.ask("small", true).await.status, 503);
    assert_eq!(
        mesh.fallbacks("overload", "default/chat-spare", "tiny")
            .await,
        1.0
    );

    // A rule for all models: who asks for the small one is not sent to it again.
    mesh.control_plane.apply(FOR_ALL);
    eventually("the rule for all models", LONG, async || {
        let answer = mesh.ask("unheard-of", false).await;
        match answer.header("x-outrigger-fallback-model") {
            "small" => Ok(()),
            other => Err(format!("{} {other:?}", answer.status)),
        }
    })
    .await;
    let answer = mesh.ask("small", false).await;
    assert_eq!(
        (
            answer.status.as_u16(),
            answer.header("x-outrigger-fallback")
        ),
        (503, "")
    );

    // What was asked for and what answered.
    let metrics = mesh.caller.metrics().await;
    for (answered, count) in [("", 1.0), ("small", 4.0), ("tiny", 1.0)] {
        let labels = [
            ("gen_ai_request_model", "large"),
            ("gen_ai_response_model", answered),
            ("outcome", "complete"),
        ];
        let found = metrics.sum("outrigger_model_requests_total", &labels);
        assert_eq!(found, count, "{answered:?}");
    }
}

#[tokio::test]
async fn a_model_whose_replicas_are_dead_is_replaced() {
    let mut mesh = Mesh::start(EXAMPLE).await;
    // The server alone, then its sidecar as well.
    mesh.models[0].1.signal("KILL");
    eventually(
        "the server is gone",
        LONG,
        async || match tokio::net::TcpStream::connect(mesh.models[0].0).await {
            Ok(_) => Err("it listens".to_owned()),
            Err(_) => Ok(()),
        },
    )
    .await;
    let answer = mesh.ask("large", true).await;
    is_from(&answer, "a dead server", "default/chat", "small");
    mesh.servers[0].process().signal("KILL");
    let answer = mesh.ask("large", true).await;
    is_from(&answer, "a dead sidecar", "default/chat", "small");
    let connect = mesh
        .fallbacks("connect-failed", "default/chat", "small")
        .await;
    let reset = mesh.fallbacks("reset", "default/chat", "small").await;
    assert_eq!(connect + reset, 2.0);
}

#[tokio::test]
async fn a_caller_that_has_used_up_its_rate_gets_another_services_model() {
    let mesh = Mesh::start(&format!("{EXAMPLE}---\n{LIMIT}")).await;
    // Each sidecar counts for itself: first the large model's refuses, then the small one's as well.
    for _ in 0..2 {
        assert_eq!(mesh.ask("large", false).await.status, 200);
    }
    let answer = mesh.ask("large", false).await;
    is_from(&answer, "a spent rate", "default/chat-spare", "tiny");
    assert!(mesh.fallbacks("budget", "default/chat-spare", "tiny").await >= 1.0);
    assert_eq!(
        mesh.fallbacks("overload", "default/chat-spare", "tiny")
            .await,
        0.0
    );

    // Tokens of the large model are spent: those of the small one are counted apart, and are spent as well.
    let mesh = Mesh::start(&format!("{EXAMPLE}---\n{TOKENS}")).await;
    let answer = mesh.ask("large", true).await;
    is_from(&answer, "spent tokens", "default/chat-spare", "tiny");
    assert_eq!(mesh.fallbacks("budget", "default/chat", "small").await, 1.0);

    // Both say so before it happens.
    let described = mesh.control_plane.ctl(&["describe", "route", "chat-large"]);
    assert!(
        described.contains("the same backend with model small on no-endpoints"),
        "{described}"
    );
    assert!(
        described.contains("service chat-spare with model tiny on"),
        "{described}"
    );
    let explained: Value = serde_json::from_str(&mesh.control_plane.ctl(&[
        "explain",
        "--from",
        "default/caller",
        "--model",
        "large",
        "POST",
        "http://chat/v1/chat/completions",
        "-o",
        "json",
    ]))
    .unwrap();
    let fallbacks = &explained["policy"]["fallbacks"];
    assert_eq!(fallbacks[0]["model"], "small", "{explained}");
    assert_eq!(fallbacks[1]["model"], "tiny", "{explained}");
}
