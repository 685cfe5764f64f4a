//! A real LLM server behind the sidecars: llama.cpp with a tiny random model, called by the official OpenAI client.
#![allow(clippy::unwrap_used)] // A test that cannot go on is to end.

#[path = "llm/admission.rs"]
mod admission;
#[path = "llm/choice.rs"]
mod choice;
#[path = "llm/fallback.rs"]
mod fallback;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use outrigger_tests::{
    ControlPlane, Metrics, Process, Sidecar, client, eventually, loopback, python, skip,
};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

const SERVICES: &str = "kind: Service
metadata: {name: chat}
spec: {ports: [{port: 80, protocol: http}], hosts: [chat.models], loadBalancing: {policy: round-robin}, inference: {provider: llama.cpp, engine: {}}}
---
kind: Service
metadata: {name: embed}
spec: {ports: [{port: 80, protocol: http}], inference: {}}
";

const BUDGET: &str = "kind: RateLimit
metadata: {name: free}
spec:
  targetRefs: [{name: chat}]
  limits:
  - name: tokens
    matches: [{headers: [{name: x-tier, value: free}]}]
    tokens: 60
    per: 24h
    count: output
    hardLimit: true
    defaultMaxTokens: 20
    advance: 20
";

/// Two chat replicas and an embedding server behind sidecars, and a sidecar that calls.
struct Mesh {
    python: PathBuf,
    replicas: [SocketAddr; 2],
    servers: Vec<Sidecar>,
    caller: Sidecar,
    models: Vec<Process>,
    control_plane: ControlPlane,
    _directory: TempDir,
}

impl Mesh {
    async fn start(python: PathBuf) -> Self {
        Self::start_with(python, SERVICES).await
    }

    async fn start_with(python: PathBuf, services: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let model = directory.path().join("tiny.gguf");
        let made = Command::new(&python)
            .arg(python::directory("llm").join("make_model.py"))
            .arg(&model)
            .output()
            .unwrap();
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );

        let control_plane = ControlPlane::start().await;
        control_plane.apply(services);
        let (mut models, mut addresses, mut servers) = (Vec::new(), Vec::new(), Vec::new());
        for (name, service) in [("chat-1", "chat"), ("chat-2", "chat"), ("embed", "embed")] {
            let address = SocketAddr::new(loopback().into(), 29000);
            models.push(model_server(
                &python,
                name,
                &model,
                address,
                directory.path(),
            ));
            addresses.push(address);
            // With the model server's own health check: a port that is open is not a model that is loaded.
            let config = directory.path().join(format!("{name}.yaml"));
            let yaml = format!(
                "serve: [{{service: {service}, port: 80, application: \"{address}\", readiness: {{path: /health, interval: 200ms}}}}]\n"
            );
            std::fs::write(&config, yaml).unwrap();
            let sidecar = Sidecar::builder(&control_plane, service)
                .flag(&format!("--config={}", config.display()));
            servers.push(sidecar.start().await);
        }
        let caller = Sidecar::caller(&control_plane).await;
        let mesh = Self {
            python,
            replicas: [addresses[0], addresses[1]],
            servers,
            caller,
            models,
            control_plane,
            _directory: directory,
        };
        mesh.loaded().await;
        mesh
    }

    /// Waits until all three model servers take requests through the mesh.
    async fn loaded(&self) {
        eventually(
            "the models are loaded",
            Duration::from_secs(60),
            async || {
                let endpoints = self.caller.get("chat", "/health").await;
                let embed = self.caller.get("embed", "/health").await;
                let known = self.caller.admin("/endpoints").await.text();
                let all = self
                    .servers
                    .iter()
                    .all(|server| known.contains(&server.inbound().to_string()));
                match (endpoints.status.as_u16(), embed.status.as_u16(), all) {
                    (200, 200, true) => Ok(()),
                    other => Err(format!("{other:?} {known}")),
                }
            },
        )
        .await;
    }

    /// The official client with a sidecar's address as its base URL, and `Host` to say which service.
    fn by_host(&self, host: &str, command: &str) -> tokio::process::Command {
        let mut client = self.client(&format!("http://{}/v1", self.caller.outbound()), command);
        client.args(["--host", host]);
        client
    }

    /// The official client with the service's name in its base URL, and the sidecar as its HTTP_PROXY.
    fn by_proxy(&self, host: &str, command: &str) -> tokio::process::Command {
        let mut client = self.client(&format!("http://{host}/v1"), command);
        client.env("HTTP_PROXY", format!("http://{}", self.caller.outbound()));
        client
    }

    fn client(&self, base_url: &str, command: &str) -> tokio::process::Command {
        let mut client = tokio::process::Command::new(&self.python);
        client
            .arg(python::directory("llm").join("client.py"))
            .arg(base_url)
            .arg(command)
            .kill_on_drop(true);
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
            client.env_remove(name).env_remove(name.to_lowercase());
        }
        client
    }
}

