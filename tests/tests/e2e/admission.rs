//! Admission beside model servers: the queue is in the sidecar, and a replica that is full is no client's concern.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use outrigger_tests::client::{self, Answer};
use outrigger_tests::{ControlPlane, Metrics, Process, Sidecar, binary, eventually, loopback};
use serde_json::Value;
use tokio::task::JoinSet;

const EXAMPLE: &str = include_str!("../../../examples/policies/admission.yaml");
const LONG: Duration = Duration::from_secs(20);

struct Mesh {
    control_plane: ControlPlane,
    models: Vec<SocketAddr>,
    servers: Vec<Sidecar>,
    caller: Sidecar,
    _processes: Vec<Process>,
    _directory: tempfile::TempDir,
}

impl Mesh {
    /// So many replicas with a batch of four, in which a token takes about 10 ms.
    async fn start(policy: &str, replicas: usize) -> Mesh {
        let control_plane = ControlPlane::start().await;
        control_plane.apply(policy);
        let directory = tempfile::tempdir().unwrap();
        let (mut models, mut processes, mut servers) = (Vec::new(), Vec::new(), Vec::new());
        for index in 0..replicas {
            let address = SocketAddr::new(loopback().into(), 28200);
            let mut command = Command::new(binary("model-server"));
            command.args(["--listen", &address.to_string(), "--max-batch", "4"]);
            let name = format!("model-{index}");
            processes.push(Process::spawn(&name, command, directory.path()));
            eventually(&name, LONG, async || {
                let connected = tokio::net::TcpStream::connect(address).await;
                connected.map(drop).map_err(|error| error.to_string())
            })
            .await;
            servers.push(Sidecar::serving(&control_plane, "chat:80", address).await);
            models.push(address);
        }
        let caller = Sidecar::caller(&control_plane).await;
        let mesh = Mesh {
            control_plane,
            models,
            servers,
            caller,
            _processes: processes,
            _directory: directory,
        };
        mesh.reaches_all().await;
        mesh
    }

    async fn reaches_all(&self) {
        eventually("all replicas", LONG, async || {
            let answer = self.caller.get("chat", "/health").await;
            let known = self.caller.admin("/endpoints").await.text();
            let all = self
                .servers
                .iter()
                .all(|it| known.contains(&it.inbound().to_string()));
            if answer.status == 200 && all {
                return Ok(());
            }
            Err(format!("{} {known}", answer.status))
        })
        .await;
    }

    /// What the sidecar beside a replica says of its limit.
    async fn limits(&self, replica: usize) -> Value {
        let config = self.servers[replica].admin("/config").await.json();
        let mut ports = config["inbound"].as_object().unwrap().values();
        ports
            .next()
            .map_or(Value::Null, |port| port["limits"].clone())
    }

    /// Until nothing is under way at any replica.
    async fn idle(&self) {
        eventually("free places", LONG, async || {
            for replica in 0..self.servers.len() {
                let limits = self.limits(replica).await;
                if limits["in_use"] != 0 {
                    return Err(limits.to_string());
                }
            }
            Ok(())
        })
        .await;
    }

    /// What a model server says of itself.
    async fn waiting_in(&self, replica: usize) -> f64 {
        let page = client::get(self.models[replica], "model", "/metrics").await;
        Metrics::parse(&page.text()).sum("vllm:num_requests_waiting", &[])
    }
}

async fn ask(outbound: SocketAddr, tokens: u32, priority: &'static str) -> Answer {
    let head = http::Request::builder()
        .method("POST")
        .uri("/v1/chat/completions")
        .header("host", "chat")
        .header("x-outrigger-priority", priority)
        .header("content-type", "application/json");
    let body = serde_json::json!({
        "model": "tiny-chat",
        "messages": [{"role": "user", "content": "Tell me of the sea."}],
        "max_tokens": tokens,
        "ignore_eos": true,
    });
    client::request(outbound, head, client::full(body.to_string())).await
}

fn ask_many(outbound: SocketAddr, count: usize, tokens: u32) -> JoinSet<Answer> {
    let mut asked = JoinSet::new();
    for _ in 0..count {
        asked.spawn(ask(outbound, tokens, "default"));
    }
    asked
}

async fn all_well(mut asked: JoinSet<Answer>) {
    while let Some(answer) = asked.join_next().await {
        let answer = answer.unwrap();
        assert_eq!(answer.status, 200, "{:?} {}", answer.headers, answer.text());
    }
}

