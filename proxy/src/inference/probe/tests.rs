#![allow(clippy::unwrap_used)]
use bytes::Bytes;
use proptest::prelude::*;

use super::{Duplicate, fuzz, read};
use crate::inference::api::Api;
use crate::inference::request::{ModelRequest, Unread};

fn probe(api: Api, body: &str) -> ModelRequest {
    let mut request = ModelRequest::new(api);
    read(&mut request, &Bytes::copy_from_slice(body.as_bytes())).unwrap();
    request
}

#[test]
fn a_chat() {
    let request = probe(
        Api::Chat,
        r#"{"model":"org/tiny","messages":[{"role":"system","content":"You are kind."},
            {"role":"user","content":[{"type":"text","text":"Hi there"},{"type":"image_url","image_url":{"url":"data:xxxxxxxxxx"}}]}],
            "stream":true,"max_tokens":17,"n":2,"user":"alice","stream_options":{"include_usage":true}}"#,
    );
    assert_eq!(request.name(), Some("org/tiny"));
    assert_eq!((request.stream, request.wants_usage), (true, true));
    assert_eq!((request.max_tokens, request.choices), (Some(17), 2));
    assert_eq!(request.tenant.as_deref(), Some("alice"));
    // 21 bytes of text, two messages, one picture.
    assert_eq!(request.prompt_tokens, Some(6 + 8 + 765));
    assert_eq!(request.unread, None);
}

