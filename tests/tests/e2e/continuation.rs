//! Token streams that break and go on at another replica: for the client they are the stream that does not break.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use outrigger_tests::client::{self, Answer};
use outrigger_tests::{ControlPlane, Metrics, Process, Sidecar, binary, eventually, loopback};
use serde_json::{Value, json};
use tempfile::TempDir;

const EXAMPLE: &str = include_str!("../../../examples/policies/continuation.yaml");
const MARK: &str = ": outrigger-continued\n\n";
/// Of every answer.
const TOKENS: usize = 24;

/// Two replicas of the example's model server, and a caller.
struct Mesh {
    models: Vec<SocketAddr>,
    sidecars: Vec<Sidecar>,
    caller: Sidecar,
    control_plane: ControlPlane,
    _processes: Vec<Process>,
    _directory: TempDir,
}

impl Mesh {
    /// `step_ms`: for each token; `sidecar`: flags of the sidecars beside the models.
    async fn start(mode: &str, step_ms: &str, sidecar: &[&str]) -> Mesh {
        let control_plane = ControlPlane::start().await;
        // The tests' patience is not the example's, and they spend more than its budget.
        let policy = EXAMPLE
            .replace("tokenIdleTimeout: 10s", "tokenIdleTimeout: 150ms")
            .replace("minPerSecond: 10", "minPerSecond: 1000")
            // Else the replica that failed is left alone for a while.
            .replace(
                "  inference:",
                "  loadBalancing: {policy: round-robin}\n  inference:",
            )
            .replace("mode: auto", &format!("mode: {mode}"));
        control_plane.apply(&policy);
        let directory = TempDir::new().unwrap();
        let (mut models, mut processes, mut sidecars) = (Vec::new(), Vec::new(), Vec::new());
        for name in ["one", "two"] {
            let address = SocketAddr::new(loopback().into(), 28100);
            let mut command = Command::new(binary("model-server"));
            command.args(["--listen", &address.to_string(), "--name", name]);
            command.args(["--decode-base-ms", step_ms, "--mean-length", "0"]);
            processes.push(Process::spawn(name, command, directory.path()));
            eventually(name, Duration::from_secs(10), async || {
                let connected = tokio::net::TcpStream::connect(address).await;
                connected.map(drop).map_err(|error| error.to_string())
            })
            .await;
            let mut builder = Sidecar::builder(&control_plane, "chat").serve("chat:80", address);
            for flag in sidecar {
                builder = builder.flag(flag);
            }
            sidecars.push(builder.start().await);
            models.push(address);
        }
        let caller = Sidecar::caller(&control_plane).await;
        let mesh = Mesh {
            models,
            sidecars,
            caller,
            control_plane,
            _processes: processes,
            _directory: directory,
        };
        eventually("both are known", Duration::from_secs(10), async || {
            mesh.caller.get("chat", "/health").await;
            let known = mesh.caller.admin("/endpoints").await.text();
            let all = mesh
                .sidecars
                .iter()
                .all(|it| known.contains(&it.inbound().to_string()));
            if all { Ok(()) } else { Err(known) }
        })
        .await;
        mesh
    }

    async fn ask(&self, path: &str, body: &Value) -> Result<Answer, String> {
        let answer = client::try_request(
            self.caller.outbound(),
            head(path),
            client::full(body.to_string()),
        );
        answer.await.map_err(|error| error.to_string())
    }

    /// The next request to the first replica breaks in this way.
    async fn breaks(&self, fault: &Value) {
        self.breaks_at(0, fault).await;
    }

