//! Admission beside real model servers: four places each, and more streams than both have.

use std::time::Duration;

use outrigger_tests::{eventually, python, skip};

use super::{Mesh, run};

const SERVICES: &str = "kind: Service
metadata: {name: chat}
spec:
  ports: [{port: 80, protocol: http}]
  inference: {provider: llama.cpp, engine: {interval: 50ms}}
  loadBalancing: {policy: model-load}
  limits: {batch: {learn: {}}, queue: {maxWait: 30s}}
---
kind: Service
metadata: {name: embed}
spec: {ports: [{port: 80, protocol: http}], inference: {}}
";

#[tokio::test]
async fn more_streams_than_places_wait_in_the_sidecar() {
    let python = match python::environment("llm") {
        Ok(python) => python,
        Err(reason) => return skip(&format!("no environment for the LLM server: {reason}")),
    };
    let mesh = Mesh::start_with(python, SERVICES).await;
    for server in &mesh.servers[..2] {
        eventually(
            "the places of llama.cpp",
            Duration::from_secs(10),
            async || {
                let config = server.admin("/config").await.json();
                let ports = config["inbound"].as_object().unwrap();
                let limits = &ports.values().next().unwrap()["limits"];
                match (
                    limits["batch"]["size"].as_u64(),
                    limits["batch"]["source"].as_str(),
                ) {
                    (Some(4), Some("told")) => Ok(()),
                    _ => Err(limits.to_string()),
                }
            },
        )
        .await;
    }
    // Twelve at a time: eight places, and one of head room each.
    let streamed = run(mesh.by_host("chat", "streams")).await;
    assert_eq!(streamed["streams"], 12, "{streamed}");
    let (mut served, mut waited) = (0.0, 0.0);
    for server in &mesh.servers[..2] {
        let metrics = server.metrics().await;
        served += metrics.sum(
            "outrigger_requests_total",
            &[("code", "2xx"), ("reason", "")],
        );
        waited += metrics.sum("outrigger_queue_wait_seconds_count", &[]);
        assert_eq!(metrics.sum("outrigger_concurrency_limit", &[]), 5.0);
    }
    assert!(served >= 12.0, "{served}");
    assert!(waited >= 2.0, "{waited} of 12 waited in the sidecars");
}