#[tokio::test]
async fn the_batch_is_learnt_and_the_queue_is_in_the_sidecar() {
    let mesh = Mesh::start(EXAMPLE, 2).await;
    let limits = mesh.limits(0).await;
    assert_eq!(
        (&limits["batch"]["source"], &limits["batch"]["size"]),
        (&"start".into(), &64.into())
    );
    // So many that all wait in the model servers, until it is known what these run at a time.
    all_well(ask_many(mesh.caller.outbound(), 48, 60)).await;
    for replica in 0..2 {
        let limits = mesh.limits(replica).await;
        assert_eq!(limits["batch"]["source"], "learnt", "{limits}");
        assert_eq!(limits["batch"]["size"], 4, "{limits}");
        assert_eq!(limits["concurrency"], 5, "{limits}");
    }
    let second = ask_many(mesh.caller.outbound(), 48, 60);
    eventually("a queue in the sidecars", LONG, async || {
        let mut lengths = Vec::new();
        for server in &mesh.servers {
            lengths.push(server.metrics().await.sum("outrigger_queue_length", &[]));
        }
        if lengths.iter().all(|length| *length > 5.0) {
            return Ok(());
        }
        Err(format!("{lengths:?}"))
    })
    .await;
    for replica in 0..2 {
        let waiting = mesh.waiting_in(replica).await;
        assert!(waiting <= 1.0, "{waiting} wait in the model server");
    }
    all_well(second).await;
    let described = mesh.control_plane.ctl(&["describe", "service", "chat"]);
    assert!(
        described.contains("batch as it is learnt (64 until then"),
        "{described}"
    );
}

const SMALL: &str = "kind: Service
metadata: {name: chat}
spec:
  ports: [{port: 80, protocol: http}]
  inference: {}
  loadBalancing: {policy: random}
  limits:
    batch: {size: 1}
    queue: {maxWait: 50ms}
";

#[tokio::test]
async fn no_client_hears_of_a_full_replica_while_another_one_has_room() {
    let mesh = Mesh::start(SMALL, 2).await;
    let caller = mesh.caller.outbound();
    // How long answers take is known of both from now on.
    eventually("answers of both", LONG, async || {
        all_well(ask_many(caller, 1, 20)).await;
        mesh.idle().await;
        for replica in 0..2 {
            let limits = mesh.limits(replica).await;
            if !limits["batch"]["turn_ms"].is_number() {
                return Err(limits.to_string());
            }
        }
        Ok(())
    })
    .await;
    // Three of the four places. By chance all three go to the same replica now and then.
    for _ in 0..12 {
        all_well(ask_many(caller, 3, 20)).await;
        mesh.idle().await;
    }
    let metrics = mesh.caller.metrics().await;
    let moved = metrics.sum("outrigger_retries_total", &[("cause", "busy")]);
    assert!(moved >= 1.0, "none of 36 requests met a full replica");

    // Where there is no room anywhere, it is said at once how long it would take.
    let mut asked = ask_many(caller, 24, 40);
    let mut refused = 0;
    while let Some(answer) = asked.join_next().await {
        let answer = answer.unwrap();
        if answer.status == 200 {
            continue;
        }
        refused += 1;
        assert_eq!(
            (answer.status.as_u16(), answer.reason()),
            (503, "overloaded")
        );
        let wait: u64 = answer
            .header("x-outrigger-expected-wait-ms")
            .parse()
            .unwrap();
        assert_eq!(answer.json()["error"]["expected_wait_ms"], wait);
        assert_eq!(
            answer.header("retry-after"),
            wait.div_ceil(1000).to_string()
        );
    }
    assert!((1..=20).contains(&refused), "{refused} of 24");
}

const ONE: &str = "kind: Service
metadata: {name: chat}
spec:
  ports: [{port: 80, protocol: http}]
  inference: {}
  limits:
    batch: {size: 2}
    queue: {maxWait: 60s}
    priorities:
      callers: [{identities: [\"spiffe://outrigger.local/ns/default/sa/caller\"], priority: default, highest: critical}]
";

#[tokio::test]
async fn callers_take_turns_and_what_matters_more_goes_first() {
    let mesh = Mesh::start(ONE, 1).await;
    let other = Sidecar::builder(&mesh.control_plane, "other").start().await;
    eventually("another caller", LONG, async || {
        match other.get("chat", "/health").await.status.as_u16() {
            200 => Ok(()),
            status => Err(status.to_string()),
        }
    })
    .await;
    let ended = Arc::new(AtomicUsize::new(0));
    let place = |outbound, priority| {
        let ended = Arc::clone(&ended);
        tokio::spawn(async move {
            let answer = ask(outbound, 20, priority).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            ended.fetch_add(1, Ordering::SeqCst)
        })
    };
    let many: Vec<_> = (0..40)
        .map(|_| place(mesh.caller.outbound(), "default"))
        .collect();
    eventually("a queue", LONG, async || match mesh.limits(0).await {
        limits if limits["waiting"].as_u64() > Some(20) => Ok(()),
        limits => Err(limits.to_string()),
    })
    .await;
    let before = ended.load(Ordering::SeqCst);
    let one = place(other.outbound(), "default");
    let critical = place(mesh.caller.outbound(), "critical");
    // They come while others are under way, and go before all that wait but one or two.
    let (one, critical) = (one.await.unwrap(), critical.await.unwrap());
    assert!(one - before <= 10, "{one} after {before}");
    assert!(critical - before <= 10, "{critical} after {before}");
    for each in many {
        each.await.unwrap();
    }
}
