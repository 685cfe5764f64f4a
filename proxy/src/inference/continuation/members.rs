//! The members of a request's body, and whether an answer to it can be continued.

use std::borrow::Cow;
use std::ops::Range;

use super::Allowed;
use crate::inference::ModelRequest;
use crate::inference::api::Api;
use crate::inference::json::{Flaw, Reader};
use crate::telemetry::metrics::ContinuationResult;

/// A body with more is nobody's.
const MAX_MEMBERS: usize = 128;

/// Members that are read or set. Some servers may take one in another case for the same.
const KNOWN: [&str; 34] = [
    "n",
    "best_of",
    "use_beam_search",
    "logprobs",
    "top_logprobs",
    "prompt_logprobs",
    "tools",
    "functions",
    "response_format",
    "structured_outputs",
    "grammar",
    "json_schema",
    "regex",
    "ebnf",
    "structural_tag",
    "stop",
    "echo",
    "suffix",
    "audio",
    "modalities",
    "seed",
    "temperature",
    "top_k",
    "return_token_ids",
    "messages",
    "prompt",
    "max_tokens",
    "max_completion_tokens",
    "min_tokens",
    "add_generation_prompt",
    "continue_final_message",
    "add_special_tokens",
    "stream",
    "stream_options",
];

/// One member of the object.
#[derive(Debug)]
pub(super) struct Member<'a> {
    pub(super) name: Cow<'a, str>,
    /// Between the quotes.
    pub(super) key: Range<usize>,
    pub(super) value: Range<usize>,
}

/// All of a body. `None`: it is no object, or one whose members stand twice.
pub(super) fn read(body: &[u8]) -> Option<Vec<Member<'_>>> {
    let mut members: Vec<Member<'_>> = Vec::new();
    let mut reader = Reader::new(body);
    let read = reader.object(|key, value| {
        let name = key.decode().ok_or(Flaw::Malformed)?;
        let start = value.position();
        value.skip()?;
        // Libraries differ in which of two counts, and some do not look at the case.
        let twice = |other: &Member<'_>| other.name.eq_ignore_ascii_case(&name);
        if members.len() == MAX_MEMBERS || members.iter().any(twice) {
            return Err(Flaw::Malformed);
        }
        members.push(Member {
            name,
            key: key.span(),
            value: start..value.end(),
        });
        Ok(())
    });
    (read.is_ok() && reader.is_done()).then_some(members)
}

/// Whether an answer to a request can be continued, and why not.
pub(super) fn allowed(request: &ModelRequest) -> Result<Allowed, ContinuationResult> {
    use ContinuationResult as Why;
    let body = &*request.body;
    if body.is_empty() || request.unread.is_some() {
        return Err(Why::Unread);
    }
    let members = read(body).ok_or(Why::Unread)?;
    let mut allowed = Allowed {
        client_ids: None,
        has_text: true,
    };
    let (mut seed, mut greedy, mut prompt) = (false, false, false);
    for member in &members {
        let is = |known: &&str| **known != *member.name && known.eq_ignore_ascii_case(&member.name);
        if KNOWN.iter().any(is) {
            return Err(Why::Unread);
        }
        let value = body.get(member.value.clone()).unwrap_or_default();
        if value == b"null" {
            continue;
        }
        match &*member.name {
            "n" | "best_of" if value != b"1" => return Err(Why::Choices),
            "use_beam_search" if value != b"false" => return Err(Why::Choices),
            "logprobs" if value != b"false" => return Err(Why::Logprobs),
            "top_logprobs" if value != b"0" => return Err(Why::Logprobs),
            "prompt_logprobs" => return Err(Why::Logprobs),
            "tools" | "functions" if !is_empty(value) => return Err(Why::Tools),
            "response_format" if !is_plain_format(value) => return Err(Why::StructuredOutput),
            "structured_outputs" | "grammar" | "json_schema" | "regex" | "ebnf"
            | "structural_tag" => return Err(Why::StructuredOutput),
            name if name.starts_with("guided_") => return Err(Why::StructuredOutput),
            "stop" if !is_empty(value) => return Err(Why::Stop),
            "echo" if value != b"false" => return Err(Why::Echo),
            "suffix" if !is_empty(value) => return Err(Why::Echo),
            "audio" => return Err(Why::NoText),
            "modalities" if !is_text_only(value) => return Err(Why::NoText),
            "seed" => seed = true,
            "temperature" => greedy |= number(value) == Some(0.0),
            "top_k" => greedy |= value == b"1",
            "return_token_ids" => allowed.client_ids = Some(value == b"true"),
            "messages" if request.api == Api::Chat => {
                prompt = value.first() == Some(&b'[') && !is_empty(value);
            }
            // Which of the two a server reads is its own matter.
            "prompt" if request.api == Api::Chat => return Err(Why::Unread),
            "messages" => return Err(Why::Unread),
            "prompt" => {
                allowed.has_text = value.first() == Some(&b'"');
                prompt = allowed.has_text || is_token_ids(value);
                if !prompt {
                    return Err(Why::Choices);
                }
            }
            _ => {}
        }
    }
    if !prompt {
        return Err(Why::Unread);
    }
    if seed && !greedy {
        return Err(Why::Seed);
    }
    if request.api == Api::Completions && request.max_tokens.is_none() {
        return Err(Why::NoMaxTokens);
    }
    Ok(allowed)
}