fn model_server(
    python: &Path,
    name: &str,
    model: &Path,
    address: SocketAddr,
    directory: &Path,
) -> Process {
    let mut command = Command::new(python);
    command
        .arg(python::directory("llm").join("serve.py"))
        .arg(model);
    command
        .arg(address.ip().to_string())
        .arg(address.port().to_string());
    if name == "embed" {
        command.arg("--embedding");
    }
    Process::spawn(name, command, directory)
}

/// Runs a client to its end and returns what it printed.
async fn run(mut client: tokio::process::Command) -> serde_json::Value {
    let output = tokio::time::timeout(Duration::from_secs(60), client.output())
        .await
        .expect("the client ends")
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{:?}: {}{}",
        client,
        text(&output.stdout),
        text(&output.stderr)
    );
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", text(&output.stdout)))
}

/// What a model server says about itself, asked without the mesh.
async fn processing(model: SocketAddr) -> f64 {
    let page = client::get(model, "test", "/metrics").await;
    Metrics::parse(&page.text()).sum("llamacpp:requests_processing", &[])
}

#[tokio::test]
async fn a_real_model_server_through_the_mesh() {
    let python = match python::environment("llm") {
        Ok(python) => python,
        Err(reason) => return skip(&format!("no environment for the LLM server: {reason}")),
    };
    let mesh = Mesh::start(python).await;

    // Both ways in which clients are pointed to a sidecar.
    for client in [
        mesh.by_host("chat", "models"),
        mesh.by_proxy("chat.models", "models"),
    ] {
        assert_eq!(run(client).await["models"][0], "tiny");
    }
    for client in [
        mesh.by_host("chat", "chat"),
        mesh.by_proxy("chat.models", "chat"),
    ] {
        assert_eq!(run(client).await["completion_tokens"], 24);
    }
    for client in [
        mesh.by_host("chat", "stream"),
        mesh.by_proxy("chat", "stream"),
    ] {
        let streamed = run(client).await;
        // One event for each token: the mesh does not put them together.
        assert!(streamed["chunks"].as_u64().unwrap() >= 24, "{streamed}");
        assert_eq!(streamed["completion_tokens"], 24);
    }
    for client in [
        mesh.by_host("embed", "embeddings"),
        mesh.by_proxy("embed", "embeddings"),
    ] {
        let vectors = run(client).await;
        assert_eq!(
            (vectors["vectors"].as_u64(), vectors["width"].as_u64()),
            (Some(2), Some(64))
        );
    }

    // The mesh's figures are the server's: two answers and two streams of 24 tokens each.
    let metrics = mesh.caller.metrics().await;
    let chat = [
        ("service", "default/chat"),
        ("gen_ai_operation_name", "chat"),
    ];
    let output = [chat[0], chat[1], ("gen_ai_token_type", "output")];
    let complete = [chat[0], chat[1], ("outcome", "complete")];
    assert_eq!(metrics.sum("outrigger_model_tokens_total", &output), 96.0);
    assert_eq!(
        metrics.sum("outrigger_model_requests_total", &complete),
        4.0
    );
    let first = "gen_ai_server_time_to_first_token_seconds_count";
    assert_eq!(metrics.sum(first, &chat), 2.0);
    let embedded = [("service", "default/embed"), ("gen_ai_token_type", "input")];
    assert!(metrics.sum("outrigger_model_tokens_total", &embedded) > 0.0);

    // Both replicas had their share, and both sides counted it.
    for server in &mesh.servers {
        let labels = [
            ("direction", "inbound"),
            ("code", "2xx"),
            ("peer", "spiffe://outrigger.local/ns/default/sa/caller"),
        ];
        assert!(
            server
                .metrics()
                .await
                .sum("outrigger_requests_total", &labels)
                >= 2.0
        );
    }

    // The model server's own metrics, through the mesh.
    let page = mesh.caller.get("chat", "/metrics").await;
    assert!(
        Metrics::parse(&page.text()).sum("llamacpp:tokens_predicted_total", &[]) > 0.0,
        "{}",
        page.text()
    );

    // What it says of its load is found out, and reaches the caller's sidecar with each answer.
    for server in &mesh.servers[..2] {
        let page = server.admin("/endpoints").await.json();
        let known = &page["model_servers"][0];
        assert_eq!(known["engine"], "llama-cpp", "{known}");
        assert_eq!(known["last_scrape"], "ok", "{known}");
    }
    let reports = mesh.caller.metrics().await;
    let accepted = [("result", "accepted")];
    assert!(reports.sum("outrigger_load_reports_total", &accepted) >= 4.0);
    let page = mesh.caller.admin("/endpoints").await.json();
    let services = page["services"].as_array().unwrap();
    let chat = services.iter().find(|it| it["service"] == "default/chat");
    for endpoint in chat.unwrap()["endpoints"].as_array().unwrap() {
        assert!(endpoint["reported"]["running"].is_u64(), "{endpoint}");
        assert!(endpoint["reported"]["waiting"].is_u64(), "{endpoint}");
    }

    for (how, client) in [
        ("Host", mesh.by_host("chat", "cancel")),
        ("HTTP_PROXY", mesh.by_proxy("chat", "cancel")),
    ] {
        cancel(&mesh, how, client).await;
    }
    budget(&mesh).await;
}

