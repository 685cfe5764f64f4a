//! Budgets of tokens: the example file, applied as it is, with the example model server behind three sidecars.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use outrigger_tests::client::{self, Answer, full};
use outrigger_tests::{ControlPlane, Process, Sidecar, binary, eventually, loopback};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

const EXAMPLE: &str = include_str!("../../../examples/policies/token-budgets.yaml");
const LONG: Duration = Duration::from_secs(20);
/// Of the example.
const TOKENS: u64 = 40_000;
const ADVANCE: u64 = 2000;

struct Mesh {
    control_plane: ControlPlane,
    servers: Vec<Sidecar>,
    caller: Sidecar,
    _models: Vec<Process>,
    _directory: TempDir,
}

impl Mesh {
    async fn start(replicas: usize) -> Mesh {
        let control_plane = ControlPlane::start().await;
        control_plane.apply(EXAMPLE);
        let directory = TempDir::new().unwrap();
        let (mut models, mut servers) = (Vec::new(), Vec::new());
        for number in 0..replicas {
            let name = format!("replica-{number}");
            let address = SocketAddr::new(loopback().into(), 28100);
            let mut command = Command::new(binary("model-server"));
            command.args(["--listen", &address.to_string(), "--name", &name]);
            // As fast as it can, and only limits end an answer.
            command.args(["--decode-base-ms", "1", "--decode-per-sequence-ms", "0"]);
            command.args(["--mean-length", "0", "--max-batch", "64"]);
            models.push(Process::spawn(&name, command, directory.path()));
            eventually(&name, LONG, async || {
                let connected = tokio::net::TcpStream::connect(address).await;
                connected.map(drop).map_err(|error| error.to_string())
            })
            .await;
            servers.push(Sidecar::serving(&control_plane, "chat:80", address).await);
        }
        let caller = Sidecar::caller(&control_plane).await;
        let mesh = Mesh {
            control_plane,
            servers,
            caller,
            _models: models,
            _directory: directory,
        };
        eventually("all replicas are known", LONG, async || {
            let known = mesh.caller.get("chat", "/health").await;
            let known = format!(
                "{} {}",
                known.status,
                mesh.caller.admin("/endpoints").await.text()
            );
            let all = known.starts_with("200")
                && mesh
                    .servers
                    .iter()
                    .all(|it| known.contains(&it.inbound().to_string()));
            if all { Ok(()) } else { Err(known) }
        })
        .await;
        mesh
    }

    async fn spent(&self, limit: &str) -> f64 {
        let mut spent = 0.0;
        for server in &self.servers {
            spent += server.metrics().await.sum(
                "outrigger_token_budget_spent_tokens_total",
                &[("limit", limit)],
            );
        }
        spent
    }
}

async fn ask(to: SocketAddr, tier: &str, body: &Value) -> Answer {
    let head = http::Request::builder()
        .method("POST")
        .uri("/v1/chat/completions")
        .header("host", "chat")
        .header("x-tier", tier)
        .header("content-type", "application/json");
    client::request(to, head, full(body.to_string())).await
}

fn chat(max_tokens: u64) -> Value {
    json!({
        "model": "tiny-chat", "max_tokens": max_tokens,
        "messages": [{"role": "user", "content": "tell me of the sea"}],
    })
}

/// So many at a time, until no more is let through or `enough` is used: the tokens of the answers, by the model server's word, and
/// their number.
async fn load(to: SocketAddr, enough: u64) -> (u64, u64) {
    let mut clients = JoinSet::new();
    for _ in 0..12 {
        clients.spawn(async move {
            let (mut tokens, mut answers, mut refused) = (0, 0, 0);
            // A lease may be on its way, or be found with another sidecar.
            while refused < 4 && tokens < enough / 12 {
                let answer = ask(to, "paid", &chat(150)).await;
                if answer.status == 200 {
                    tokens += answer.json()["usage"]["total_tokens"].as_u64().unwrap();
                    answers += 1;
                    continue;
                }
                assert_eq!(
                    (answer.status.as_u16(), answer.reason()),
                    (429, "token-budget"),
                    "{}",
                    answer.text()
                );
                refused += 1;
                let wait: u64 = answer.header("retry-after").parse().unwrap();
                tokio::time::sleep(Duration::from_millis(250).min(Duration::from_secs(wait))).await;
            }
            (tokens, answers)
        });
    }
    let mut sum = (0, 0);
    while let Some(result) = clients.join_next().await {
        let (tokens, answers) = result.unwrap();
        sum = (sum.0 + tokens, sum.1 + answers);
    }
    sum
}

