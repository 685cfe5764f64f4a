//! Callers are kept apart in a model server's cache: the example file, applied as it is.

use std::time::Duration;

use outrigger_tests::client::{self, Answer, full};
use outrigger_tests::{Sidecar, eventually};

use crate::mesh::Mesh;

async fn post(caller: &Sidecar, path: &str, body: &str) -> Answer {
    let head = http::Request::builder()
        .method("POST")
        .uri(path)
        .header("host", "chat")
        .header("content-type", "application/json");
    client::request(caller.outbound(), head, full(body.to_owned())).await
}

/// What the application got.
async fn salt(caller: &Sidecar, body: &str) -> String {
    let answer = post(caller, "/v1/chat/completions", body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let echo = answer.json();
    let got = echo["body"].as_str().unwrap();
    assert_eq!(echo["headers"]["content-length"], got.len().to_string());
    let got: serde_json::Value = serde_json::from_str(got).unwrap();
    assert_eq!(got["model"], "tiny");
    got["cache_salt"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn each_identity_has_a_cache_of_its_own() {
    let mesh = Mesh::start("").await;
    let policy = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../examples/policies/isolation.yaml"
    );
    mesh.control_plane.ctl(&["apply", "-f", policy]);
    eventually("the policy", Duration::from_secs(10), async || {
        let config = mesh.server.admin("/config").await.text();
        match config.contains("\"cache_salt\": \"identity\"") {
            true => Ok(()),
            false => Err(config),
        }
    })
    .await;
    let neighbour = Sidecar::builder(&mesh.control_plane, "neighbour")
        .start()
        .await;
    neighbour.reaches("chat").await;
    let one = salt(&mesh.caller, r#"{"model":"tiny"}"#).await;
    assert_eq!(salt(&mesh.caller, r#"{"model":"tiny","n":1}"#).await, one);
    let two = salt(&neighbour, r#"{"model":"tiny"}"#).await;
    assert_ne!(one, two);
    let forged = format!(r#"{{"model":"tiny","cache_salt":"{one}"}}"#);
    let got = salt(&neighbour, &forged).await;
    assert!(got != one && got != two);
    let refused = post(&neighbour, "/invocations", "{}").await;
    assert_eq!(refused.status, 400, "{}", refused.text());
    assert_eq!(refused.header("x-outrigger-reason"), "not-isolated");
    let metrics = mesh.server.metrics().await;
    let count = |result| metrics.sum("outrigger_cache_salts_total", &[("result", result)]);
    assert_eq!(
        (count("set"), count("replaced"), count("refused")),
        (3.0, 1.0, 1.0)
    );
    let described = mesh.control_plane.ctl(&["describe", "service", "chat"]);
    assert!(
        described.contains("identities kept apart by cache_salt"),
        "{described}"
    );
}
