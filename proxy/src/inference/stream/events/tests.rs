use super::{Event, read, whole};
use crate::inference::api::Api;
use crate::inference::stream::{Finish, Seen, StreamOutcome, Usage};

fn chat(data: &str) -> (Event, Seen) {
    let mut seen = Seen::default();
    let event = read(Api::Chat, b"", data.as_bytes(), &mut seen);
    assert_eq!(seen.unreadable, 0, "{data}");
    (event, seen)
}

fn usage(input: u32, output: u32, cached: Option<u32>) -> Option<Usage> {
    Some(Usage {
        input: Some(input),
        output: Some(output),
        cached,
    })
}

#[test]
fn a_delta_is_a_token_where_it_has_text() {
    for (delta, tokens) in [
        (r#"{"role":"assistant"}"#, 0),
        (r#"{"role":"assistant","content":""}"#, 0),
        (r#"{"content":null}"#, 0),
        (r#"{"content":"a"}"#, 1),
        (r#"{"reasoning_content":"a"}"#, 1),
        (r#"{"content":null,"reasoning":"a"}"#, 1),
        (r#"{"tool_calls":[]}"#, 0),
        (r#"{"tool_calls":[{"index":0}]}"#, 1),
        (r#"{"refusal":"no"}"#, 1),
        ("{}", 0),
    ] {
        let (event, _) = chat(&format!(r#"{{"choices":[{{"index":0,"delta":{delta}}}]}}"#));
        assert_eq!(event.tokens, tokens, "{delta}");
    }
    // Two answers at a time; a completion; Triton's.
    let two = r#"{"choices":[{"delta":{"content":"a"}},{"delta":{"content":"b"}}]}"#;
    assert_eq!(chat(two).0.tokens, 2);
    assert_eq!(chat(r#"{"choices":[{"text":"a"}]}"#).0.tokens, 1);
    assert_eq!(chat(r#"{"text_output":"a"}"#).0.tokens, 1);
}

#[test]
fn the_end_of_a_chat() {
    let (event, seen) = chat(
        r#"{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7,"prompt_tokens_details":{"cached_tokens":3}}}"#,
    );
    assert!(event.is_usage_only);
    assert_eq!(seen.usage, usage(5, 7, Some(3)));
    let (event, seen) = chat(r#"{"usage":null,"choices":[{"delta":{},"finish_reason":"length"}]}"#);
    assert_eq!(
        (event.is_usage_only, event.null_usage),
        (false, Some((1, 13)))
    );
    assert_eq!(seen.finish, Some(Finish::Length));
    assert!(chat("[DONE]").1.done);
    assert!(chat(r#"{"error":{"message":"x"}}"#).1.error);
    assert!(!chat(r#"{"error":null,"choices":[]}"#).1.error);
}

#[test]
fn responses_have_named_events() {
    let mut seen = Seen::default();
    let mut feed = |name: &str, data: &str| {
        read(Api::Responses, name.as_bytes(), data.as_bytes(), &mut seen).tokens
    };
    assert_eq!(
        feed(
            "response.created",
            r#"{"response":{"usage":null,"error":null},"type":"response.created"}"#
        ),
        0
    );
    assert_eq!(feed("response.output_text.delta", r#"{"delta":"a"}"#), 1);
    assert_eq!(
        feed(
            "",
            r#"{"type":"response.reasoning_text.delta","delta":"a"}"#
        ),
        1
    );
    assert_eq!(feed("response.output_text.delta", r#"{"delta":""}"#), 0);
    assert_eq!(
        feed(
            "response.completed",
            r#"{"response":{"status":"completed","usage":{"input_tokens":4,"output_tokens":2,"input_tokens_details":{"cached_tokens":0}}}}"#
        ),
        0
    );
    assert_eq!((seen.tokens, seen.done, seen.error), (2, true, false));
    assert_eq!(seen.usage, usage(4, 2, Some(0)));
    read(Api::Responses, b"response.failed", b"{}", &mut seen);
    assert!(seen.error);
}

#[test]
fn messages_have_named_events() {
    let mut seen = Seen::default();
    for (name, data) in [
        (
            "message_start",
            r#"{"type":"message_start","message":{"usage":{"input_tokens":9,"output_tokens":1}}}"#,
        ),
        ("ping", r#"{"type":"ping"}"#),
        (
            "content_block_delta",
            r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":"a"}}"#,
        ),
        ("content_block_delta", r#"{"delta":{"thinking":"a"}}"#),
        (
            "message_delta",
            r#"{"delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":12}}"#,
        ),
        ("message_stop", r#"{"type":"message_stop"}"#),
    ] {
        read(Api::Messages, name.as_bytes(), data.as_bytes(), &mut seen);
    }
    assert_eq!(
        (seen.tokens, seen.done, seen.finish),
        (2, true, Some(Finish::Stop))
    );
    assert_eq!(seen.usage, usage(9, 12, None));
    assert_eq!(seen.outcome(Api::Messages), StreamOutcome::Complete);
    read(Api::Messages, b"error", br#"{"type":"error"}"#, &mut seen);
    assert_eq!(seen.outcome(Api::Messages), StreamOutcome::Error);
}

#[test]
fn an_answer_in_one_piece() {
    let mut seen = Seen::default();
    whole(br#"{"choices":[{"message":{"content":"a"},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":7}}"#, &mut seen);
    assert_eq!(
        (seen.usage, seen.finish),
        (usage(5, 7, None), Some(Finish::Stop))
    );
    let mut seen = Seen::default();
    whole(
        br#"{"data":[[0.1,-2e3]],"usage":{"prompt_tokens":5,"total_tokens":5}}"#,
        &mut seen,
    );
    assert_eq!(seen.usage.and_then(|usage| usage.input), Some(5));
    assert_eq!(seen.usage.and_then(|usage| usage.output), None);
}
