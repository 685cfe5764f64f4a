//! The model server over real sockets: shapes of the API, events of a stream, faults, and what a client's leaving does.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrigger_examples::api::App;
use outrigger_examples::engine::{Engine, EngineConfig};
use outrigger_examples::faults::{FaultBoard, Faults};
use outrigger_examples::metrics::Metrics;
use outrigger_examples::server::serve;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const CHAT: &str = "/v1/chat/completions";

struct Server {
    address: SocketAddr,
    app: Arc<App>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(config: EngineConfig) -> Self {
        let metrics = Arc::new(Metrics::new("tiny", &config));
        let app = Arc::new(App {
            name: HeaderValue::from_static("replica-1"),
            models: vec!["tiny".into(), "alias".into()],
            max_model_len: config.max_model_len,
            max_body_bytes: 64 << 10,
            allow_header_faults: true,
            engine: Engine::start(config, Arc::clone(&metrics)),
            metrics,
            faults: FaultBoard::new(Faults::default()),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve(
            listener,
            Arc::clone(&app),
            stop.clone(),
            Duration::from_secs(5),
        ));
        Self {
            address,
            app,
            stop,
            task,
        }
    }

    async fn fast() -> Self {
        Self::start(EngineConfig {
            decode_base: Duration::from_millis(1),
            decode_per_sequence: Duration::ZERO,
            max_model_len: 1_024,
            ..EngineConfig::default()
        })
        .await
    }

    /// One request on a connection of its own, with headers `name: value`.
    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Response<Incoming> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        sender
            .send_request(request(method, path, headers, body))
            .await
            .unwrap()
    }

    async fn post(&self, path: &str, body: Value) -> Response<Incoming> {
        self.send(Method::POST, path, &[], &body.to_string()).await
    }

    async fn metric(&self, series: &str) -> f64 {
        let reply = self.send(Method::GET, "/metrics", &[], "").await;
        let text = String::from_utf8(reply.into_body().collect().await.unwrap().to_bytes().into())
            .unwrap();
        let line = text.lines().find(|line| line.starts_with(series));
        line.unwrap_or_else(|| panic!("no {series} in\n{text}"))
            .rsplit(' ')
            .next()
            .unwrap()
            .parse()
            .unwrap()
    }
}

