//! Shapes of the API, and the events of a stream.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{CHAT, Server, chat, events, json_of, parsed};

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
