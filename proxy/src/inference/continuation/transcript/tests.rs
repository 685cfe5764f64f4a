#![allow(clippy::unwrap_used)]
use bytes::Bytes;
use proptest::prelude::*;

use super::super::{Allowed, Events};
use super::{Next, Step, Transcript};
use crate::inference::api::Api;
use crate::policy::ContinuationMode::{self, *};
use crate::telemetry::metrics::{ContinuationResult, ContinuedBy};

const BODY: &str = r#"{"messages":[{"role":"user","content":"q"}],"max_tokens":9,"stream":true}"#;
const DONE: &str = "data: [DONE]\n\n";

fn transcript(mode: ContinuationMode, max_bytes: usize, wants_usage: bool) -> Transcript {
    let allowed = Allowed {
        client_ids: None,
        has_text: true,
    };
    Transcript::new(Api::Chat, allowed, (mode, max_bytes), Some(9), wants_usage)
}

fn chunk(delta: &str, more: &str) -> String {
    format!(
        "data: {{\"id\":\"one\",\"created\":1,\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{delta}{more}}}],\"usage\":null}}\n\n"
    )
}

fn text(text: &str) -> String {
    chunk(&format!("{{\"content\":\"{text}\"}}"), "")
}

/// A chunk of the server that goes on.
fn other(delta: &str, more: &str) -> String {
    chunk(delta, more)
        .replace("\"one\"", "\"two\"")
        .replace("\"created\":1", "\"created\":2")
}

fn feed(transcript: &mut Transcript, stream: &str) -> (String, Vec<Step>) {
    let (mut out, mut steps) = (Vec::new(), Vec::new());
    let mut events = Events::default();
    events.push(stream.as_bytes());
    while let Some(event) = events.next() {
        steps.push(transcript.event(event, &mut out));
    }
    (String::from_utf8(out).unwrap(), steps)
}

fn ask(transcript: &mut Transcript) -> (Api, String) {
    let mut out = Vec::new();
    let Next::Ask(by) = transcript.broke(&mut out) else {
        panic!("{transcript:?}");
    };
    let (api, body) = transcript
        .ask(by, &Bytes::from_static(BODY.as_bytes()))
        .unwrap();
    (api, String::from_utf8(body.to_vec()).unwrap())
}

