//! Callers are kept apart in the model server's cache.

use std::sync::Arc;

use http_body_util::BodyExt;

use super::client::{Whole, get, once, post};
use super::mesh::{Calls, Pair, Sidecar, any, application, endpoint, serving, text, tls};
use crate::policy::{Inference, IsolatedBy, Isolation, Protocol, Snapshot};
use crate::runtime::Bindings;

const CHAT_PATH: &str = "/v1/chat/completions";

/// Answers with the length that it was told, and the body.
async fn echo() -> std::net::SocketAddr {
    application(|request| async move {
        let length = request.headers().get("content-length").cloned();
        let length = length.map(|value| value.to_str().unwrap().to_owned());
        let body = request.into_body().collect().await.unwrap().to_bytes();
        if let Some(length) = length {
            assert_eq!(length, body.len().to_string());
        }
        text(&String::from_utf8_lossy(&body))
    })
    .await
}

fn isolating(app: std::net::SocketAddr, protocol: Protocol, isolation: Isolation) -> Snapshot {
    let mut snapshot = serving(app, protocol);
    for port in snapshot.inbound.values_mut() {
        Arc::get_mut(port).unwrap().inference = Some(Arc::new(Inference {
            max_body_bytes: 1000,
            isolation: Some(isolation),
            ..Inference::default()
        }));
    }
    snapshot
}

const BY_IDENTITY: Isolation = Isolation {
    by: IsolatedBy::Identity,
    pass_unsalted: false,
};

async fn pair(protocol: Protocol, isolation: Isolation) -> Pair {
    let app = echo().await;
    let pair = Pair::new(
        Calls {
            protocol,
            ..Calls::default()
        },
        app,
    );
    pair.server.set(isolating(app, protocol, isolation));
    pair
}

/// Another caller of the pair's server.
fn another(pair: &Pair, id: &str) -> Sidecar {
    let bindings = Bindings {
        outbound: Some(any()),
        ..Bindings::default()
    };
    let caller = Sidecar::start(Some(tls(&pair.ca, id)), bindings);
    let endpoints = vec![endpoint(pair.server.inbound(), true)];
    caller.set(Calls::default().snapshot(&caller.shared.metrics, endpoints));
    caller
}