/// Streams that a budget ends are whole for the client, and both replicas share the budget.
async fn budget(mesh: &Mesh) {
    mesh.control_plane.apply(BUDGET);
    for server in &mesh.servers[..2] {
        eventually("the budget", Duration::from_secs(10), async || {
            let config = server.admin("/config").await.text();
            match config.contains("\"advance\": 20") {
                true => Ok(()),
                false => Err(config),
            }
        })
        .await;
    }
    let used = run(mesh.by_host("chat", "budget")).await;
    let tokens = used["completion_tokens"].as_u64().unwrap();
    let streams = used["streams"].as_u64().unwrap();
    // The advance of each replica, and one event of each stream.
    assert!((40..=60 + 2 * 20 + streams).contains(&tokens), "{used}");
    let mut stopped = 0.0;
    for server in &mesh.servers[..2] {
        let name = "outrigger_token_budget_stopped_streams_total";
        stopped += server.metrics().await.sum(name, &[]);
    }
    assert_eq!(stopped, streams as f64, "{used}");
}

/// A client that closes its stream frees the model's slot at once, while the client's process lives on.
async fn cancel(mesh: &Mesh, how: &str, mut client: tokio::process::Command) {
    let mut client = client
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut input, output) = (client.stdin.take().unwrap(), client.stdout.take().unwrap());
    let mut lines = BufReader::new(output).lines();
    let mut line = async || {
        let line = tokio::time::timeout(Duration::from_secs(20), lines.next_line());
        line.await
            .expect("the client says something")
            .unwrap()
            .unwrap_or_default()
    };
    assert!(line().await.contains("streaming"), "{how}");
    let busy = async || processing(mesh.replicas[0]).await + processing(mesh.replicas[1]).await;
    assert_eq!(busy().await, 1.0, "{how}: nobody generates");
    let running = async || {
        let (one, two) = tokio::join!(mesh.servers[0].metrics(), mesh.servers[1].metrics());
        let of = |metrics: &Metrics| {
            let labels = [("engine", "llama-cpp"), ("service", "default/chat")];
            metrics.sum("outrigger_engine_requests_running", &labels)
        };
        of(&one) + of(&two)
    };
    eventually(
        "the sidecars know",
        Duration::from_secs(3),
        async || match running().await {
            1.0 => Ok(()),
            count => Err(format!("{how}: {count} are known to run")),
        },
    )
    .await;
    input.write_all(b"\n").await.unwrap();
    assert!(line().await.contains("closed"), "{how}");
    // The generation would go on for 10 s and more.
    eventually(
        "the slot is free",
        Duration::from_secs(3),
        async || match busy().await {
            0.0 => Ok(()),
            count => Err(format!("{how}: {count} requests are processed")),
        },
    )
    .await;
    assert!(
        client.try_wait().unwrap().is_none(),
        "{how}: the client's process has ended, which proves nothing"
    );
    drop(input);
    client.wait().await.unwrap();
}

