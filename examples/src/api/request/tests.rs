#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;

fn parse(kind: Kind, body: Value) -> Result<Job, ApiError> {
    Job::parse(kind, body.to_string().as_bytes(), &["tiny".into()], 1_024)
}

fn chat(extra: Value) -> Result<Job, ApiError> {
    let mut body = json!({"model": "tiny", "messages": [{"role": "user", "content": "Hello"}]});
    body.as_object_mut()
        .unwrap()
        .extend(extra.as_object().unwrap().clone());
    parse(Kind::Chat, body)
}

fn text_of(job: &Job) -> String {
    job.request
        .prompt
        .iter()
        .map(|token| tokens::text(*token).unwrap())
        .collect()
}

#[test]
fn the_template_is_a_prefix_of_the_next_turn() {
    let first = chat(json!({})).unwrap();
    assert_eq!(text_of(&first), "<|user|>\nHello\n<|assistant|>\n");
    let turns = json!([
        {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
        {"role": "assistant", "content": "The sea."},
        {"role": "user", "content": "And?"},
    ]);
    let second = parse(Kind::Chat, json!({"model": "tiny", "messages": turns})).unwrap();
    assert!(
        second.request.prompt.starts_with(&first.request.prompt),
        "{}",
        text_of(&second)
    );
}

#[test]
fn a_continued_message_ends_the_prompt() {
    let messages =
        json!([{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "The sea"}]);
    let body = |add| json!({"model": "tiny", "messages": messages, "continue_final_message": true, "add_generation_prompt": add});
    assert_eq!(
        text_of(&parse(Kind::Chat, body(false)).unwrap()),
        "<|user|>\nHello\n<|assistant|>\nThe sea"
    );
    assert!(parse(Kind::Chat, body(true)).is_err());
}

#[test]
fn limits_and_defaults() {
    let context_left = 1_024 - chat(json!({})).unwrap().request.prompt.len();
    assert_eq!(chat(json!({})).unwrap().request.max_tokens, context_left);
    assert_eq!(
        chat(json!({"max_tokens": 7})).unwrap().request.max_tokens,
        7
    );
    assert_eq!(
        chat(json!({"max_tokens": 7, "max_completion_tokens": 5}))
            .unwrap()
            .request
            .max_tokens,
        5
    );
    let completion = parse(Kind::Completion, json!({"model": "tiny", "prompt": "Once"})).unwrap();
    assert_eq!(
        (completion.request.max_tokens, completion.stream),
        (16, false)
    );
    let by_ids = json!({"model": "tiny", "prompt": tokens::tokenize("Once")});
    assert_eq!(
        parse(Kind::Completion, by_ids).unwrap().request.prompt,
        completion.request.prompt
    );
}

#[test]
fn what_is_wrong_is_refused_with_the_field_and_what_is_allowed() {
    let message = |extra| chat(extra).unwrap_err().body()["error"].clone();
    for (extra, param, part) in [
        (json!({"n": 2}), "n", "n is 2"),
        (json!({"max_tokens": 0}), "max_tokens", "at least 1"),
        (json!({"temperature": 3}), "temperature", "0 to 2"),
        (
            json!({"stop": ["a", "b", "c", "d", "e"]}),
            "stop",
            "4 are allowed",
        ),
        (json!({"stop": ""}), "stop", "empty"),
        (json!({"logprobs": true}), "logprobs", "none"),
        (json!({"messages": []}), "messages", "at least one"),
        (
            json!({"messages": [{"role": "pirate", "content": "x"}]}),
            "messages",
            "`pirate`",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
            "messages",
            "`image_url`",
        ),
        (json!({"model": "huge"}), "model", "`tiny`"),
        (json!({"min_tokens": 9, "max_tokens": 8}), "min_tokens", "8"),
    ] {
        let error = message(extra.clone());
        assert_eq!(error["param"], param, "{extra}");
        assert!(
            error["message"].as_str().unwrap().contains(part),
            "{extra}: {error}"
        );
        assert_eq!(error["type"], "invalid_request_error");
    }
    for body in [
        json!({"model": "tiny"}),
        json!({"model": "tiny", "prompt": ""}),
        json!({"model": "tiny", "prompt": [4_294_967_295u32]}),
        json!({"model": "tiny", "prompt": ["a", "b"]}),
    ] {
        assert!(parse(Kind::Completion, body.clone()).is_err(), "{body}");
    }
    let malformed = Job::parse(Kind::Chat, b"{", &[], 1).unwrap_err().body();
    assert!(
        malformed["error"]["message"]
            .as_str()
            .unwrap()
            .contains("line 1"),
        "{malformed}"
    );
}