fn request(
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Request<Full<Bytes>> {
    let mut request = Request::builder()
        .method(method)
        .uri(format!("http://model{path}"))
        .header("host", "model");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request
        .body(Full::new(Bytes::from(body.to_owned())))
        .unwrap()
}

fn chat(extra: Value) -> Value {
    let mut body =
        json!({"model": "tiny", "messages": [{"role": "user", "content": "Tell me of the sea"}]});
    body.as_object_mut()
        .unwrap()
        .extend(extra.as_object().unwrap().clone());
    body
}

async fn json_of(reply: Response<Incoming>) -> Value {
    serde_json::from_slice(&reply.into_body().collect().await.unwrap().to_bytes()).unwrap()
}

/// The `data:` of every event, checked to be framed as they must be.
async fn events(reply: Response<Incoming>) -> Vec<String> {
    assert_eq!(reply.status(), StatusCode::OK);
    assert_eq!(
        reply.headers()["content-type"],
        "text/event-stream; charset=utf-8"
    );
    let text =
        String::from_utf8(reply.into_body().collect().await.unwrap().to_bytes().into()).unwrap();
    assert!(text.ends_with("\n\n"), "{text:?}");
    text.trim_end()
        .split("\n\n")
        .map(|event| event.strip_prefix("data: ").unwrap().to_owned())
        .collect()
}

fn parsed(events: &[String]) -> Vec<Value> {
    events
        .iter()
        .filter(|event| *event != "[DONE]")
        .map(|event| serde_json::from_str(event).unwrap())
        .collect()
}

#[tokio::test]
async fn models_health_and_unknown_paths() {
    let server = Server::fast().await;
    let health = server.send(Method::GET, "/health", &[], "").await;
    assert_eq!(
        (health.status(), &health.headers()["x-model-server"]),
        (StatusCode::OK, &"replica-1".parse().unwrap())
    );
    let models = json_of(server.send(Method::GET, "/v1/models", &[], "").await).await;
    assert_eq!(models["object"], "list");
    assert_eq!(
        (&models["data"][1]["id"], &models["data"][1]["object"]),
        (&json!("alias"), &json!("model"))
    );
    assert_eq!(
        json_of(server.send(Method::GET, "/v1/models/tiny", &[], "").await).await["max_model_len"],
        1_024
    );

    assert_eq!(
        server
            .send(Method::GET, "/v1/models/huge", &[], "")
            .await
            .status(),
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        server.send(Method::GET, "/v2", &[], "").await.status(),
        StatusCode::NOT_FOUND
    );
    let wrong = server.send(Method::GET, CHAT, &[], "").await;
    assert_eq!(
        (wrong.status(), &wrong.headers()["allow"]),
        (StatusCode::METHOD_NOT_ALLOWED, &"POST".parse().unwrap())
    );
}

#[tokio::test]
async fn a_chat_completion_has_all_its_fields() {
    let server = Server::fast().await;
    let body = chat(json!({"max_tokens": 12, "ignore_eos": true}));
    let reply = server
        .send(
            Method::POST,
            CHAT,
            &[("x-request-id", "abc-1")],
            &body.to_string(),
        )
        .await;
    assert_eq!(reply.status(), StatusCode::OK);
    let answer = json_of(reply).await;
    assert_eq!(answer["id"], "chatcmpl-abc-1");
    assert_eq!(
        (&answer["object"], &answer["model"]),
        (&json!("chat.completion"), &json!("tiny"))
    );
    assert_eq!(answer["choices"].as_array().unwrap().len(), 1);
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["choices"][0]["message"]["role"], "assistant");
    let usage = &answer["usage"];
    assert_eq!(usage["completion_tokens"], 12);
    assert_eq!(
        usage["total_tokens"].as_u64().unwrap(),
        usage["prompt_tokens"].as_u64().unwrap() + 12
    );
    let again = json_of(server.post(CHAT, body).await).await;
    assert_eq!(
        again["choices"][0]["message"],
        answer["choices"][0]["message"]
    );
    assert_eq!(again["usage"]["prompt_tokens_details"]["cached_tokens"], 16);
}

#[tokio::test]
async fn a_stream_has_role_content_finish_usage_and_done_in_this_order() {
    let server = Server::fast().await;
    let wanted = json!({"stream": true, "stream_options": {"include_usage": true}, "max_tokens": 9, "ignore_eos": true});
    let events = events(server.post(CHAT, chat(wanted)).await).await;
    assert_eq!(events.last().unwrap(), "[DONE]");
    let chunks = parsed(&events);
    assert_eq!(chunks.len(), 1 + 9 + 1 + 1);
    assert_eq!(
        chunks[0]["choices"][0]["delta"],
        json!({"role": "assistant", "content": ""})
    );
    let mut text = String::new();
    for chunk in &chunks[1..10] {
        assert_eq!(chunk["choices"][0]["finish_reason"], Value::Null);
        text.push_str(chunk["choices"][0]["delta"]["content"].as_str().unwrap());
    }
    assert_eq!(
        (
            &chunks[10]["choices"][0]["delta"],
            &chunks[10]["choices"][0]["finish_reason"]
        ),
        (&json!({}), &json!("length"))
    );
    assert_eq!(
        (
            &chunks[11]["choices"],
            &chunks[11]["usage"]["completion_tokens"]
        ),
        (&json!([]), &json!(9))
    );
    for chunk in &chunks {
        assert_eq!(
            (&chunk["object"], &chunk["id"]),
            (&json!("chat.completion.chunk"), &chunks[0]["id"])
        );
        assert!(chunk.as_object().unwrap().contains_key("usage"));
    }
    let whole = json_of(
        server
            .post(CHAT, chat(json!({"max_tokens": 9, "ignore_eos": true})))
            .await,
    )
    .await;
    assert_eq!(whole["choices"][0]["message"]["content"], text);
}