#[test]
fn the_other_interfaces() {
    let completion = probe(Api::Completions, r#"{"model":"m","prompt":[1,2,3,4]}"#);
    assert_eq!(completion.prompt_tokens, Some(4));
    assert!(!completion.stream);

    let responses = probe(
        Api::Responses,
        r#"{"model":"m","instructions":"abcd","input":"12345678","max_output_tokens":5,"safety_identifier":"s"}"#,
    );
    assert_eq!(
        (responses.prompt_tokens, responses.max_tokens),
        (Some(3), Some(5))
    );
    assert_eq!(responses.tenant.as_deref(), Some("s"));

    let messages = probe(
        Api::Messages,
        r#"{"model":"m","max_tokens":9,"system":[{"type":"text","text":"abcd"}],"messages":[{"role":"user","content":"abcd"}],"metadata":{"user_id":"u"},"stream":true}"#,
    );
    assert_eq!(
        (messages.prompt_tokens, messages.max_tokens),
        (Some(6), Some(9))
    );
    assert_eq!(messages.tenant.as_deref(), Some("u"));
    assert!(messages.stream);

    let embeddings = probe(
        Api::Embeddings,
        r#"{"input":["abcd","efgh"],"model":"e","stream":true}"#,
    );
    assert_eq!(embeddings.prompt_tokens, Some(2));
    assert!(!embeddings.stream, "there is no such stream");

    // max_completion_tokens took max_tokens' place.
    let both = probe(Api::Chat, r#"{"max_tokens":1,"max_completion_tokens":2}"#);
    assert_eq!((both.max_tokens, both.name()), (Some(2), None));
}

#[test]
fn what_is_of_another_type_is_not_guessed() {
    let request = probe(
        Api::Chat,
        r#"{"model":7,"stream":"yes","max_tokens":-1,"n":null,"user":{}}"#,
    );
    assert_eq!(request.name(), None);
    assert_eq!(
        (request.stream, request.max_tokens, request.choices),
        (false, None, 1)
    );
    assert_eq!((request.tenant, request.unread), (None, None));
}

#[test]
fn what_is_no_json_is_not_read() {
    for body in [
        "",
        "model=x",
        "[1]",
        "{\"model\":\"m\"",
        "{\"model\":\"m\"}}",
        "\u{feff}{}",
    ] {
        let request = probe(Api::Chat, body);
        assert_eq!(request.unread, Some(Unread::Malformed), "{body:?}");
        assert_eq!(request.name(), None);
    }
    let deep = format!("{{\"x\":{}", "[".repeat(1000));
    assert_eq!(probe(Api::Chat, &deep).unread, Some(Unread::TooDeep));
}

#[test]
fn a_member_that_stands_twice_is_refused() {
    for (body, key) in [
        (r#"{"model":"a","model":"b"}"#, "model"),
        (r#"{"model":"a","mod\u0065l":"b"}"#, "model"),
        // Readers that ignore case take the last one.
        (r#"{"model":"a","Model":"b"}"#, "model"),
        (r#"{"stream":true,"x":1,"stream":false}"#, "stream"),
        (
            r#"{"stream_options":{"include_usage":true,"include_usage":false}}"#,
            "include_usage",
        ),
        // Also before what is broken.
        (r#"{"model":"a","model":"b""#, "model"),
    ] {
        let mut request = ModelRequest::new(Api::Chat);
        let found = read(&mut request, &Bytes::copy_from_slice(body.as_bytes()));
        assert_eq!(found, Err(Duplicate(key)), "{body}");
    }
    // Of others we know nothing.
    assert_eq!(
        probe(Api::Chat, r#"{"x":1,"x":2,"model":"m"}"#).name(),
        Some("m")
    );
    assert_eq!(probe(Api::Chat, r#"{"Model":"m"}"#).name(), None);
}

#[test]
fn prompts_that_begin_alike_have_prefixes_in_common() {
    let text = "x".repeat(600);
    let body = |last: &str| {
        format!(
            r#"{{"temperature":0.1,"messages":[{{"role":"system","content":"{text}"}},{{"role":"user","content":"{last}"}}],"model":"m"}}"#
        )
    };
    let hashes = |body: &str| probe(Api::Chat, body).prefixes(64).collect::<Vec<_>>();
    let (one, other) = (
        hashes(&body(&"one question ".repeat(9))),
        hashes(&body(&"two questions ".repeat(9))),
    );
    assert!(one.len() >= 9);
    assert_eq!(one[..9], other[..9]);
    assert_ne!(one[10..], other[10..]);
}

proptest! {
    #[test]
    fn never_panics_and_edits_do_what_they_say(
        model in "[a-z\"\\\\é]{0,4}",
        stream in any::<bool>(),
        options in prop_oneof![Just(None), Just(Some("null")), Just(Some("{}")), Just(Some("{\"include_usage\": false }")), Just(Some("{\"x\":[1]}"))],
        cut in any::<prop::sample::Index>(),
    ) {
        let mut members = vec![
            format!("\"model\": {}", serde_json::Value::from(model)),
            format!("\"stream\":{stream}"),
            "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]".to_owned(),
        ];
        members.extend(options.map(|options| format!("\"stream_options\":{options}")));
        let body = format!(" {{ {} }}", members.join(", "));
        fuzz(body.as_bytes());
        fuzz(&body.as_bytes()[..cut.index(body.len())]);
    }
}

#[test]
fn a_conversation_keeps_the_prefixes_of_its_prompt() {
    let prompt = |body: &str| probe(Api::Chat, body).prompt().unwrap();
    let first = r#"{"model":"m","messages":[{"role":"system","content":"be brief"},{"role":"user","content":"hi"}]}"#;
    let later = r#"{"model":"m","stream":true,"messages":[ {"role":"system","content":"be brief"},{"role":"user","content":"hi"},
        {"role":"assistant","content":"hello"}, {"role":"user","content":"and?"}]}"#;
    let (first, later) = (prompt(first), prompt(later));
    // The model, the system prompt, the question.
    assert_eq!(first.marks().len(), 3);
    assert_eq!(first.marks(), &later.marks()[..3]);
    assert!(later.tokens() > first.tokens());
    let other = r#"{"model":"n","messages":[{"role":"system","content":"be brief"}]}"#;
    assert_ne!(prompt(other).marks()[0], first.marks()[0]);
    let ids = prompt(r#"{"model":"m","prompt":[1,2,3]}"#);
    assert_eq!((ids.tokens(), ids.marks().len()), (3, 2));
    assert!(probe(Api::Chat, r#"{"model":"m"}"#).prompt().is_none());
}
