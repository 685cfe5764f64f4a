//! Requests for models, through a caller's sidecar and a server's.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::client::{Http1, post};
use super::mesh::{Calls, Pair, Sidecar, application, plain, retry, sockets, text};
use crate::policy::{Inference, Model, ModelMatch, TokenStreams};

pub(super) const CHAT: &str = "/v1/chat/completions";
pub(super) const ROLE: &str =
    "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}],\"usage\":null}\n\n";
pub(super) const TOKEN: &str =
    "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":null}\n\n";
pub(super) const STOP: &str =
    "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":null}\n\n";
const USAGE: &str =
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":2}}\n\n";
pub(super) const ERROR: &str = "data: {\"error\":{\"message\":\"out of memory\"}}\n\n";
pub(super) const DONE: &str = "data: [DONE]\n\n";
const BODY: &str =
    r#"{ "messages":[{"role":"user","content":"h\u0069"}], "model": "small", "stream": true }"#;

fn calls(inference: Inference) -> Calls {
    Calls {
        inference: Some(inference),
        ..Calls::default()
    }
}

fn listed() -> Inference {
    Inference {
        max_body_bytes: 1 << 20,
        models: vec![Model {
            name: "tiny".into(),
            aliases: vec![ModelMatch::pattern("small")],
            served_as: Some("org/tiny-8b".into()),
            subset: Default::default(),
        }],
        refuse_unknown: true,
        answer_model_list: true,
        ..Inference::default()
    }
}

fn unlisted() -> Inference {
    Inference {
        max_body_bytes: 1 << 20,
        ..Inference::default()
    }
}

/// A server that answers with these events, a pause before each; `None` ends the connection there.
pub(super) async fn server(
    events: &'static [Option<&'static str>],
    pause: Duration,
) -> (SocketAddr, Requests) {
    let requests = Requests::default();
    let seen = requests.clone();
    let address = sockets(move |mut stream| {
        let seen = seen.clone();
        async move {
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            // All that comes in one go: the requests of these tests are small.
            while !request.ends_with(b"}") {
                match stream.read(&mut buffer).await {
                    Ok(0) | Err(_) => return,
                    Ok(count) => request.extend_from_slice(&buffer[..count]),
                }
            }
            seen.0.lock().unwrap().push(String::from_utf8(request).unwrap());
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
            stream.write_all(head.as_bytes()).await.unwrap();
            for event in events {
                tokio::time::sleep(pause).await;
                let Some(event) = event else {
                    return;
                };
                let chunk = format!("{:x}\r\n{event}\r\n", event.len());
                if stream.write_all(chunk.as_bytes()).await.is_err() {
                    return;
                }
            }
            let _ = stream.write_all(b"0\r\n\r\n").await;
            let _ = stream.read(&mut buffer).await;
        }
    })
    .await;
    (address, requests)
}

#[derive(Clone, Default)]
pub(super) struct Requests(Arc<Mutex<Vec<String>>>);

