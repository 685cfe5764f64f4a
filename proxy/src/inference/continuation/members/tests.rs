#![allow(clippy::unwrap_used)]
use bytes::Bytes;

use super::super::Allowed;
use crate::inference::ModelRequest;
use crate::inference::api::Api;
use crate::inference::probe;
use crate::telemetry::metrics::ContinuationResult::{self, *};

fn of(api: Api, body: &str) -> Result<Allowed, ContinuationResult> {
    let mut request = ModelRequest::new(api);
    probe::read(&mut request, &Bytes::copy_from_slice(body.as_bytes())).unwrap();
    request.continuable().unwrap()
}

/// A chat with one more member.
fn chat(more: &str) -> Result<Allowed, ContinuationResult> {
    let body =
        format!("{{\"stream\":true,\"messages\":[{{\"role\":\"user\",\"content\":\"a\"}}]{more}}}");
    of(Api::Chat, &body)
}

fn completion(more: &str) -> Result<Allowed, ContinuationResult> {
    of(
        Api::Completions,
        &format!("{{\"stream\":true,\"max_tokens\":9{more}}}"),
    )
}

#[test]
fn a_plain_chat_can_be_continued() {
    let plain = Allowed {
        client_ids: None,
        has_text: true,
    };
    for more in [
        "",
        ",\"n\":1,\"best_of\":null,\"use_beam_search\":false",
        ",\"tools\":[ ],\"functions\":null,\"stop\":[],\"echo\":false,\"suffix\":\"\"",
        ",\"response_format\":{\"type\":\"text\"},\"guided_json\":null",
        ",\"logprobs\":false,\"top_logprobs\":0",
        ",\"seed\":7,\"temperature\":0.0",
        ",\"seed\":7,\"top_k\":1",
        ",\"seed\":null,\"temperature\":1",
        ",\"modalities\":[\"text\"],\"stop_token_ids\":[3]",
    ] {
        assert_eq!(chat(more), Ok(plain), "{more}");
    }
    let asked = chat(",\"return_token_ids\":true").unwrap();
    assert_eq!(asked.client_ids, Some(true));
    let refused = chat(",\"return_token_ids\":false").unwrap();
    assert_eq!(refused.client_ids, Some(false));
}

#[test]
fn what_cannot_be_continued_is_said() {
    for (more, why) in [
        (",\"n\":2", Choices),
        (",\"best_of\":4", Choices),
        (",\"use_beam_search\":true", Choices),
        (",\"logprobs\":true", Logprobs),
        (",\"top_logprobs\":3", Logprobs),
        (",\"prompt_logprobs\":0", Logprobs),
        (",\"tools\":[{}]", Tools),
        (",\"functions\":[{}]", Tools),
        (
            ",\"response_format\":{\"type\":\"json_object\"}",
            StructuredOutput,
        ),
        (",\"guided_choice\":[\"a\"]", StructuredOutput),
        (
            ",\"structured_outputs\":{\"regex\":\"a\"}",
            StructuredOutput,
        ),
        (",\"grammar\":\"root\"", StructuredOutput),
        (",\"seed\":7", Seed),
        (",\"seed\":7,\"temperature\":0.1", Seed),
        (",\"stop\":\"a\"", Stop),
        (",\"stop\":[\"a\"]", Stop),
        (",\"echo\":true", Echo),
        (",\"audio\":{\"voice\":\"a\"}", NoText),
        (",\"modalities\":[\"text\",\"audio\"]", NoText),
        // Twice, in whatever case or escapes: which of the two counts differs.
        (",\"seed\":null,\"Seed\":1", Unread),
        (",\"prompt\":\"a\"", Unread),
        (",\"Stop\":\"a\"", Unread),
        (",\"stop\":null,\"st\\u006fp\":1", Unread),
    ] {
        assert_eq!(chat(more), Err(why), "{more}");
    }
    assert_eq!(
        of(Api::Chat, "{\"stream\":true,\"messages\":[]}"),
        Err(Unread)
    );
    assert_eq!(of(Api::Chat, "{\"stream\":true}"), Err(Unread));
}

#[test]
fn prompts_of_completions() {
    assert_eq!(
        completion(",\"prompt\":\"a\"").map(|it| it.has_text),
        Ok(true)
    );
    assert_eq!(
        completion(",\"prompt\":[1,2]").map(|it| it.has_text),
        Ok(false)
    );
    for several in ["[\"a\"]", "[[1]]", "[]", "[1,\"a\"]", "7"] {
        assert_eq!(completion(&format!(",\"prompt\":{several}")), Err(Choices));
    }
    assert_eq!(
        completion(",\"prompt\":\"a\",\"logprobs\":0"),
        Err(Logprobs)
    );
    assert_eq!(completion(",\"prompt\":\"a\",\"suffix\":\"b\""), Err(Echo));
    let body = "{\"stream\":true,\"prompt\":\"a\"}";
    assert_eq!(of(Api::Completions, body), Err(NoMaxTokens));
}

#[test]
fn what_is_no_stream_of_a_completion_is_none_of_ours() {
    let mut request = ModelRequest::new(Api::Chat);
    let body = Bytes::from_static(b"{\"messages\":[{}]}");
    probe::read(&mut request, &body).unwrap();
    assert_eq!(request.continuable(), None);
    assert_eq!(ModelRequest::new(Api::Responses).continuable(), None);
}