#[tokio::test]
async fn a_stream_outlives_its_real_model_server() {
    let python = match python::environment("llm") {
        Ok(python) => python,
        Err(reason) => return skip(&format!("no environment for the LLM server: {reason}")),
    };
    let mut mesh = Mesh::start(python).await;
    mesh.control_plane.apply(
        "kind: Route
metadata: {name: chat-continued}
spec: {parentRefs: [{name: chat}], rules: [{continuation: {}}]}
",
    );
    let whole = steady(&mut mesh, false).await;
    let continued = steady(&mut mesh, true).await;
    for answer in [&whole, &continued] {
        assert_eq!(answer["finish"], "length", "{answer}");
        assert_eq!(answer["roles"], 1, "{answer}");
        assert_eq!(
            (&answer["ids"], &answer["usages"]),
            (&1.into(), &1.into()),
            "{answer}"
        );
    }
    // What was here stays; what comes after the seam is what the model makes of the text, whose tokens may be others.
    let text = |answer: &serde_json::Value| answer["text"].as_str().unwrap_or_default().to_owned();
    let figures = |answer: &serde_json::Value| {
        format!(
            "{} {}",
            answer["prompt_tokens"], answer["completion_tokens"]
        )
    };
    println!(
        "prompt and completion: {}, then {}",
        figures(&whole),
        figures(&continued)
    );
    let (whole, continued) = (text(&whole), text(&continued));
    let same = whole
        .bytes()
        .zip(continued.bytes())
        .take_while(|(one, other)| one == other)
        .count();
    println!("{same} of {} bytes are the same", whole.len());
    assert!(same > 20, "{whole}\n{continued}");
    let metrics = mesh.caller.metrics().await;
    let labels = [("mode", "text"), ("result", "continued")];
    assert_eq!(metrics.sum("outrigger_continuations_total", &labels), 1.0);
}

/// A long stream at temperature 0. `kill`: the server that makes it is killed when it has begun.
async fn steady(mesh: &mut Mesh, kill: bool) -> serde_json::Value {
    let mut client = mesh.by_host("chat", "steady");
    let mut client = client.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(client.stdout.take().unwrap()).lines();
    let mut line = async || {
        let line = tokio::time::timeout(Duration::from_secs(30), lines.next_line());
        let line = line.await.expect("the client says something").unwrap();
        let line = line.expect("the stream goes on");
        serde_json::from_str::<serde_json::Value>(&line).unwrap()
    };
    assert_eq!(line().await["streaming"], true);
    if kill {
        let at = usize::from(processing(mesh.replicas[0]).await == 0.0);
        assert_eq!(processing(mesh.replicas[at]).await, 1.0, "nobody generates");
        mesh.models[at].signal("KILL");
    }
    let answer = line().await;
    assert!(client.wait().await.unwrap().success());
    answer
}
