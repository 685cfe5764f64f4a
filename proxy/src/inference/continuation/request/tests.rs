#![allow(clippy::unwrap_used)]
use bytes::Bytes;
use serde_json::{Value, json};

use super::{Rest, rest};
use crate::inference::api::Api;

const CHAT: &str = r#"{ "model":"m", "messages":[{"role":"user","content":"h\u0069"}], "max_completion_tokens":10,
 "min_tokens":8, "logprobs":false, "temperature":0.50, "stream":true }"#;

fn made(api: Api, body: &str, next: &Rest<'_>, most: Option<u32>, generated: u32) -> Value {
    let body = Bytes::copy_from_slice(body.as_bytes());
    let made = rest(api, &body, next, most, generated, false).unwrap();
    serde_json::from_slice(&made).unwrap()
}

#[test]
fn by_text_the_assistant_has_begun() {
    let next = Rest::Text("so \"far\n");
    let body = Bytes::from_static(CHAT.as_bytes());
    let text = rest(Api::Chat, &body, &next, Some(10), 4, false).unwrap();
    let text = std::str::from_utf8(&text).unwrap();
    // Everything else stays as the client wrote it.
    assert_eq!(
        text,
        r#"{ "add_generation_prompt":false,"continue_final_message":true,"model":"m", "messages":[{"role":"user","content":"h\u0069"},{"role":"assistant","content":"so \"far\n"}], "max_completion_tokens":6,
 "min_tokens":4, "logprobs":false, "temperature":0.50, "stream":true }"#
    );
    let begun = r#"{"messages":[{"content":"a","role":"assistant"}],"continue_final_message":true,"add_generation_prompt":false}"#;
    let made = made(Api::Chat, begun, &next, None, 4);
    assert_eq!(
        made["messages"],
        json!([{"role": "assistant", "content": "aso \"far\n"}])
    );
    assert_eq!(made.get("max_tokens"), None);
}

#[test]
fn by_token_ids_it_is_a_prompt() {
    let next = Rest::Tokens {
        prompt: &[1, 2],
        generated: &[3],
    };
    let chat = made(Api::Chat, CHAT, &next, Some(10), 1);
    assert_eq!(
        chat,
        json!({
            "model": "m", "prompt": [1, 2, 3], "max_completion_tokens": null, "max_tokens": 9, "min_tokens": 7, "logprobs": null,
            "temperature": 0.5, "stream": true, "echo": false, "add_special_tokens": false, "return_token_ids": true,
        })
    );
    // A chat without a limit has none afterwards, where completions would have 16.
    let unlimited = made(Api::Chat, r#"{"messages":[{}]}"#, &next, None, 1);
    assert_eq!(unlimited.get("max_tokens"), Some(&Value::Null));
    let completion = r#"{"prompt":"a","max_tokens":4,"return_token_ids":false}"#;
    let completion = made(Api::Completions, completion, &next, Some(4), 1);
    assert_eq!(
        completion,
        json!({"prompt": [1, 2, 3], "max_tokens": 3, "return_token_ids": true, "echo": false, "add_special_tokens": false})
    );
}

#[test]
fn completions_by_text_have_a_longer_prompt() {
    let body = r#"{"prompt":"a\n","max_tokens":4}"#;
    let made = made(Api::Completions, body, &Rest::Text("\"b"), Some(4), 3);
    assert_eq!(made, json!({"prompt": "a\n\"b", "max_tokens": 1}));
    let ids = Bytes::from_static(b"{\"prompt\":[1],\"max_tokens\":4}");
    assert_eq!(
        rest(Api::Completions, &ids, &Rest::Text("b"), Some(4), 1, false),
        None
    );
}

#[test]
fn without_a_token_it_is_asked_again() {
    let body = r#"{"prompt":"a","max_tokens":4}"#;
    let again = made(
        Api::Completions,
        body,
        &Rest::Again { ids: true },
        Some(4),
        0,
    );
    assert_eq!(
        again,
        json!({"prompt": "a", "max_tokens": 4, "return_token_ids": true})
    );
    let again = made(
        Api::Completions,
        body,
        &Rest::Again { ids: false },
        Some(4),
        0,
    );
    assert_eq!(again, json!({"prompt": "a", "max_tokens": 4}));
}