#[tokio::test]
async fn three_sidecars_share_a_budget_and_the_control_plane_dies() {
    let mut mesh = Mesh::start(3).await;
    let to = mesh.caller.outbound();
    let (first, answers) = load(to, TOKENS / 2).await;
    assert!(answers > 50, "{answers} answers");

    // Without it they go on with what they hold.
    mesh.control_plane.kill9();
    let alone = ask(to, "paid", &chat(150)).await;
    assert_eq!(alone.status, 200, "{}", alone.text());
    let alone = alone.json()["usage"]["total_tokens"].as_u64().unwrap();
    mesh.control_plane.restart().await;
    eventually("leases are asked for again", LONG, async || {
        let asked = mesh.control_plane.metrics().await;
        match asked.sum("outrigger_control_plane_budget_lease_requests_total", &[]) {
            0.0 => {
                let _ = ask(to, "paid", &chat(150)).await;
                Err("nobody has asked".to_owned())
            }
            _ => Ok(()),
        }
    })
    .await;
    let (second, _) = load(to, u64::MAX).await;

    // Prompts are estimated, and what the estimate is wrong by is settled after the fact; with all other requests there were.
    let used = first + second + alone;
    let spent = mesh.spent("per-caller").await;
    assert!(spent >= used as f64, "{used} are used, {spent} counted");
    let most = (TOKENS + 3 * ADVANCE) as f64;
    assert!(spent <= most, "{spent} of {most} are used");
    // What the crash has cost is a sixteenth; what is left cannot be used by anybody is less than a request for each sidecar.
    assert!(spent > TOKENS as f64 * 0.85, "only {spent} could be used");

    let refused = ask(to, "paid", &chat(1000)).await;
    assert_eq!(
        (refused.status.as_u16(), refused.reason()),
        (429, "token-budget")
    );
    assert_eq!(refused.header("ratelimit-limit"), TOKENS.to_string());
    let error = &refused.json()["error"];
    assert_eq!(
        (&error["type"], &error["code"]),
        (&"tokens".into(), &"token_budget_exceeded".into())
    );
    let described = mesh
        .control_plane
        .ctl(&["describe", "ratelimit", "chat-tokens"]);
    for expected in [
        "40000 tokens in 24h",
        "Leased",
        "spiffe://outrigger.local/ns/default/sa/caller",
    ] {
        assert!(described.contains(expected), "{described}");
    }
    let listed = mesh.control_plane.ctl(&["get", "ratelimits"]);
    assert!(listed.contains("per-caller 40000 tokens/24h"), "{listed}");

    // Another caller has a budget of its own.
    let other = Sidecar::builder(&mesh.control_plane, "other").start().await;
    eventually("it has a budget", LONG, async || {
        let answer = ask(other.outbound(), "paid", &chat(150)).await;
        match answer.status.as_u16() {
            200 => Ok(()),
            _ => Err(answer.text()),
        }
    })
    .await;
}

#[tokio::test]
async fn a_hard_limit_ends_a_stream_as_its_interface_does() {
    let mesh = Mesh::start(1).await;
    let to = mesh.caller.outbound();
    let endless = json!({
        "model": "tiny-chat", "stream": true, "ignore_eos": true, "max_completion_tokens": null,
        "stream_options": {"include_usage": true},
        "messages": [{"role": "user", "content": "tell me of the sea"}],
    });
    let answer = ask(to, "free", &endless).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let text = answer.text();
    let events: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .collect();
    assert_eq!(events.last(), Some(&"[DONE]"));
    let read = |event: &str| -> Value { serde_json::from_str(event).unwrap() };
    let last = read(events[events.len() - 3]);
    assert_eq!(last["choices"][0]["finish_reason"], "length", "{last}");
    assert!(last["id"].is_string(), "{last}");
    let usage = read(events[events.len() - 2]);
    let output = usage["usage"]["completion_tokens"].as_u64().unwrap();
    // One event more than there was, at most.
    assert!((500..=601).contains(&output), "{output}");

    let labels = [("limit", "free-tier")];
    eventually("it is counted", LONG, async || {
        let metrics = mesh.servers[0].metrics().await;
        let stopped = metrics.sum("outrigger_token_budget_stopped_streams_total", &labels);
        let reason = [("direction", "inbound"), ("reason", "token-budget")];
        let counted = metrics.sum("outrigger_requests_total", &reason);
        let spent = metrics.sum("outrigger_token_budget_spent_tokens_total", &labels);
        match (stopped, counted) {
            (1.0, 1.0) if spent == output as f64 => Ok(()),
            other => Err(format!("{other:?} {spent}")),
        }
    })
    .await;
    // Nothing is left of it, for a request that says no more than that it wants an answer either.
    let refused = ask(to, "free", &endless).await;
    assert_eq!(
        (refused.status.as_u16(), refused.reason()),
        (429, "token-budget")
    );
    // Who pays goes on.
    assert_eq!(ask(to, "paid", &chat(20)).await.status, 200);
}