#[tokio::test]
async fn without_being_asked_for_there_is_no_usage_in_a_stream() {
    let server = Server::fast().await;
    let events = events(
        server
            .post(
                "/v1/completions",
                json!({"model": "tiny", "prompt": "Once", "stream": true}),
            )
            .await,
    )
    .await;
    let chunks = parsed(&events);
    assert!(
        chunks
            .iter()
            .all(|chunk| chunk.get("usage").is_none() && chunk["object"] == "text_completion")
    );
    assert!(chunks[0]["choices"][0]["text"].is_string());
}

#[tokio::test]
async fn a_stop_string_ends_the_answer_and_is_not_in_it() {
    let server = Server::fast().await;
    let body = json!({"model": "tiny", "prompt": "Once", "max_tokens": 200, "ignore_eos": true, "stop": [". "]});
    let answer = json_of(server.post("/v1/completions", body).await).await;
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    let text = answer["choices"][0]["text"].as_str().unwrap();
    assert!(!text.is_empty() && !text.contains(". "), "{text:?}");
    assert_eq!(
        server
            .metric("vllm:request_success_total{engine=\"0\",finished_reason=\"stop\"")
            .await,
        1.0
    );
}

#[tokio::test]
async fn a_broken_answer_can_be_continued_token_by_token() {
    let server = Server::fast().await;
    let body =
        json!({"stream": true, "return_token_ids": true, "max_tokens": 20, "ignore_eos": true});
    let chunks = parsed(&events(server.post(CHAT, chat(body)).await).await);
    let ids = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let generated: Vec<Value> = chunks
        .iter()
        .flat_map(|chunk| ids(&chunk["choices"][0]["token_ids"]))
        .collect();
    assert_eq!(generated.len(), 20);
    let mut prompt = ids(&chunks[0]["prompt_token_ids"]);
    prompt.extend_from_slice(&generated[..8]);
    let body = json!({"model": "tiny", "prompt": prompt, "max_tokens": 12, "ignore_eos": true, "return_token_ids": true});
    let rest = json_of(server.post("/v1/completions", body).await).await;
    assert_eq!(ids(&rest["choices"][0]["token_ids"]), generated[8..]);
}

#[tokio::test]
async fn embeddings_come_as_numbers_and_as_base64() {
    let server = Server::fast().await;
    let body = |format| json!({"model": "tiny", "input": ["the sea", "the sky"], "dimensions": 8, "encoding_format": format});
    let floats = json_of(server.post("/v1/embeddings", body("float")).await).await;
    assert_eq!(
        (&floats["object"], floats["data"].as_array().unwrap().len()),
        (&json!("list"), 2)
    );
    assert_eq!(floats["data"][1]["embedding"].as_array().unwrap().len(), 8);
    assert_eq!(floats["data"][1]["index"], 1);
    let coded = json_of(server.post("/v1/embeddings", body("base64")).await).await;
    // 8 × 4 bytes.
    assert_eq!(coded["data"][0]["embedding"].as_str().unwrap().len(), 44);
    assert_eq!(floats["usage"], coded["usage"]);
    assert_eq!(
        server
            .post("/v1/embeddings", json!({"model": "tiny", "input": []}))
            .await
            .status(),
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn bad_requests_get_openai_errors() {
    let server = Server::fast().await;
    let large = "x".repeat(65 << 10);
    for (body, status, code) in [
        ("{".to_owned(), 400, Value::Null),
        (chat(json!({"n": 3})).to_string(), 400, Value::Null),
        (
            chat(json!({"model": "huge"})).to_string(),
            404,
            json!("model_not_found"),
        ),
        (
            chat(json!({"max_tokens": 5_000})).to_string(),
            400,
            json!("context_length_exceeded"),
        ),
        (large, 413, Value::Null),
    ] {
        let reply = server.send(Method::POST, CHAT, &[], &body).await;
        assert_eq!(reply.status().as_u16(), status, "{:.60}", body);
        let error = json_of(reply).await["error"].clone();
        assert_eq!(
            (&error["code"], &error["type"]),
            (&code, &json!("invalid_request_error"))
        );
        assert!(error["message"].as_str().unwrap().ends_with('.'), "{error}");
    }
}

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