impl Requests {
    /// Heads and bodies.
    pub(super) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

async fn outcome(sidecar: &Sidecar, direction: &str, model: &str, outcome: &str) {
    let (direction, model) = (
        format!("direction=\"{direction}\""),
        format!("gen_ai_request_model=\"{model}\""),
    );
    let outcome = format!("outcome=\"{outcome}\"");
    sidecar
        .expect_metric(&[
            "outrigger_model_requests_total",
            &direction,
            &model,
            &outcome,
            "} 1",
        ])
        .await;
}

#[tokio::test]
async fn a_stream_is_passed_on_as_it_is_and_counted_on_both_sides() {
    let events = &[
        Some(ROLE),
        Some(TOKEN),
        Some(TOKEN),
        Some(STOP),
        Some(USAGE),
        Some(DONE),
    ];
    let (app, requests) = server(events, Duration::ZERO).await;
    let pair = Pair::new(calls(listed()), app);
    let answer = post(pair.address(), CHAT, BODY).await;
    assert_eq!(answer.head.status, 200);
    assert_eq!(
        answer.body,
        [ROLE, TOKEN, TOKEN, STOP, USAGE, DONE].concat()
    );

    // The alias became what the server calls it, and nothing else changed.
    let sent = requests.0.lock().unwrap()[0].clone();
    let body = BODY.replace("\"small\"", "\"org/tiny-8b\"");
    assert!(sent.ends_with(&format!("\r\n\r\n{body}")), "{sent}");
    assert!(
        sent.contains(&format!("content-length: {}\r\n", body.len())),
        "{sent}"
    );

    for (sidecar, direction, model) in [
        (&pair.caller, "outbound", "small"),
        (&pair.server, "inbound", "org/tiny-8b"),
    ] {
        outcome(sidecar, direction, model, "complete").await;
        let tokens = |kind: &str, count: u32| {
            (
                format!("gen_ai_token_type=\"{kind}\""),
                format!("}} {count}"),
            )
        };
        for (kind, count) in [tokens("input", 11), tokens("output", 2)] {
            sidecar
                .expect_metric(&["outrigger_model_tokens_total", &kind, &count])
                .await;
        }
        sidecar
            .expect_metric(&[
                "gen_ai_server_time_to_first_token_seconds_count",
                model,
                "} 1",
            ])
            .await;
        let line = &sidecar.log_lines(1).await[0];
        let expected = json!([model, "complete", 11, 2, "stop"]);
        let found = [
            "model",
            "outcome",
            "input_tokens",
            "output_tokens",
            "finish",
        ]
        .map(|field| line[field].clone());
        assert_eq!(Value::from(found.to_vec()), expected);
        assert!(line["first_token_ms"].is_number());
    }
    let caller = "peer=\"spiffe://outrigger.local/ns/default/sa/caller\"";
    pair.server
        .expect_metric(&["outrigger_model_tokens_total", caller])
        .await;
}

#[tokio::test]
async fn what_a_stream_says_of_itself_counts() {
    for (events, name, reason) in [
        (
            &[Some(ROLE), Some(TOKEN)][..],
            "truncated",
            "upstream-truncated",
        ),
        (
            &[Some(ROLE), Some(TOKEN), Some(ERROR), Some(DONE)],
            "error",
            "model-error",
        ),
        (&[Some(ROLE)], "empty", "model-error"),
        (
            &[Some(ROLE), Some(TOKEN), None],
            "truncated",
            "upstream-truncated",
        ),
    ] {
        let (app, _) = server(events, Duration::ZERO).await;
        let caller = plain(calls(unlisted()), &[app]);
        let mut client = Http1::connect(caller.outbound()).await;
        let length = BODY.len();
        client
            .write(&format!(
                "POST {CHAT} HTTP/1.1\r\nhost: chat\r\ncontent-length: {length}\r\n\r\n{BODY}"
            ))
            .await;
        let head = client.head().await;
        assert_eq!(head.status, 200);
        // What came in one piece has a length.
        if head.get("content-length").is_some() {
            client.rest(head).await;
        } else {
            while let Some(Some(_)) = client.try_chunk().await {}
        }
        drop(client);
        // The name was given by nobody but a client whose request failed.
        outcome(&caller, "outbound", "other", name).await;
        let reason = format!("reason=\"{reason}\"");
        caller
            .expect_metric(&["outrigger_requests_total", &reason, "} 1"])
            .await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_at_the_last_event_has_it_all() {
    let (app, _) = server(
        &[Some(ROLE), Some(TOKEN), Some(DONE), None],
        Duration::from_millis(50),
    )
    .await;
    let caller = plain(calls(unlisted()), &[app]);
    let mut client = Http1::connect(caller.outbound()).await;
    let length = BODY.len();
    let request =
        format!("POST {CHAT} HTTP/1.1\r\nhost: chat\r\ncontent-length: {length}\r\n\r\n{BODY}");
    client.write(&request).await;
    client.head().await;
    while client.chunk().await.unwrap() != DONE.as_bytes() {}
    drop(client);
    outcome(&caller, "outbound", "small", "complete").await;

    let mut client = Http1::connect(caller.outbound()).await;
    client.write(&request).await;
    client.head().await;
    client.chunk().await;
    drop(client);
    outcome(&caller, "outbound", "small", "client-gone").await;
}

#[tokio::test]
async fn an_error_in_the_place_of_the_first_token_is_tried_elsewhere() {
    let (bad, tried) = server(&[Some(ROLE), Some(ERROR), Some(DONE)], Duration::ZERO).await;
    let (good, _) = server(
        &[Some(ROLE), Some(TOKEN), Some(STOP), Some(DONE)],
        Duration::ZERO,
    )
    .await;
    let mut calls = calls(unlisted());
    calls.retry = Some(crate::policy::Retry {
        methods: vec![Method::POST],
        on_reset: true,
        ..retry(1)
    });
    let caller = plain(calls.clone(), &[bad, good]);
    for _ in 0..2 {
        let answer = post(caller.outbound(), CHAT, BODY).await;
        assert_eq!(answer.body, [ROLE, TOKEN, STOP, DONE].concat());
    }
    // Whoever of the two comes first in the round.
    let count = format!("}} {}", tried.count());
    caller
        .expect_metric(&["outrigger_retries_total", "cause=\"reset\"", &count])
        .await;

    // Where there is nobody else, the client gets what the server said.
    let alone = plain(calls, &[bad]);
    let answer = post(alone.outbound(), CHAT, BODY).await;
    assert_eq!(
        (answer.head.status, answer.body),
        (200, [ROLE, ERROR, DONE].concat())
    );
}

#[tokio::test]
async fn a_first_token_that_does_not_come_is_waited_for_elsewhere() {
    let (slow, tried) = server(&[Some(ROLE), Some(TOKEN)], Duration::from_secs(60)).await;
    let (good, _) = server(
        &[Some(ROLE), Some(TOKEN), Some(STOP), Some(DONE)],
        Duration::ZERO,
    )
    .await;
    let mut inference = unlisted();
    inference.streams.first_token = Some(Duration::from_millis(200));
    let mut calls = calls(inference);
    calls.retry = Some(crate::policy::Retry {
        methods: vec![Method::POST],
        on_timeout: true,
        ..retry(1)
    });
    let caller = plain(calls.clone(), &[slow, good]);
    for _ in 0..2 {
        let answer = post(caller.outbound(), CHAT, BODY).await;
        assert_eq!(answer.body, [ROLE, TOKEN, STOP, DONE].concat());
    }
    assert!(tried.count() > 0);

    calls.retry = None;
    let alone = plain(calls, &[slow]);
    let answer = post(alone.outbound(), CHAT, BODY).await;
    assert_eq!(
        (answer.head.status, answer.head.reason()),
        (504, "first-token-timeout")
    );
    outcome(&alone, "outbound", "other", "stalled").await;
}

#[tokio::test]
async fn a_stream_that_stalls_is_cut_and_comments_keep_it_open_until_then() {
    let (app, _) = server(&[Some(ROLE), None], Duration::from_millis(700)).await;
    let mut inference = unlisted();
    inference.streams = TokenStreams {
        keep_alive: Some(Duration::from_millis(100)),
        first_token: Some(Duration::from_secs(60)),
        ..TokenStreams::default()
    };
    let caller = plain(calls(inference), &[app]);
    let mut client = Http1::connect(caller.outbound()).await;
    let length = BODY.len();
    let request =
        format!("POST {CHAT} HTTP/1.1\r\nhost: chat\r\ncontent-length: {length}\r\n\r\n{BODY}");
    client.write(&request).await;
    assert_eq!(client.head().await.status, 200);
    assert_eq!(client.chunk().await.unwrap(), b": keep-alive\n\n");
    let mut events = Vec::new();
    while let Some(Some(chunk)) = client.try_chunk().await {
        events.extend(chunk);
    }
    let events = String::from_utf8(events).unwrap();
    assert_eq!(events.replace(": keep-alive\n\n", ""), ROLE);
    assert!(events.ends_with(": keep-alive\n\n"), "{events}");

    let (app, _) = server(&[Some(TOKEN), Some(TOKEN)], Duration::from_secs(1)).await;
    let mut inference = unlisted();
    inference.streams.token_idle = Some(Duration::from_millis(200));
    let caller = plain(calls(inference), &[app]);
    let mut client = Http1::connect(caller.outbound()).await;
    client.write(&request).await;
    client.head().await;
    assert_eq!(client.chunk().await.unwrap(), TOKEN.as_bytes());
    assert_eq!(client.try_chunk().await, None, "cut");
    caller
        .expect_metric(&["outrigger_requests_total", "token-idle-timeout", "} 1"])
        .await;
}

#[tokio::test]
async fn usage_is_asked_for_and_kept_from_who_did_not_ask() {
    let events = &[Some(ROLE), Some(TOKEN), Some(STOP), Some(USAGE), Some(DONE)];
    let (app, requests) = server(events, Duration::ZERO).await;
    let mut inference = unlisted();
    inference.streams.request_usage = true;
    let caller = plain(calls(inference), &[app]);
    let answer = post(caller.outbound(), CHAT, BODY).await;
    let shown = [ROLE, TOKEN, STOP, DONE]
        .concat()
        .replace(",\"usage\":null", "");
    assert_eq!(answer.body, shown);
    assert!(
        requests.0.lock().unwrap()[0]
            .contains("{\"stream_options\":{\"include_usage\":true}, \"messages\"")
    );
    caller
        .expect_metric(&["outrigger_model_tokens_total", "\"input\"", "} 11"])
        .await;

    let asks = BODY.replace(
        "true }",
        "true, \"stream_options\":{\"include_usage\":true}}",
    );
    let answer = post(caller.outbound(), CHAT, &asks).await;
    assert_eq!(answer.body, [ROLE, TOKEN, STOP, USAGE, DONE].concat());
}

#[tokio::test]
async fn what_is_not_served_or_not_clear_is_refused() {
    let app = application(|_| async {
        text("{\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}}")
    })
    .await;
    let pair = Pair::new(calls(listed()), app);
    let unknown = post(pair.address(), CHAT, "{\"model\":\"huge\"}").await;
    assert_eq!(
        (unknown.head.status, unknown.head.reason()),
        (404, "unknown-model")
    );
    let body: Value = serde_json::from_str(&unknown.body).unwrap();
    assert_eq!(
        body["error"]["message"],
        "default/chat does not serve the model \"huge\""
    );

    let twice = post(
        pair.address(),
        "/v1/messages",
        "{\"model\":\"tiny\",\"model\":\"x\"}",
    )
    .await;
    assert_eq!(
        (twice.head.status, twice.head.reason()),
        (400, "bad-request")
    );
    let body: Value = serde_json::from_str(&twice.body).unwrap();
    assert_eq!(body["error"]["type"], "invalid_request_error");
    pair.caller
        .expect_metric(&["outrigger_model_requests_read_total", "ambiguous", "} 1"])
        .await;

    // What could not be read is none that is known.
    let unread = post(pair.address(), CHAT, "model=tiny").await;
    assert_eq!(
        (unread.head.status, unread.head.reason()),
        (404, "unknown-model")
    );
    pair.caller
        .expect_metric(&["outrigger_model_requests_read_total", "malformed", "} 1"])
        .await;
    assert_eq!(
        post(pair.address(), "/elsewhere", "model=tiny")
            .await
            .head
            .status,
        200
    );
}

#[tokio::test]
async fn the_list_of_models_is_the_sidecars() {
    let caller = plain(calls(listed()), &["127.0.0.1:9".parse().unwrap()]);
    let list = super::client::get(caller.outbound(), "/v1/models").await;
    let body: Value = serde_json::from_str(&list.body).unwrap();
    let expected = json!({ "object": "list", "data": [
        { "id": "tiny", "object": "model", "created": 0, "owned_by": "default/chat" }
    ] });
    assert_eq!((list.head.status, body), (200, expected));
}

#[tokio::test]
async fn a_long_body_goes_through_unread() {
    let app = application(|request| async move {
        use http_body_util::BodyExt;
        let body = request.into_body().collect().await.unwrap().to_bytes();
        text(&body.len().to_string())
    })
    .await;
    let mut inference = unlisted();
    inference.max_body_bytes = 1000;
    let pair = Pair::new(calls(inference), app);
    let body = format!("{{\"model\":\"m\",\"prompt\":\"{}\"}}", "x".repeat(200_000));
    assert_eq!(
        post(pair.address(), CHAT, &body).await.body,
        body.len().to_string()
    );
    // Without a length, all the same.
    let chunk = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let mut client = Http1::connect(pair.address()).await;
    let answer = client
        .request(&format!(
            "POST {CHAT} HTTP/1.1\r\nhost: chat\r\ntransfer-encoding: chunked\r\n\r\n{chunk}"
        ))
        .await;
    assert_eq!(answer.body, body.len().to_string());
    pair.server
        .expect_metric(&["outrigger_model_requests_read_total", "too-large", "} 2"])
        .await;
}