fn number(value: &[u8]) -> Option<f64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// `[]`, `""` or `{}`.
fn is_empty(value: &[u8]) -> bool {
    let inner = value.get(1..value.len().saturating_sub(1));
    let inner = inner.unwrap_or_default();
    matches!(value.first(), Some(b'[' | b'"' | b'{')) && inner.iter().all(u8::is_ascii_whitespace)
}

/// `{"type":"text"}`
fn is_plain_format(value: &[u8]) -> bool {
    let mut plain = false;
    let read = Reader::new(value).object(|key, value| {
        plain = key.is("type") && value.maybe_text()?.is_some_and(|text| text.is("text"));
        if plain { Ok(()) } else { Err(Flaw::Malformed) }
    });
    plain && read.is_ok()
}

/// `["text"]`
fn is_text_only(value: &[u8]) -> bool {
    let read = Reader::new(value).array(|item| match item.maybe_text()? {
        Some(text) if text.is("text") => Ok(()),
        _ => Err(Flaw::Malformed),
    });
    read.is_ok()
}

/// A list of numbers.
fn is_token_ids(value: &[u8]) -> bool {
    let mut any = false;
    let read = Reader::new(value).array(|item| {
        any = true;
        item.maybe_number()?.map(drop).ok_or(Flaw::Malformed)
    });
    read.is_ok() && any
}

/// For a fuzzer: what is made of a body is a body that is read in the same way.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn fuzz(bytes: &[u8]) {
    use super::request::{Rest, rest};
    use crate::inference::probe;
    use bytes::Bytes;

    let body = Bytes::copy_from_slice(bytes);
    for api in [Api::Chat, Api::Completions] {
        let mut request = ModelRequest::new(api);
        if probe::read(&mut request, &body).is_err() {
            continue;
        }
        let Some(Ok(allowed)) = request.continuable() else {
            continue;
        };
        let ids = [1, u32::MAX];
        for next in [
            Rest::Tokens {
                prompt: &ids,
                generated: &ids,
            },
            Rest::Text("so \"far\n"),
            Rest::Again { ids: true },
        ] {
            if matches!(next, Rest::Text(_)) && !allowed.has_text {
                continue;
            }
            let Some(made) = rest(api, &body, &next, request.max_tokens, 2, false) else {
                continue;
            };
            let api = match next {
                Rest::Tokens { .. } => Api::Completions,
                _ => api,
            };
            let mut again = ModelRequest::new(api);
            assert!(probe::read(&mut again, &made).is_ok(), "{made:?}");
            assert_eq!(again.unread, None, "{made:?}");
            assert!(again.stream);
            assert_eq!(again.name(), request.name());
        }
    }
}

#[cfg(test)]
mod tests;
