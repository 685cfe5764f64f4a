//! The end of a stream that a budget of tokens ends, in the words of its interface: what a client gets whose model has reached its
//! maximum.

use serde_json::{Map, Value, json};

use super::super::ModelRequest;
use super::super::api::Api;
use super::{Seen, sse};

/// Of a `response.created` that is kept: it repeats instructions and tools.
const MAX_KEPT: usize = 64 << 10;

/// What must be known of a stream to end it.
#[derive(Debug)]
pub(super) struct Ending {
    api: Api,
    /// Answers that were asked for.
    choices: u32,
    wants_usage: bool,
    /// The first `response` of the responses API.
    response: Option<Box<[u8]>>,
}

impl Ending {
    pub(super) fn new(request: &ModelRequest) -> Ending {
        Ending {
            api: request.api,
            // As many as servers give.
            choices: request.choices.clamp(1, 128),
            wants_usage: request.wants_usage,
            response: None,
        }
    }

    /// Remembers what is needed at the end.
    pub(super) fn look(&mut self, event: &[u8]) {
        if self.api == Api::Responses
            && self.response.is_none()
            && event.len() <= MAX_KEPT
            && let Some(data) = sse::fields(event).data
        {
            self.response = Some(data.into());
        }
    }

    /// Whether the stream ends by itself: nothing need be said.
    pub(super) fn is_over(&self, seen: &Seen) -> bool {
        // Of several answers one may go on.
        seen.done || (self.choices == 1 && seen.finish.is_some())
    }

    /// What follows after this event and ends the stream. `None`: the interface has no end that says so. `known`: tokens of prompt
    /// and answer.
    pub(super) fn last_words(&self, event: &[u8], known: (u64, u64)) -> Option<Vec<u8>> {
        let last = sse::fields(event).data.map(read).unwrap_or_default();
        let mut out = Vec::new();
        match self.api {
            Api::Chat | Api::Completions => {
                self.chunk(&last, known, &mut out);
            }
            Api::Messages => messages(&last, known, &mut out),
            Api::Responses => self.responses(&last, known, &mut out)?,
            Api::Embeddings
            | Api::Audio
            | Api::Kserve
            | Api::KserveGrpc
            | Api::ListModels
            | Api::Other => return None,
        }
        Some(out)
    }

    fn chunk(&self, last: &Map<String, Value>, (input, output): (u64, u64), out: &mut Vec<u8>) {
        let with = |choices: Vec<Value>, usage: Option<Value>| {
            let mut chunk = Map::new();
            for name in ["id", "object", "created", "model", "system_fingerprint"] {
                if let Some(value) = last.get(name) {
                    chunk.insert(name.to_owned(), value.clone());
                }
            }
            chunk.insert("choices".to_owned(), choices.into());
            if let Some(usage) = usage {
                chunk.insert("usage".to_owned(), usage);
            }
            Value::Object(chunk)
        };
        let choices = (0..self.choices).map(|index| match self.api {
            Api::Completions => {
                json!({"index": index, "text": "", "logprobs": null, "finish_reason": "length"})
            }
            _ => json!({"index": index, "delta": {}, "finish_reason": "length"}),
        });
        data(&with(choices.collect(), None), out);
        if self.wants_usage {
            let usage = json!({
                "prompt_tokens": input,
                "completion_tokens": output,
                "total_tokens": input.saturating_add(output),
            });
            data(&with(Vec::new(), Some(usage)), out);
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    fn responses(
        &self,
        last: &Map<String, Value>,
        (input, output): (u64, u64),
        out: &mut Vec<u8>,
    ) -> Option<()> {
        let mut first = read(self.response.as_deref()?);
        let Value::Object(mut response) = first.remove("response")? else {
            return None;
        };
        response.insert("status".into(), "incomplete".into());
        let details = json!({"reason": "max_output_tokens"});
        response.insert("incomplete_details".into(), details);
        let usage = json!({
            "input_tokens": input,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": output,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": input.saturating_add(output),
        });
        response.insert("usage".into(), usage);
        let number = last.get("sequence_number").and_then(Value::as_u64);
        let event = json!({
            "type": "response.incomplete",
            "sequence_number": number.map_or(0, |number| number.saturating_add(1)),
            "response": response,
        });
        named("response.incomplete", &event, out);
        Some(())
    }
}

fn messages(last: &Map<String, Value>, (_, output): (u64, u64), out: &mut Vec<u8>) {
    // Tokens come in a block that is open.
    if let Some(index) = last.get("index") {
        let stop = json!({"type": "content_block_stop", "index": index});
        named("content_block_stop", &stop, out);
    }
    let delta = json!({
        "type": "message_delta",
        "delta": {"stop_reason": "max_tokens", "stop_sequence": null},
        "usage": {"output_tokens": output},
    });
    named("message_delta", &delta, out);
    named("message_stop", &json!({"type": "message_stop"}), out);
}

/// An object; empty where it is none.
fn read(data: &[u8]) -> Map<String, Value> {
    serde_json::from_slice(data).unwrap_or_default()
}

fn named(name: &str, value: &Value, out: &mut Vec<u8>) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.push(b'\n');
    data(value, out);
}

fn data(value: &Value, out: &mut Vec<u8>) {
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(value.to_string().as_bytes());
    out.extend_from_slice(b"\n\n");
}
