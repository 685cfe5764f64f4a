#![allow(clippy::unwrap_used)]

use serde_json::Value;

use super::*;
use crate::admission::tokens::testing;
use crate::inference::api::Api;
use crate::inference::request::ModelRequest;
use crate::inference::stream::StreamOutcome;

/// All that a client gets of a stream whose budget has so many tokens, in pieces of `size`, and how it ended.
fn run(
    api: Api,
    stream: &str,
    tokens: u64,
    size: usize,
    change: impl FnOnce(&mut ModelRequest),
) -> (String, Option<Ended>, StreamOutcome) {
    let meter = Rc::new(testing::meter(tokens, true));
    let mut request = ModelRequest::new(api);
    change(&mut request);
    let mut metering = Metering::new(meter, &request);
    let mut observer = Observer::new(api);
    let mut out = Vec::new();
    for piece in stream.as_bytes().chunks(size) {
        let Metered { data, end } = metering.pass(Bytes::copy_from_slice(piece), &mut observer);
        out.extend_from_slice(&data);
        if end.is_some() {
            let out = String::from_utf8(out).unwrap();
            return (out, end, observer.seen.outcome(api));
        }
    }
    out.extend_from_slice(&metering.rest());
    let out = String::from_utf8(out).unwrap();
    (out, None, observer.seen.outcome(api))
}

fn chat(tokens: usize) -> String {
    let mut stream = String::new();
    for number in 0..tokens {
        stream.push_str(&format!(
            "data: {{\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"created\":7,\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"t{number}\"}},\"finish_reason\":null}}]}}\n\n"
        ));
    }
    stream.push_str("data: {\"id\":\"c1\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n");
    stream
}

/// The data of all events.
fn events(stream: &str) -> Vec<Value> {
    let lines = stream
        .lines()
        .filter_map(|line| line.strip_prefix("data: "));
    lines
        .map(|data| serde_json::from_str(data).unwrap_or(Value::from(data)))
        .collect()
}

#[test]
fn a_chat_ends_as_one_that_has_reached_its_length() {
    let stream = chat(20);
    for size in [1, 7, 64, stream.len()] {
        let (out, end, outcome) = run(Api::Chat, &stream, 5, size, |it| it.wants_usage = true);
        assert_eq!(end, Some(Ended::Whole));
        assert_eq!(outcome, StreamOutcome::Complete);
        let events = events(&out);
        // The five that are paid for, the one that found the budget empty, and the end.
        assert_eq!(events.len(), 6 + 3, "{out}");
        let last = &events[6];
        assert_eq!(last["choices"][0]["finish_reason"], "length");
        assert_eq!(
            (&last["id"], &last["created"], &last["model"]),
            (&"c1".into(), &7.into(), &"m".into())
        );
        assert_eq!(last["object"], "chat.completion.chunk");
        assert_eq!(events[7]["usage"]["completion_tokens"], 6);
        assert_eq!(events[7]["choices"], serde_json::json!([]));
        assert_eq!(events[8], "[DONE]");
    }
}

#[test]
fn a_stream_within_its_budget_is_passed_on_as_it_is() {
    let stream = chat(5);
    for size in [1, 10, stream.len()] {
        let (out, end, outcome) = run(Api::Chat, &stream, 5, size, |_| {});
        assert_eq!((out.as_str(), end), (stream.as_str(), None));
        assert_eq!(outcome, StreamOutcome::Complete);
    }
    // An end that is no whole event is passed on too.
    let cut = &stream[..stream.len() - 3];
    assert_eq!(run(Api::Chat, cut, 5, 9, |_| {}).0, cut);
}

#[test]
fn each_answer_of_several_ends() {
    let (out, _, _) = run(Api::Completions, &chat(9), 2, 50, |it| it.choices = 2);
    let events = events(&out);
    let last = &events[events.len() - 2];
    assert_eq!(last["choices"][0]["finish_reason"], "length");
    assert_eq!(last["choices"][1]["index"], 1);
    assert_eq!(last["choices"][1]["text"], "");
}

#[test]
fn an_answer_that_is_ready_does_not_keep_the_others_going() {
    let ready = "data: {\"id\":\"c1\",\"choices\":[{\"index\":1,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    let stream = format!("{ready}{}", chat(20));
    let (_, end, _) = run(Api::Chat, &stream, 5, 50, |it| it.choices = 2);
    assert_eq!(end, Some(Ended::Whole));
    let (out, end, _) = run(Api::Chat, &stream, 5, 50, |_| {});
    assert_eq!((out, end), (stream, None));
}

#[test]
fn messages_close_their_block_and_say_why() {
    let mut stream = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":3,\"output_tokens\":1}}}\n\nevent: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":1,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n".to_owned();
    for _ in 0..9 {
        stream.push_str("event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"text_delta\",\"text\":\"a\"}}\n\n");
    }
    let (out, end, outcome) = run(Api::Messages, &stream, 4, 33, |_| {});
    assert_eq!(
        (end, outcome),
        (Some(Ended::Whole), StreamOutcome::Complete)
    );
    let events = events(&out);
    let types: Vec<_> = events[events.len() - 4..]
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    assert_eq!(
        types,
        [
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop"
        ]
    );
    let stop = &events[events.len() - 3];
    assert_eq!(stop["index"], 1);
    let delta = &events[events.len() - 2];
    assert_eq!(delta["delta"]["stop_reason"], "max_tokens");
    assert_eq!(delta["usage"]["output_tokens"], 5);
}

#[test]
fn responses_are_incomplete() {
    let mut stream = "event: response.created\ndata: {\"type\":\"response.created\",\"sequence_number\":0,\"response\":{\"id\":\"r1\",\"object\":\"response\",\"status\":\"in_progress\",\"output\":[]}}\n\n".to_owned();
    for number in 1..9 {
        stream.push_str(&format!("event: response.output_text.delta\ndata: {{\"type\":\"response.output_text.delta\",\"sequence_number\":{number},\"delta\":\"a\"}}\n\n"));
    }
    let (out, end, outcome) = run(Api::Responses, &stream, 2, 20, |_| {});
    assert_eq!(
        (end, outcome),
        (Some(Ended::Whole), StreamOutcome::Complete)
    );
    let events = events(&out);
    let last = events.last().unwrap();
    assert_eq!(last["type"], "response.incomplete");
    assert_eq!(last["sequence_number"], 4);
    assert_eq!(last["response"]["id"], "r1");
    assert_eq!(last["response"]["status"], "incomplete");
    assert_eq!(
        last["response"]["incomplete_details"]["reason"],
        "max_output_tokens"
    );
    assert!(out.contains("event: response.incomplete\ndata: "));
}

#[test]
fn what_has_no_end_of_its_own_is_cut() {
    let stream = "data: {\"text_output\":\"a\"}\n\n".repeat(9);
    let (out, end, _) = run(Api::Kserve, &stream, 3, 10, |_| {});
    assert_eq!(end, Some(Ended::Broken));
    assert_eq!(events(&out).len(), 4);
}
