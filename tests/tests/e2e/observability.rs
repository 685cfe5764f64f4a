//! What the product says about itself.

use std::process::{Command, Stdio};
use std::time::Duration;

use outrigger_tests::{eventually, find_program, skip};

use crate::mesh::{Mesh, service};

#[tokio::test]
async fn metrics_are_clean() {
    let Some(promtool) = find_program("promtool") else {
        return skip("there is no promtool in PATH");
    };
    let mesh = Mesh::start("").await;
    mesh.caller.get("nobody", "/").await;
    mesh.caller.get("chat", "/status/503").await;
    let control_plane =
        std::net::SocketAddr::new(mesh.control_plane.management_address().ip(), 25014);
    for address in [
        mesh.caller.metrics_address(),
        mesh.server.metrics_address(),
        control_plane,
    ] {
        let page = outrigger_tests::client::get(address, &address.to_string(), "/metrics")
            .await
            .text();
        let mut check = Command::new(&promtool)
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut check.stdin.take().unwrap(), page.as_bytes()).unwrap();
        let output = check.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(
            output.status.success() && said.is_empty(),
            "{address}: {}",
            String::from_utf8_lossy(&said)
        );
    }
}

#[tokio::test]
async fn requests_are_counted_on_both_sides_alike() {
    let mesh = Mesh::start("").await;
    let count = async |labels: &[(&str, &str)]| {
        let (caller, server) = tokio::join!(mesh.caller.metrics(), mesh.server.metrics());
        let of = |metrics: outrigger_tests::Metrics, direction| {
            let labels = [
                labels,
                &[("direction", direction), ("service", "default/chat")],
            ]
            .concat();
            metrics.sum("outrigger_requests_total", &labels)
        };
        (of(caller, "outbound"), of(server, "inbound"))
    };
    let (ok, errors) = (
        count(&[("code", "2xx")]).await,
        count(&[("code", "5xx")]).await,
    );
    for _ in 0..10 {
        mesh.caller.get("chat", "/").await;
        mesh.caller.get("chat", "/status/500").await;
    }
    assert_eq!(count(&[("code", "2xx")]).await, (ok.0 + 10.0, ok.1 + 10.0));
    assert_eq!(
        count(&[("code", "5xx")]).await,
        (errors.0 + 10.0, errors.1 + 10.0)
    );

    let metrics = mesh.caller.metrics().await;
    let labels = [("direction", "outbound"), ("service", "default/chat")];
    let requests = metrics.sum("outrigger_requests_total", &labels);
    assert_eq!(
        metrics.sum("outrigger_request_duration_seconds_count", &labels),
        requests
    );
    assert_eq!(
        metrics.sum("outrigger_time_to_first_byte_seconds_count", &labels),
        requests
    );
    assert_eq!(metrics.sum("outrigger_requests_in_flight", &labels), 0.0);
    assert!(metrics.get("outrigger_config_version", &[]).unwrap() >= 1.0);
    assert_eq!(
        metrics.get("outrigger_control_plane_connected", &[]),
        Some(1.0)
    );
    let expiry = metrics
        .get("outrigger_certificate_expiry_timestamp_seconds", &[])
        .unwrap();
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs_f64();
    assert!(
        (now + 20.0 * 3600.0..=now + 25.0 * 3600.0).contains(&expiry),
        "24 h by default: {}",
        expiry - now
    );
}

#[tokio::test]
async fn time_to_first_byte_is_not_the_whole_stream() {
    let mesh = Mesh::start("").await;
    mesh.caller.get("chat", "/sse?n=5&ms=200&first=300").await;
    let metrics = mesh.caller.metrics().await;
    let labels = [("direction", "outbound"), ("service", "default/chat")];
    let total = metrics.sum("outrigger_request_duration_seconds_sum", &labels);
    assert!(
        total >= 1.2,
        "the duration ends with the last byte: {total}"
    );
    let below = metrics.sum("outrigger_time_to_first_byte_seconds_sum", &labels);
    assert!(below < 1.0, "the first byte came after {below} s");
}

#[tokio::test]
async fn the_access_log_is_one_json_object_a_line_and_changes_live() {
    let mut mesh = Mesh::start("").await;
    mesh.caller.get("chat", "/in-order").await;
    mesh.caller.get("nobody", "/not-in-order").await;
    eventually(
        "the failure is logged",
        Duration::from_secs(5),
        async || {
            let log = mesh.caller.process().stdout();
            if log.contains("/not-in-order") {
                Ok(())
            } else {
                Err(log)
            }
        },
    )
    .await;
    let log = mesh.caller.process().stdout();
    assert!(
        !log.contains("/in-order\""),
        "only failures are logged by default: {log}"
    );
    let line: serde_json::Value = serde_json::from_str(
        log.lines()
            .find(|line| line.contains("/not-in-order"))
            .unwrap(),
    )
    .unwrap();
    assert!(line.to_string().contains("no-route"), "{line}");

    mesh.control_plane
        .apply("kind: Mesh\nmetadata: {name: default}\nspec: {telemetry: {accessLog: all}}\n");
    eventually("all is logged", Duration::from_secs(5), async || {
        mesh.caller.get("chat", "/also-in-order").await;
        let log = mesh.caller.process().stdout();
        if log.contains("/also-in-order") {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;
}

#[tokio::test]
async fn the_admin_port_answers() {
    let mesh = Mesh::start("").await;
    assert!(
        mesh.caller
            .admin("/config")
            .await
            .json()
            .to_string()
            .contains("default/chat")
    );
    let endpoints = mesh.caller.admin("/endpoints").await.json().to_string();
    assert!(
        endpoints.contains(&mesh.server.inbound().to_string()),
        "{endpoints}"
    );
    assert_eq!(
        mesh.caller
            .admin_call("PUT", "/log-level", "debug")
            .await
            .status,
        200
    );
    assert!(
        mesh.caller
            .admin("/log-level")
            .await
            .text()
            .contains("debug")
    );
    assert_eq!(
        mesh.caller
            .admin_call("PUT", "/log-level", "loud,=")
            .await
            .status,
        400
    );
    assert_eq!(mesh.caller.admin("/nothing").await.status, 404);
    assert_eq!(mesh.caller.admin("/drain").await.status, 405);
}

#[tokio::test]
async fn a_change_is_in_effect_at_once_and_status_says_so() {
    let mesh = Mesh::start("").await;
    let start = std::time::Instant::now();
    mesh.control_plane
        .apply(&service("chat", "timeouts: {request: 42s}"));
    mesh.control_plane.ctl(&["status", "--wait", "5s"]);
    // With outriggerctl started twice; the time from the change to its effect alone is the quickstart's to measure.
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
    let status: serde_json::Value =
        serde_json::from_str(&mesh.control_plane.ctl(&["status", "-o", "json"])).unwrap();
    let text = status.to_string();
    for account in ["sa/caller", "sa/chat"] {
        assert!(text.contains(account), "{text}");
    }
    let workloads = mesh.control_plane.ctl(&["get", "workloads", "-o", "json"]);
    assert!(
        workloads.contains("default/chat") && workloads.contains("Ready"),
        "{workloads}"
    );
}

#[tokio::test]
async fn an_idle_sidecar_is_small() {
    let mut mesh = Mesh::start("").await;
    // The limit is for releases; a debug build's code alone is several times as large.
    let debug = std::env::current_exe()
        .unwrap()
        .components()
        .any(|part| part.as_os_str() == "debug");
    let limit = if debug { 40 } else { 12 };
    let rss = mesh.caller.process().rss_kib();
    assert!(rss < limit * 1024, "{rss} KiB");
}