fn salt(answer: &Whole) -> String {
    assert_eq!(answer.head.status, 200, "{answer:?}");
    let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    body["cache_salt"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn each_caller_has_its_own_salt() {
    for protocol in [Protocol::Http, Protocol::Http2] {
        let pair = pair(protocol, BY_IDENTITY).await;
        let neighbour = another(&pair, "spiffe://outrigger.local/ns/default/sa/neighbour");
        let body = r#"{"model":"m", "messages":[]}"#;
        let answer = post(pair.address(), CHAT_PATH, body).await;
        let one = salt(&answer);
        let rest = &body[1..];
        assert_eq!(answer.body, format!("{{\"cache_salt\":\"{one}\",{rest}"));
        assert!(!one.contains("caller"));
        // The same for all its requests, and of another API.
        assert_eq!(
            salt(&post(pair.address(), "/v1/completions", body).await),
            one
        );
        let two = salt(&post(neighbour.outbound(), CHAT_PATH, body).await);
        assert_ne!(one, two);
        // The neighbour would like to read the caller's cache.
        let forged = format!(r#"{{"model":"m","cache_salt":"{one}"}}"#);
        let got = salt(&post(neighbour.outbound(), CHAT_PATH, &forged).await);
        assert!(got != one && got != two, "{got}");
        // Without a length.
        let chunked = format!(
            "POST {CHAT_PATH} HTTP/1.1\r\nhost: chat\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n"
        );
        assert_eq!(salt(&once(pair.address(), &chunked).await), one);
        for (result, count) in [("set", "} 4"), ("replaced", "} 1")] {
            let result = format!("result=\"{result}\"");
            pair.server
                .expect_metric(&["outrigger_cache_salts_total", &result, count])
                .await;
        }
        let lines = pair.server.log_lines(5).await;
        let words: Vec<_> = lines.iter().map(|line| &line["cache_salt"]).collect();
        assert_eq!(words, ["set", "set", "set", "replaced", "set"]);
    }
}

#[tokio::test]
async fn a_namespace_shares_one() {
    let isolation = Isolation {
        by: IsolatedBy::Namespace,
        ..BY_IDENTITY
    };
    let pair = pair(Protocol::Http, isolation).await;
    let neighbour = another(&pair, "spiffe://outrigger.local/ns/default/sa/neighbour");
    let stranger = another(&pair, "spiffe://outrigger.local/ns/other/sa/caller");
    let one = salt(&post(pair.address(), CHAT_PATH, "{}").await);
    assert_eq!(
        salt(&post(neighbour.outbound(), CHAT_PATH, "{}").await),
        one
    );
    assert_ne!(salt(&post(stranger.outbound(), CHAT_PATH, "{}").await), one);
}

fn with(path: &str, header: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nhost: chat\r\n{header}content-length: {length}\r\n\r\n{body}")
}

#[tokio::test]
async fn what_cannot_be_given_one_is_refused_or_passed() {
    let long = format!("{{\"prompt\":\"{}\"}}", "x".repeat(1000));
    let requests = [
        with(CHAT_PATH, "", &long),
        with(CHAT_PATH, "content-encoding: gzip\r\n", "\u{1f}compressed"),
        with(CHAT_PATH, "", "no JSON"),
        with(CHAT_PATH, "", "[]"),
        with("/v1/messages", "", "{}"),
        with("/v2/models/m/infer", "", "{}"),
        // Servers decode it, and find the path of an API.
        with("/%761/chat/completion%73", "", "{}"),
        with("/invocations", "", r#"{"cache_salt":"forged"}"#),
    ];
    let refusing = pair(Protocol::Http, BY_IDENTITY).await;
    for (count, request) in requests.iter().enumerate() {
        let answer = once(refusing.address(), request).await;
        assert_eq!(answer.head.status, 400, "{request}");
        assert_eq!(answer.head.reason(), "not-isolated", "{request}");
        if request.contains("/v1/chat") {
            let error: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
            assert_eq!(error["error"]["code"], "not-isolated");
            assert_eq!(error["error"]["type"], "invalid_request_error");
        }
        let count = format!("}} {}", count + 1);
        refusing
            .server
            .expect_metric(&["outrigger_cache_salts_total", "refused", &count])
            .await;
    }
    // There is nothing in them.
    assert_eq!(get(refusing.address(), "/health").await.head.status, 200);
    let empty = with("/v1/load", "", "");
    assert_eq!(once(refusing.address(), &empty).await.head.status, 200);
    // Two salts, or one that servers may or may not read, never pass.
    let passing = Isolation {
        pass_unsalted: true,
        ..BY_IDENTITY
    };
    let passing = pair(Protocol::Http, passing).await;
    for request in &requests {
        let answer = once(passing.address(), request).await;
        assert_eq!(answer.head.status, 200, "{request}");
        let (_, body) = request.split_once("\r\n\r\n").unwrap();
        assert_eq!(answer.body, body);
    }
    passing
        .server
        .expect_metric(&["outrigger_cache_salts_total", "passed", "} 8"])
        .await;
    for pair in [&refusing, &passing] {
        let answer = post(pair.address(), CHAT_PATH, r#"{"Cache_Salt":"a"}"#).await;
        assert_eq!(answer.head.reason(), "not-isolated");
        let twice = r#"{"cache_salt":"a","cache_salt":"b"}"#;
        let answer = post(pair.address(), CHAT_PATH, twice).await;
        assert_eq!(answer.head.reason(), "bad-request");
    }
}

#[tokio::test]
async fn nothing_goes_around_it() {
    let pair = pair(Protocol::Http, BY_IDENTITY).await;
    // An upgrade is a way around it.
    let upgrade = "GET /v1/realtime HTTP/1.1\r\nhost: chat\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    let answer = once(pair.address(), upgrade).await;
    assert_eq!(answer.head.reason(), "not-isolated", "{answer:?}");
    // So are bytes.
    let mut tunnel = super::client::Http1::connect(pair.address()).await;
    tunnel
        .write("CONNECT chat:80 HTTP/1.1\r\nhost: chat:80\r\n\r\n")
        .await;
    let _ = tunnel.head().await;
    tunnel
        .write("POST /v1/chat/completions HTTP/1.1\r\nhost: chat\r\ncontent-length: 2\r\n\r\n{}")
        .await;
    assert!(tunnel.is_closed().await);
    // Who has no identity has a salt all the same.
    let app = echo().await;
    let mut snapshot = isolating(app, Protocol::Http, BY_IDENTITY);
    snapshot.mesh.permissive = true;
    pair.server.set(snapshot);
    let one = salt(&post(pair.address(), CHAT_PATH, "{}").await);
    let nobody = salt(&post(pair.server.inbound(), CHAT_PATH, "{}").await);
    assert_ne!(one, nobody);
}
