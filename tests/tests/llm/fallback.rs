//! Where the large model does not answer, a smaller one of another service does: two llama.cpp servers, and the official client.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use outrigger_tests::{ControlPlane, Process, Sidecar, eventually, loopback, python, skip};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

const POLICY: &str = "kind: Service
metadata: {name: chat}
spec:
  ports: [{port: 80, protocol: http}]
  limits: {concurrency: 1, queue: {maxLength: 1, maxWait: 50ms}}
  inference: {provider: llama.cpp, models: [{name: large, servedAs: org/large}]}
---
kind: Service
metadata: {name: spare}
spec:
  ports: [{port: 80, protocol: http}]
  inference: {provider: spares, models: [{name: small, servedAs: org/small}]}
---
kind: Route
metadata: {name: chat}
spec:
  parentRefs: [{name: chat}]
  rules:
  - fallbacks:
    - on: [no-endpoints, overload, connect-failed, reset, model-error]
      backendRef: {name: spare}
      model: small
";

struct Mesh {
    python: PathBuf,
    large: Process,
    _small: Process,
    _servers: Vec<Sidecar>,
    caller: Sidecar,
    _control_plane: ControlPlane,
    _directory: TempDir,
}

impl Mesh {
    async fn start(python: PathBuf) -> Mesh {
        let directory = TempDir::new().unwrap();
        let model = directory.path().join("tiny.gguf");
        let made = Command::new(&python)
            .arg(python::directory("llm").join("make_model.py"))
            .arg(&model)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let control_plane = ControlPlane::start().await;
        control_plane.apply(POLICY);
        let mut servers = Vec::new();
        let mut serve = async |service: &str, alias: &str| {
            let address = SocketAddr::new(loopback().into(), 29000);
            let model = model_server(&python, &model, alias, address, directory.path());
            let config = directory.path().join(format!("{service}.yaml"));
            let yaml = format!(
                "serve: [{{service: {service}, port: 80, application: \"{address}\", readiness: {{path: /health, interval: 200ms}}}}]\n"
            );
            std::fs::write(&config, yaml).unwrap();
            let sidecar = Sidecar::builder(&control_plane, service)
                .flag(&format!("--config={}", config.display()));
            servers.push(sidecar.start().await);
            model
        };
        let large = serve("chat", "org/large").await;
        let small = serve("spare", "org/small").await;
        let caller = Sidecar::caller(&control_plane).await;
        for service in ["chat", "spare"] {
            let what = format!("the model of {service} is loaded");
            eventually(&what, Duration::from_secs(60), async || {
                let answer = caller.get(service, "/health").await;
                // A fallback would answer for the other one.
                match (
                    answer.status.as_u16(),
                    answer.header("x-outrigger-fallback"),
                ) {
                    (200, "") => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await;
        }
        Mesh {
            python,
            large,
            _small: small,
            _servers: servers,
            caller,
            _control_plane: control_plane,
            _directory: directory,
        }
    }

    fn client(&self, command: &str) -> tokio::process::Command {
        let mut client = tokio::process::Command::new(&self.python);
        client
            .arg(python::directory("llm").join("client.py"))
            .arg(format!("http://{}/v1", self.caller.outbound()))
            .args([command, "--host", "chat", "--model", "large"])
            .kill_on_drop(true);
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
            client.env_remove(name).env_remove(name.to_lowercase());
        }
        client
    }

    /// Asks for an answer and for a stream: both are this model's, and say so.
    async fn is_answered_by(&self, model: &str, service: Option<&str>, fallback: Option<&str>) {
        let answers = super::run(self.client("answered")).await;
        for kind in ["whole", "stream"] {
            let answer = &answers[kind];
            assert_eq!(answer["model"], model, "{kind} {answers}");
            assert_eq!(answer["completion_tokens"], 24, "{kind} {answers}");
            let marks = [&answer["fallback"], &answer["fallback_model"]];
            assert_eq!(
                marks,
                [&Value::from(service), &Value::from(fallback)],
                "{kind} {answers}"
            );
        }
    }
}

fn model_server(
    python: &Path,
    model: &Path,
    alias: &str,
    address: SocketAddr,
    directory: &Path,
) -> Process {
    let mut command = Command::new(python);
    command
        .arg(python::directory("llm").join("serve.py"))
        .arg(model)
        .arg(address.ip().to_string())
        .arg(address.port().to_string())
        .args(["--alias", alias]);
    Process::spawn(&alias.replace('/', "-"), command, directory)
}

#[tokio::test]
async fn a_smaller_model_of_another_service_answers() {
    let python = match python::environment("llm") {
        Ok(python) => python,
        Err(reason) => return skip(&format!("no environment for the LLM server: {reason}")),
    };
    let mesh = Mesh::start(python).await;
    mesh.is_answered_by("org/large", None, None).await;

    // Overloaded: a long stream has the only place there is.
    let mut long = mesh.client("cancel");
    let mut long = long
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(long.stdout.take().unwrap()).lines();
    let line = tokio::time::timeout(Duration::from_secs(30), lines.next_line()).await;
    assert!(line.unwrap().unwrap().unwrap().contains("streaming"));
    let spare = Some("default/spare");
    mesh.is_answered_by("org/small", spare, Some("small")).await;
    long.stdin.take().unwrap().write_all(b"\n").await.unwrap();
    long.wait().await.unwrap();

    // Killed.
    mesh.large.signal("KILL");
    mesh.is_answered_by("org/small", spare, Some("small")).await;

    let metrics = mesh.caller.metrics().await;
    let count = |name: &str, labels: &[(&str, &str)]| metrics.sum(name, labels);
    let to = [("to", "default/spare"), ("model", "small")];
    let overload = [to[0], to[1], ("cause", "overload")];
    assert_eq!(count("outrigger_fallbacks_total", &overload), 2.0);
    assert_eq!(count("outrigger_fallbacks_total", &to), 4.0);
    let asked = [
        ("gen_ai_request_model", "large"),
        ("gen_ai_response_model", "small"),
    ];
    let complete = [asked[0], asked[1], ("outcome", "complete")];
    assert_eq!(count("outrigger_model_requests_total", &complete), 4.0);
    let output = [asked[0], asked[1], ("gen_ai_token_type", "output")];
    assert_eq!(count("outrigger_model_tokens_total", &output), 96.0);
}