fn refused(mut transcript: Transcript, stream: &str) -> ContinuationResult {
    let passed = feed(&mut transcript, stream).0;
    assert_eq!(passed, stream, "passed on as it is");
    match transcript.broke(&mut Vec::new()) {
        Next::Refuse(why) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn two_parts_are_one_stream() {
    let mut whole = transcript(Auto, 4096, true);
    let begin = [
        chunk("{\"role\":\"assistant\",\"content\":\"\"}", ""),
        text("a"),
        text("\\u00e9\\n"),
    ]
    .concat();
    assert_eq!(feed(&mut whole, &begin).0, begin);
    let (api, body) = ask(&mut whole);
    assert_eq!(api, Api::Chat);
    assert!(
        body.contains(r#"{"role":"assistant","content":"aé\n"}"#),
        "{body}"
    );
    assert!(body.contains("\"max_tokens\":7"), "{body}");
    let rest = [
        other("{\"role\":\"assistant\",\"content\":\"\"}", ""),
        ": ping\n\n".into(),
        other("{\"content\":\"b\"}", ""),
        other("{}", ",\"finish_reason\":\"stop\""),
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":1,\"total_tokens\":13}}\n\n".into(),
        DONE.into(),
    ];
    let (out, steps) = feed(&mut whole, &rest.concat());
    assert!(steps.iter().all(|step| *step == Step::Go));
    let head = "data: {\"id\":\"one\",\"object\":null,\"created\":1,\"model\":\"m\",\"choices\":[";
    let choice = |delta: &str, finish: &str| {
        format!(
            "{head}{{\"index\":0,\"delta\":{delta},\"logprobs\":null,\"finish_reason\":{finish}}}],\"usage\":null}}\n\n"
        )
    };
    assert_eq!(
        out,
        [
            ": ping\n\n".to_owned(),
            choice("{\"content\":\"b\"}", "null"),
            choice("{}", "\"stop\""),
            format!("{head}],\"usage\":{{\"prompt_tokens\":10,\"completion_tokens\":3,\"total_tokens\":13}}}}\n\n"),
            DONE.to_owned(),
        ]
        .concat()
    );
    assert!(whole.is_done());
}

#[test]
fn token_ids_are_kept_and_taken_out() {
    let mut whole = transcript(Tokens, 4096, false);
    let first = "data: {\"prompt_token_ids\":[7,8],\"id\":\"one\",\"choices\":[{\"token_ids\":null,\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
    let ids = |text: &str, ids: &str| {
        format!(
            "data: {{\"id\":\"one\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}},\"token_ids\":[{ids}]}}]}}\n\n"
        )
    };
    // The token 3 has no text yet: it is made again.
    let stream = [first.to_owned(), ids("a", "1, 2"), ids("", "3")].concat();
    let (out, _) = feed(&mut whole, &stream);
    assert!(!out.contains("token_ids"), "{out}");
    assert!(
        out.starts_with("data: {\"id\":\"one\",\"choices\":[{\"index\":0,\"delta\":{\"role\""),
        "{out}"
    );
    let (api, body) = ask(&mut whole);
    assert_eq!(api, Api::Completions);
    assert!(body.contains("\"prompt\":[7,8,1,2]"), "{body}");
    assert!(body.contains("\"max_tokens\":7"), "{body}");
    // The other interface's text becomes a delta.
    let rest = "data: {\"id\":\"x\",\"choices\":[{\"index\":0,\"text\":\"b\",\"token_ids\":[4],\"prompt_token_ids\":[7,8,1,2]}]}\n\n";
    let (out, _) = feed(&mut whole, rest);
    assert!(
        out.contains("\"delta\":{\"content\":\"b\"}") && !out.contains("token_ids"),
        "{out}"
    );
    // And it can break again.
    let (_, body) = ask(&mut whole);
    assert!(body.contains("\"prompt\":[7,8,1,2,4]"), "{body}");
    assert!(body.contains("\"max_tokens\":6"), "{body}");
}

#[test]
fn what_is_all_here_gets_its_end() {
    let mut whole = transcript(Text, 4096, false);
    feed(&mut whole, &text("a").repeat(9));
    let mut out = Vec::new();
    assert_eq!(whole.broke(&mut out), Next::Complete);
    let out = String::from_utf8(out).unwrap();
    assert!(
        out.contains("\"finish_reason\":\"length\"") && out.ends_with(DONE),
        "{out}"
    );

    // The usage has to be asked for.
    let mut whole = transcript(Text, 4096, true);
    let finish = chunk("{}", ",\"finish_reason\":\"stop\"");
    feed(&mut whole, &[text("a"), finish.clone()].concat());
    let (_, body) = ask(&mut whole);
    assert!(body.contains("\"max_tokens\":1"), "{body}");
    let usage =
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":6,\"completion_tokens\":1}}\n\n";
    let (out, _) = feed(&mut whole, &[&text("x"), &finish, usage, DONE].concat());
    assert!(!out.contains("content") && !out.contains("stop"), "{out}");
    assert!(
        out.contains("{\"prompt_tokens\":5,\"completion_tokens\":1,\"total_tokens\":6}"),
        "{out}"
    );
}

#[test]
fn servers_that_give_up_are_not_heard() {
    for event in [
        "data: {\"error\":{\"message\":\"x\"}}\n\n".to_owned(),
        "error: {\"message\":\"x\"}\n\n".to_owned(),
        chunk("{\"content\":\"x\"}", ",\"finish_reason\":\"abort\""),
        chunk("{}", ",\"finish_reason\":\"error\""),
    ] {
        let mut whole = transcript(Auto, 4096, false);
        let (out, steps) = feed(&mut whole, &[text("a"), event.clone()].concat());
        assert_eq!(out, text("a"));
        assert_eq!(steps, [Step::Go, Step::Broken], "{event}");
        assert_eq!(whole.broke(&mut Vec::new()), Next::Ask(ContinuedBy::Text));
    }
}

#[test]
fn another_model_is_not_mixed_in() {
    for (before, after) in [
        ("\"model\":\"m\"", "\"model\":\"n\""),
        ("\"created\"", "\"system_fingerprint\":\"b\",\"created\""),
    ] {
        let mut whole = transcript(Auto, 4096, false);
        feed(
            &mut whole,
            &text("a").replace("\"created\"", "\"system_fingerprint\":\"a\",\"created\""),
        );
        ask(&mut whole);
        let (out, steps) = feed(&mut whole, &text("b").replace(before, after));
        assert_eq!((out.as_str(), steps), ("", vec![Step::OtherModel]));
    }
}

#[test]
fn what_is_seen_in_a_stream_can_forbid_it() {
    use ContinuationResult::*;
    let more = |delta: &str| [text("a"), chunk(delta, "")].concat();
    for (stream, why) in [
        (more("{\"reasoning_content\":\"hm\"}"), Reasoning),
        (more("{\"reasoning\":\"hm\"}"), Reasoning),
        (more("{\"tool_calls\":[{\"index\":0}]}"), Tools),
        (more("{\"refusal\":\"no\"}"), NoText),
        (more("{\"content\":[{\"type\":\"image\"}]}"), NoText),
        (more("{\"content\":\"\\ud800\"}"), NoText),
        ([text("a"), "data: {\n\n".into()].concat(), NoText),
        (
            chunk("{}", "").replace("\"index\":0", "\"index\":1"),
            Choices,
        ),
        (chunk("{}", ",\"logprobs\":{\"content\":[]}"), Logprobs),
    ] {
        assert_eq!(
            refused(transcript(Text, 4096, false), &stream),
            why,
            "{stream}"
        );
    }
    let harmless =
        "{\"content\":\"b\",\"reasoning_content\":null,\"tool_calls\":[],\"refusal\":null}";
    let mut whole = transcript(Text, 4096, false);
    feed(&mut whole, &more(harmless));
    assert_eq!(whole.broke(&mut Vec::new()), Next::Ask(ContinuedBy::Text));
    assert_eq!(
        refused(transcript(Tokens, 4096, false), &text("a")),
        NoTokenIds
    );
}

#[test]
fn what_is_kept_has_an_end() {
    let long = text(&"a".repeat(100));
    assert_eq!(
        refused(transcript(Text, 99, false), &long),
        ContinuationResult::TooLong
    );
    // The text alone fits.
    let ids = "data: {\"id\":\"one\",\"prompt_token_ids\":[1,2,3,4,5,6,7,8],\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"token_ids\":[1]}]}\n\n";
    let mut whole = transcript(Auto, 32, false);
    feed(&mut whole, ids);
    assert_eq!(whole.broke(&mut Vec::new()), Next::Ask(ContinuedBy::Text));
    let mut whole = transcript(Tokens, 32, false);
    feed(&mut whole, ids);
    assert_eq!(
        whole.broke(&mut Vec::new()),
        Next::Refuse(ContinuationResult::TooLong)
    );
}

#[test]
fn nothing_was_here_and_all_comes_from_the_other() {
    let mut whole = transcript(Auto, 4096, false);
    let role = chunk("{\"role\":\"assistant\",\"content\":\"\"}", "");
    feed(&mut whole, &role);
    let (_, body) = ask(&mut whole);
    assert!(body.starts_with("{\"return_token_ids\":true,\"messages\":[{\"role\":\"user\",\"content\":\"q\"}],\"max_tokens\":9"), "{body}");
    let (out, _) = feed(
        &mut whole,
        &[
            other("{\"role\":\"assistant\",\"content\":\"\"}", ""),
            other("{\"content\":\"b\"}", ""),
        ]
        .concat(),
    );
    assert_eq!(out.matches("data:").count(), 1, "{out}");
    assert!(
        out.contains("\"id\":\"one\"") && !out.contains("role"),
        "{out}"
    );
}

fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just(text("a")),
        Just(text("\\u00e9\\\"")),
        Just(chunk("{\"role\":\"assistant\"}", "")),
        Just(chunk("{\"content\":\"b\"}", ",\"token_ids\":[1,2]")),
        Just(chunk("{}", ",\"finish_reason\":\"stop\"")),
        Just(chunk("{}", ",\"finish_reason\":\"abort\"")),
        Just("data: {\"prompt_token_ids\":[1],\"choices\":[]}\n\n".to_owned()),
        Just(
            "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":2}}\n\n"
                .to_owned()
        ),
        Just("data: {\"a\":\ndata: 1}\r\n\r\n".to_owned()),
        Just(": comment\n\n".to_owned()),
        Just(DONE.to_owned()),
        "[ -~\n]{0,12}",
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn however_it_is_cut_it_is_the_same(setting: u8, cut: u8, stream in pieces()) {
        let bytes = [&[setting, cut], stream.as_bytes()].concat();
        super::super::fuzz(&bytes);
    }

    #[test]
    fn anything_can_come(bytes: Vec<u8>) {
        super::super::fuzz(&bytes);
    }

    #[test]
    fn bodies_that_are_made_can_be_read(prompt in "(\"prompt\":\"p\"|\"messages\":\\[\\{\"content\":\"\"\\}\\])", more in "(,\"(n|seed|stop|max_completion_tokens|min_tokens|return_token_ids|add_generation_prompt)\":(1|null|true|\\[\\]|\"a\")){0,4}") {
        let body = format!("{{\"model\":\"m\",\"stream\":true,\"max_tokens\":9,{prompt}{more}}}");
        super::super::fuzz(body.as_bytes());
    }
}
