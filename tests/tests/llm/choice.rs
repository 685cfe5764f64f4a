//! Which of two real model servers gets a request: not one that hangs, and the one that knows the prompt.

use std::time::Duration;

use outrigger_tests::client::{self, Answer};
use outrigger_tests::{Sidecar, eventually, python, skip};

use super::Mesh;

/// With `more` for the service of the chat replicas.
fn services(more: &str) -> String {
    format!(
        "kind: Service
metadata: {{name: chat}}
spec:
  ports: [{{port: 80, protocol: http}}]
{more}
---
kind: Service
metadata: {{name: embed}}
spec: {{ports: [{{port: 80, protocol: http}}], inference: {{}}}}
"
    )
}

/// Chats that a server's sidecar has let through to their end.
async fn chats(server: &Sidecar) -> f64 {
    let labels = [("direction", "inbound"), ("outcome", "complete")];
    let metrics = server.metrics().await;
    metrics.sum("outrigger_model_requests_total", &labels)
}

async fn chat(to: std::net::SocketAddr, body: serde_json::Value) -> Answer {
    let head = http::Request::post("/v1/chat/completions")
        .header("host", "chat")
        .header("content-type", "application/json");
    client::request(to, head, client::full(body.to_string())).await
}

#[tokio::test]
async fn a_server_that_hangs_is_left_before_its_first_token() {
    let python = match python::environment("llm") {
        Ok(python) => python,
        Err(reason) => return skip(&format!("no environment for the LLM server: {reason}")),
    };
    let mesh = Mesh::start_with(
        python,
        &services(
            "  loadBalancing: {policy: round-robin}
  inference: {streams: {firstTokenTimeout: 2s}}
  retry: {attempts: 1, onTimeout: true, methods: [POST]}",
        ),
    )
    .await;
    // All at once, and before the health check finds it out.
    mesh.models[0].signal("STOP");
    let mut streams = tokio::task::JoinSet::new();
    for number in 0..4 {
        let body = serde_json::json!({
            "model": "tiny", "stream": true, "max_tokens": 8,
            "messages": [{"role": "user", "content": format!("Tell me of number {number}.")}],
        });
        streams.spawn(chat(mesh.caller.outbound(), body));
    }
    while let Some(answer) = streams.join_next().await {
        let answer = answer.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(
            answer.text().ends_with("data: [DONE]\n\n"),
            "{}",
            answer.text()
        );
    }
    mesh.models[0].signal("CONT");
    let metrics = mesh.caller.metrics().await;
    let retried = [("service", "default/chat"), ("cause", "timeout")];
    assert!(metrics.sum("outrigger_retries_total", &retried) >= 1.0);
    let complete = [("service", "default/chat"), ("outcome", "complete")];
    assert_eq!(
        metrics.sum("outrigger_model_requests_total", &complete),
        4.0
    );
}

#[tokio::test]
async fn prompts_that_came_before_go_where_they_were() {
    let python = match python::environment("llm") {
        Ok(python) => python,
        Err(reason) => return skip(&format!("no environment for the LLM server: {reason}")),
    };
    let policy = "  loadBalancing: {policy: prefix-affinity}\n  inference: {}";
    let mesh = Mesh::start_with(python, &services(policy)).await;
    // An odd number: who takes turns comes to the other server in the next round.
    let mut places: Vec<Vec<usize>> = vec![Vec::new(); 9];
    for _ in 0..3 {
        for (prompt, places) in places.iter_mut().enumerate() {
            let before = chats(&mesh.servers[0]).await;
            let body = serde_json::json!({
                "model": "tiny", "max_tokens": 4,
                "messages": [{"role": "user", "content": format!("Tell me of number {prompt}.")}],
            });
            let answer = chat(mesh.caller.outbound(), body).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            let rounds = places.len() as f64;
            eventually("both counted", Duration::from_secs(5), async || {
                let all = chats(&mesh.servers[0]).await + chats(&mesh.servers[1]).await;
                let wanted = rounds * 9.0 + prompt as f64 + 1.0;
                (all >= wanted)
                    .then_some(())
                    .ok_or(format!("{all} of {wanted}"))
            })
            .await;
            places.push(usize::from(chats(&mesh.servers[0]).await == before));
        }
    }
    // The first round is how the caller's sidecar learns what prompts have in common.
    let kept = places.iter().filter(|it| it[1] == it[2]).count();
    assert!(kept >= 8, "{places:?}");
    for server in [0, 1] {
        assert!(places.iter().any(|it| it[2] == server), "{places:?}");
    }
}
