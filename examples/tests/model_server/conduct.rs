//! What a full server, a leaving client, a fault and a shutdown do.

use std::time::Duration;

use http::{Method, Response, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrigger_examples::engine::EngineConfig;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::support::{CHAT, Server, chat, events, json_of, request};

#[tokio::test]
async fn a_full_server_answers_429_with_retry_after() {
    let server = Server::start(EngineConfig {
        max_batch: 1,
        max_queue: 0,
        ..EngineConfig::default()
    })
    .await;
    let body = chat(json!({"stream": true, "ignore_eos": true}));
    let running = server.post(CHAT, body.clone()).await;
    assert_eq!(running.status(), StatusCode::OK);
    let refused = server.post(CHAT, body).await;
    assert_eq!(
        (refused.status(), &refused.headers()["retry-after"]),
        (StatusCode::TOO_MANY_REQUESTS, &"1".parse().unwrap())
    );
    assert_eq!(json_of(refused).await["error"]["type"], "rate_limit_error");
}

async fn leaves_and_is_gone(server: &Server, reply: Response<Incoming>) {
    let mut body = reply.into_body();
    body.frame().await.unwrap().unwrap();
    assert_eq!(server.metric("vllm:num_requests_running").await, 1.0);
    drop(body);
    for _ in 0..100 {
        if server.app.engine.load().running == 0 {
            let aborted = "vllm:request_success_total{engine=\"0\",finished_reason=\"abort\"";
            assert_eq!(server.metric(aborted).await, 1.0);
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the generation goes on without its client");
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_generation() {
    let server = Server::fast().await;
    let reply = server
        .post(CHAT, chat(json!({"stream": true, "ignore_eos": true})))
        .await;
    leaves_and_is_gone(&server, reply).await;
}

#[tokio::test]
async fn over_http2_a_reset_stream_cancels_only_its_own_generation() {
    let server = Server::fast().await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    let io = TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
        .await
        .unwrap();
    tokio::spawn(connection);
    let endless = chat(json!({"stream": true, "ignore_eos": true})).to_string();
    let reply = sender
        .send_request(request(Method::POST, CHAT, &[], &endless))
        .await
        .unwrap();
    assert_eq!(reply.version(), Version::HTTP_2);
    leaves_and_is_gone(&server, reply).await;
    let health = sender
        .send_request(request(Method::GET, "/health", &[], ""))
        .await
        .unwrap();
    assert_eq!(health.status(), StatusCode::OK);
}

#[tokio::test]
async fn faults_are_set_read_and_cleared_at_run_time() {
    let server = Server::fast().await;
    let set = server
        .post(
            "/faults",
            json!({"error_429_rate": 1.0, "retry_after_seconds": 7, "limit": 1}),
        )
        .await;
    assert_eq!(json_of(set).await["limit"], 1);
    let refused = server.post(CHAT, chat(json!({}))).await;
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["retry-after"]),
        (429, &"7".parse().unwrap())
    );
    assert_eq!(
        json_of(server.send(Method::GET, "/faults", &[], "").await).await["limit"],
        0
    );
    assert_eq!(
        server
            .post(CHAT, chat(json!({"max_tokens": 1})))
            .await
            .status(),
        StatusCode::OK
    );

    server.post("/faults", json!({"unready_ms": 60_000})).await;
    for path in ["/health", "/v1/models"] {
        assert_eq!(
            server.send(Method::GET, path, &[], "").await.status(),
            StatusCode::SERVICE_UNAVAILABLE
        );
    }
    server.send(Method::DELETE, "/faults", &[], "").await;
    assert_eq!(
        server.send(Method::GET, "/health", &[], "").await.status(),
        StatusCode::OK
    );
    assert_eq!(
        server.post("/faults", json!({"latency": 1})).await.status(),
        StatusCode::BAD_REQUEST
    );
}

async fn with_fault(server: &Server, fault: &str, stream: bool) -> Response<Incoming> {
    let body = chat(json!({"stream": stream, "ignore_eos": true, "max_tokens": 50})).to_string();
    server
        .send(Method::POST, CHAT, &[("x-fault", fault)], &body)
        .await
}

#[tokio::test]
async fn an_error_in_mid_stream_is_an_event_and_then_done() {
    let server = Server::fast().await;
    let events = events(with_fault(&server, "error_after_tokens=5", true).await).await;
    assert_eq!(events.len(), 1 + 5 + 2);
    let error: Value = serde_json::from_str(&events[6]).unwrap();
    assert_eq!(
        (&error["error"]["type"], events[7].as_str()),
        (&json!("server_error"), "[DONE]")
    );
    assert_eq!(
        with_fault(&server, "error_after_tokens=5", false)
            .await
            .status()
            .as_u16(),
        500
    );
    assert_eq!(
        with_fault(&server, "error_503_rate=1", true)
            .await
            .status()
            .as_u16(),
        503
    );
    assert_eq!(
        with_fault(&server, "nonsense=1", true)
            .await
            .status()
            .as_u16(),
        400
    );
}

#[tokio::test]
async fn death_in_mid_stream_closes_the_connection_without_an_end() {
    let server = Server::fast().await;
    let mut body = with_fault(&server, "die_after_tokens=5", true)
        .await
        .into_body();
    let mut text = Vec::new();
    let end = loop {
        match body.frame().await {
            Some(Ok(frame)) => text.extend_from_slice(frame.data_ref().unwrap()),
            other => break other,
        }
    };
    assert!(matches!(end, Some(Err(_))), "{end:?}");
    assert_eq!(
        String::from_utf8(text)
            .unwrap()
            .matches("\"content\":\"")
            .count(),
        1 + 5
    );
    assert_eq!(server.app.engine.load().running, 0);
}

#[tokio::test]
async fn a_stall_keeps_the_connection_open_and_silent() {
    let server = Server::fast().await;
    let mut body = with_fault(&server, "stall_after_tokens=3", true)
        .await
        .into_body();
    let mut frames = 0;
    while let Ok(frame) = tokio::time::timeout(Duration::from_millis(200), body.frame()).await {
        frame.unwrap().unwrap();
        frames += 1;
    }
    assert!((1..=4).contains(&frames), "{frames} frames");
    assert_eq!(server.app.engine.load().running, 1);
}

#[tokio::test]
async fn a_stopped_server_lets_a_stream_end() {
    let server = Server::fast().await;
    let reply = server
        .post(
            CHAT,
            chat(json!({"stream": true, "ignore_eos": true, "max_tokens": 100})),
        )
        .await;
    server.stop.cancel();
    assert_eq!(events(reply).await.last().unwrap(), "[DONE]");
    tokio::time::timeout(Duration::from_secs(2), server.task)
        .await
        .unwrap()
        .unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}