    async fn breaks_at(&self, model: usize, fault: &Value) {
        let head = http::Request::builder()
            .method("POST")
            .uri("/faults")
            .header("host", "faults");
        let body = client::full(fault.to_string());
        let answer = client::request(self.models[model], head, body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// Waits until so many answers are made.
    async fn running(&self, wanted: f64) {
        eventually("all are under way", Duration::from_secs(5), async || {
            let mut running = 0.0;
            for model in &self.models {
                let page = client::get(*model, "model", "/metrics").await.text();
                running += Metrics::parse(&page).sum("vllm:num_requests_running", &[]);
            }
            if running >= wanted {
                Ok(())
            } else {
                Err(running.to_string())
            }
        })
        .await;
    }

    async fn count(&self, labels: &[(&str, &str)]) -> f64 {
        let metrics = self.caller.metrics().await;
        metrics.sum("outrigger_continuations_total", labels)
    }
}

fn head(path: &str) -> http::request::Builder {
    http::Request::builder()
        .method("POST")
        .uri(path)
        .header("host", "chat")
        .header("content-type", "application/json")
}

fn chat(question: &str) -> (&'static str, Value) {
    let body = json!({
        "model": "tiny-chat", "stream": true, "max_tokens": TOKENS, "temperature": 0,
        "stream_options": {"include_usage": true},
        "messages": [{"role": "user", "content": question}],
    });
    ("/v1/chat/completions", body)
}

fn completion(prompt: &str) -> (&'static str, Value) {
    let body = json!({
        "model": "tiny-chat", "stream": true, "max_tokens": TOKENS, "temperature": 0,
        "stream_options": {"include_usage": true}, "prompt": prompt,
    });
    ("/v1/completions", body)
}

/// What a client makes of a stream.
#[derive(Debug, PartialEq)]
struct Seen {
    text: String,
    roles: usize,
    finishes: Vec<String>,
    usage: Vec<Value>,
    done: usize,
    ids: usize,
    objects: Vec<String>,
    models: Vec<String>,
}

fn seen(stream: &str) -> Seen {
    let mut seen = Seen {
        text: String::new(),
        roles: 0,
        finishes: Vec::new(),
        usage: Vec::new(),
        done: 0,
        ids: 0,
        objects: Vec::new(),
        models: Vec::new(),
    };
    let mut ids = std::collections::BTreeSet::new();
    let keep = |list: &mut Vec<String>, value: &Value| {
        let value = value.to_string();
        if !list.contains(&value) {
            list.push(value);
        }
    };
    assert!(stream.ends_with("\n\n"), "half an event: {stream}");
    for event in stream.split_terminator("\n\n") {
        let Some(data) = event.strip_prefix("data: ") else {
            assert!(event.starts_with(':'), "{event}");
            continue;
        };
        if data == "[DONE]" {
            seen.done += 1;
            continue;
        }
        assert_eq!(seen.done, 0, "after the end: {data}");
        let chunk: Value =
            serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {data}"));
        assert!(chunk.get("error").is_none(), "{data}");
        assert!(!data.contains("token_ids"), "{data}");
        ids.insert((chunk["id"].to_string(), chunk["created"].to_string()));
        keep(&mut seen.objects, &chunk["object"]);
        keep(&mut seen.models, &chunk["model"]);
        if let Some(usage) = chunk.get("usage").filter(|usage| !usage.is_null()) {
            // What was in the caches may differ.
            let numbers = ["prompt_tokens", "completion_tokens", "total_tokens"];
            seen.usage
                .push(numbers.iter().map(|name| usage[*name].clone()).collect());
        }
        for choice in chunk["choices"].as_array().unwrap() {
            assert_eq!(choice["index"], 0);
            let delta = &choice["delta"];
            seen.roles += usize::from(delta.get("role").is_some());
            let text = delta.get("content").or(choice.get("text"));
            seen.text += text.and_then(Value::as_str).unwrap_or_default();
            if let Some(finish) = choice["finish_reason"].as_str() {
                seen.finishes.push(finish.to_owned());
            }
        }
    }
    seen.ids = ids.len();
    seen
}

/// Every way to break, after so many tokens.
fn faults(cut: usize) -> Vec<Value> {
    vec![
        json!({"die_after_tokens": cut, "limit": 1}),
        json!({"error_after_tokens": cut, "limit": 1}),
        json!({"stall_after_tokens": cut, "limit": 1}),
    ]
}

async fn every_cut_is_seamless(mode: &str, by: &str) {
    let mesh = Mesh::start(mode, "0.2", &[]).await;
    let mut cuts = 0.0;
    for (path, body) in [
        chat("Where does the boat go?"),
        completion("The sea is wide"),
    ] {
        let whole = seen(&mesh.ask(path, &body).await.unwrap().text());
        assert_eq!(whole.usage.len(), 1);
        assert_eq!((whole.done, whole.ids), (1, 1));
        assert_eq!(whole.usage[0][1], TOKENS);
        for cut in 0..=TOKENS {
            for fault in faults(cut) {
                // Where nothing comes the first token is waited for, and that is another clock.
                if cut == 0 && fault.get("stall_after_tokens").is_some() {
                    continue;
                }
                let name = format!("{mode} {path} {fault}");
                mesh.breaks(&fault).await;
                let mut broke = false;
                for _ in 0..3 {
                    let answer = mesh.ask(path, &body).await;
                    let text = answer
                        .unwrap_or_else(|error| panic!("{name}: {error}"))
                        .text();
                    assert_eq!(seen(&text), whole, "{name}: {text}");
                    broke |= text.contains(MARK);
                }
                // Where all tokens were here nobody has to be asked, if the prompt's are known. Before the first the retries may.
                assert!(broke || cut == 0 || cut == TOKENS, "{name}: nothing broke");
                cuts += f64::from(u8::from(broke));
            }
        }
    }
    let continued = mesh.count(&[("result", "continued"), ("mode", by)]).await;
    assert_eq!(continued, cuts, "each is counted");
    assert!(cuts >= 2.0 * 3.0 * (TOKENS - 1) as f64);
    let other = mesh.count(&[("result", "failed")]).await;
    assert_eq!(other, 0.0);
}

#[tokio::test]
async fn streams_go_on_by_token_ids() {
    every_cut_is_seamless("auto", "tokens").await;
}

#[tokio::test]
async fn streams_go_on_by_text() {
    every_cut_is_seamless("text", "text").await;
}

#[tokio::test]
async fn a_drain_that_cannot_wait_hands_its_streams_over() {
    let mesh = Mesh::start("auto", "60", &["--drain-timeout=400ms"]).await;
    let (path, body) = chat("Where does the boat go?");
    let whole = seen(&mesh.ask(path, &body).await.unwrap().text());
    // 1.5 s each, of which at least two are at the first replica.
    let asked = (0..4).map(|_| mesh.ask(path, &body));
    let streams = futures_util::future::join_all(asked);
    let ending = async {
        mesh.running(4.0).await;
        mesh.sidecars[0].sigterm();
    };
    let (streams, ()) = futures_util::future::join(streams, ending).await;
    for stream in streams {
        assert_eq!(seen(&stream.unwrap().text()), whole);
    }
    let continued = mesh
        .count(&[("result", "continued"), ("mode", "tokens")])
        .await;
    assert!(continued >= 1.0, "none was handed over");
    // The one that ends is not asked again.
    assert_eq!(mesh.count(&[]).await, continued);
}

#[tokio::test]
async fn a_stream_outlives_all_replicas_that_it_began_with() {
    let mesh = Mesh::start("text", "100", &["--drain-timeout=400ms"]).await;
    let (path, mut body) = chat("Where does the boat go?");
    // 5 s.
    body["max_tokens"] = json!(50);
    let whole = seen(&mesh.ask(path, &body).await.unwrap().text());
    let stream = mesh.ask(path, &body);
    let update = async {
        mesh.running(1.0).await;
        // The next version. Its model server is one that is there already.
        let next = Sidecar::serving(&mesh.control_plane, "chat:80", mesh.models[1]).await;
        eventually("it is known", Duration::from_secs(5), async || {
            let known = mesh.caller.admin("/endpoints").await.text();
            if known.contains(&next.inbound().to_string()) {
                Ok(())
            } else {
                Err(known)
            }
        })
        .await;
        mesh.sidecars.iter().for_each(Sidecar::sigterm);
        next
    };
    let (stream, _next) = futures_util::future::join(stream, update).await;
    assert_eq!(seen(&stream.unwrap().text()), whole);
    assert_eq!(mesh.count(&[("result", "continued")]).await, 1.0);
}

#[tokio::test]
async fn who_goes_away_is_not_answered_any_more() {
    let mesh = Mesh::start("text", "20", &[]).await;
    let (path, mut body) = chat("Where does the boat go?");
    body["max_tokens"] = json!(2000);
    let body = body.to_string();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: chat\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    mesh.breaks(&json!({"die_after_tokens": 3, "limit": 1}))
        .await;
    let mut went_on = false;
    for _ in 0..4 {
        // It ends with the time: the client is gone in the middle of the answer.
        let limit = Duration::from_millis(800);
        let text = client::raw(mesh.caller.outbound(), request.as_bytes(), limit).await;
        went_on |= text.contains(MARK);
    }
    assert!(went_on);
    eventually(
        "nothing is made any more",
        Duration::from_secs(10),
        async || {
            for model in &mesh.models {
                let page = client::get(*model, "model", "/metrics").await.text();
                let running = Metrics::parse(&page).sum("vllm:num_requests_running", &[]);
                if running > 0.0 {
                    return Err(format!("{running} at {model}"));
                }
            }
            Ok(())
        },
    )
    .await;
}

#[tokio::test]
async fn what_cannot_go_on_is_passed_on_and_counted() {
    let mesh = Mesh::start("auto", "0.2", &[]).await;
    let (path, plain) = chat("Where does the boat go?");
    for (member, value, result) in [
        ("tools", json!([{"type": "function"}]), "tools"),
        ("stop", json!(["never"]), "stop"),
        ("seed", json!(7), "seed"),
        (
            "response_format",
            json!({"type": "json_object"}),
            "structured-output",
        ),
    ] {
        let mut body = plain.clone();
        body["temperature"] = json!(1);
        body[member] = value;
        mesh.breaks(&json!({"error_after_tokens": 5, "limit": 1}))
            .await;
        let mut errors = 0;
        for _ in 0..2 {
            let text = mesh.ask(path, &body).await.unwrap().text();
            assert!(!text.contains(MARK), "{text}");
            assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
            assert!(!text.contains("token_ids"), "{text}");
            errors += usize::from(text.contains("{\"error\":"));
        }
        assert_eq!(errors, 1, "{member}");
        let labels = [("mode", "none"), ("result", result)];
        assert_eq!(mesh.count(&labels).await, 1.0, "{member}");
    }
    // Both replicas break: more than twice is not gone on with.
    let fault = json!({"error_after_tokens": 2});
    mesh.breaks(&fault).await;
    mesh.breaks_at(1, &fault).await;
    let text = mesh.ask(path, &plain).await.unwrap().text();
    assert_eq!(text.matches(MARK).count(), 2, "{text}");
    assert_eq!(text.matches("{\"error\":").count(), 1, "{text}");
    assert_eq!(mesh.count(&[("result", "attempts")]).await, 1.0);
}
