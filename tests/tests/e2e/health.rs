//! Outlier detection and active checks, with the file that the page about them shows.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use outrigger_tests::upstream::{self, Listener};
use outrigger_tests::{ControlPlane, Process, Sidecar, binary, eventually, loopback};
use serde_json::Value;
use tokio::io::AsyncWriteExt;

const LONG: Duration = Duration::from_secs(60);

fn example() -> String {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../examples/policies/health.yaml"
    );
    std::fs::read_to_string(path).unwrap()
}

/// Answers `/health` with 200, and all else with 503 while it is told to.
async fn application(name: &'static str, bad: &Arc<AtomicBool>) -> Listener {
    let bad = Arc::clone(bad);
    Listener::start(move |mut stream| {
        let bad = Arc::clone(&bad);
        async move {
            while let Some(head) = upstream::read_head(&mut stream).await {
                let well = head.starts_with("GET /health ") || !bad.load(Ordering::SeqCst);
                let status = if well { "200 OK" } else { "503 No" };
                let length = name.len();
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{name}");
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

/// State and reason of the endpoint with this address.
async fn endpoint(caller: &Sidecar, address: &str) -> (String, String) {
    let page = caller.admin("/endpoints").await.json();
    let services = page["services"].as_array().unwrap();
    let found = services
        .iter()
        .flat_map(|service| service["endpoints"].as_array().unwrap())
        .find(|endpoint| endpoint["address"] == address);
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    found.map_or_else(Default::default, |endpoint| {
        (
            word(&endpoint["state"]),
            word(&endpoint["health"]["reason"]),
        )
    })
}

async fn becomes(caller: &Sidecar, address: &str, wanted: &[&str]) -> String {
    eventually(&format!("{address}: {wanted:?}"), LONG, async || {
        // There is always some traffic: a probation needs a request.
        caller.get("chat", "/").await;
        let (state, reason) = endpoint(caller, address).await;
        if wanted.contains(&state.as_str()) {
            return Ok(reason);
        }
        Err(format!("{state} {reason}"))
    })
    .await
}

#[tokio::test]
async fn an_endpoint_that_answers_503_is_taken_out_and_comes_back() {
    let control_plane = ControlPlane::start().await;
    control_plane.apply(&example());
    let (bad, well) = (Arc::new(AtomicBool::new(false)), Arc::default());
    let one = application("one", &bad).await;
    let two = application("two", &well).await;
    let first = Sidecar::serving(&control_plane, "chat:80", one.address()).await;
    let _second = Sidecar::serving(&control_plane, "chat:80", two.address()).await;
    let caller = Sidecar::caller(&control_plane).await;
    caller.reaches("chat").await;
    let address = first.inbound().to_string();
    becomes(&caller, &address, &["ready"]).await;

    bad.store(true, Ordering::SeqCst);
    let reason = becomes(&caller, &address, &["ejected"]).await;
    assert_eq!(reason, "consecutive-gateway-failures");
    assert_eq!(caller.get("chat", "/").await.text(), "two");
    let metrics = caller.metrics().await;
    let ejections = metrics.sum(
        "outrigger_endpoint_ejections_total",
        &[("service", "default/chat")],
    );
    assert!(ejections >= 1.0);

    // What the sidecars report reaches whoever asks the control plane.
    eventually("the status", LONG, async || {
        caller.get("chat", "/").await;
        let status = control_plane.ctl(&["status"]);
        let described = control_plane.ctl(&["describe", "service", "chat"]);
        let tells = |text: &str| text.contains(&address) && text.contains("Not used by sidecars");
        if status.contains("Endpoints that sidecars do not use") && tells(&described) {
            return Ok(());
        }
        Err(format!("{status}\n{described}"))
    })
    .await;

    bad.store(false, Ordering::SeqCst);
    becomes(&caller, &address, &["ready", "penalised"]).await;
    eventually("its requests", LONG, async || {
        match caller.get("chat", "/").await.text() {
            name if name == "one" => Ok(()),
            other => Err(other),
        }
    })
    .await;
}

#[tokio::test]
async fn a_hung_application_is_found_by_checks_and_comes_back() {
    let control_plane = ControlPlane::start().await;
    control_plane.apply(&example());
    let directory = tempfile::tempdir().unwrap();
    let mut servers = Vec::new();
    let mut sidecars = Vec::new();
    for name in ["one", "two"] {
        let address = std::net::SocketAddr::new(loopback().into(), 28100);
        let mut command = Command::new(binary("model-server"));
        command.args(["--listen", &address.to_string()]);
        servers.push(Process::spawn(name, command, directory.path()));
        eventually(name, LONG, async || {
            let connected = tokio::net::TcpStream::connect(address).await;
            connected.map(drop).map_err(|error| error.to_string())
        })
        .await;
        sidecars.push(Sidecar::serving(&control_plane, "chat:80", address).await);
    }
    let caller = Sidecar::caller(&control_plane).await;
    let address = sidecars[0].inbound().to_string();
    eventually("both are checked", LONG, async || {
        let answer = caller.get("chat", "/health").await;
        let checks = caller.metrics().await.sum(
            "outrigger_health_checks_total",
            &[("service", "default/chat"), ("result", "success")],
        );
        if answer.status == 200 && checks >= 2.0 {
            return Ok(());
        }
        Err(format!("{} and {checks} checks", answer.status))
    })
    .await;

    let state = async |wanted: &str| {
        eventually(wanted, LONG, async || {
            let (state, reason) = endpoint(&caller, &address).await;
            if state == wanted {
                return Ok(reason);
            }
            Err(format!("{state} {reason}"))
        })
        .await
    };
    state("ready").await;
    // It accepts connections, as the kernel does that for it, and never answers.
    servers[0].signal("STOP");
    assert_eq!(state("unhealthy").await, "health-check");
    for _ in 0..20 {
        assert_eq!(caller.get("chat", "/health").await.status, 200);
    }
    servers[0].signal("CONT");
    state("ready").await;
}
