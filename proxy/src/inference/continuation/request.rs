//! The request for the rest of an answer: the client's body with a few members changed.

use std::fmt::Write;
use std::ops::Range;

use bytes::Bytes;

use super::members::{self, Member};
use crate::inference::ModelRequest;
use crate::inference::api::Api;
use crate::inference::probe;

/// How an endpoint is told where the answer was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest<'a> {
    Tokens {
        prompt: &'a [u32],
        generated: &'a [u32],
    },
    /// The text so far.
    Text(&'a str),
    /// There was none: it is asked once more. `ids`: and for token ids, which the client did not ask for.
    Again { ids: bool },
}

/// The body of the request for the rest. `max_tokens`: what the client wants at most; `generated`: how many of these there are. `counts_only`:
/// one more is made, which nobody gets.
/// `None`: the body is not what it was taken for.
pub(crate) fn rest(
    api: Api,
    body: &Bytes,
    next: &Rest<'_>,
    max_tokens: Option<u32>,
    generated: u32,
    counts_only: bool,
) -> Option<Bytes> {
    let members = members::read(body)?;
    let mut splice = Splice {
        body,
        members: &members,
        edits: Vec::new(),
        added: String::new(),
    };
    let left = |most: u32| match most.saturating_sub(generated) {
        left if left > 1 && !counts_only => left.to_string(),
        _ => "1".to_owned(),
    };
    if generated > 0 {
        for name in ["max_tokens", "max_completion_tokens"] {
            if let Some(most) = splice.number(name) {
                splice.replace(name, left(most));
            }
        }
        if counts_only && max_tokens.is_none() {
            splice.set("max_tokens", "1");
        }
        if let Some(least) = splice.number("min_tokens") {
            let least = if counts_only { 0 } else { least };
            splice.replace("min_tokens", least.saturating_sub(generated).to_string());
        }
    }
    match next {
        Rest::Again { ids } => {
            if *ids {
                splice.set("return_token_ids", "true");
            }
        }
        Rest::Tokens { prompt, generated } => {
            let ids = ids(prompt, generated);
            match api {
                Api::Chat => {
                    let messages = splice.find("messages")?;
                    let (key, value) = (messages.key.clone(), messages.value.clone());
                    // Of no meaning there, and maybe of another kind.
                    for name in [
                        "logprobs",
                        "max_completion_tokens",
                        "add_generation_prompt",
                        "continue_final_message",
                    ] {
                        splice.replace(name, "null".into());
                    }
                    splice.edits.push((key, "prompt".into()));
                    splice.edits.push((value, ids));
                    // Said in any case: without it a server makes 16. `null` is as many as fit, what a chat's default is.
                    let most = max_tokens.map_or("null".into(), left);
                    splice.set("max_tokens", &most);
                }
                _ => splice.replace("prompt", ids),
            }
            splice.set("echo", "false");
            splice.set("add_special_tokens", "false");
            splice.set("return_token_ids", "true");
        }
        Rest::Text(text) => {
            let quoted = serde_json::Value::from(*text).to_string();
            match api {
                Api::Chat => chat_by_text(&mut splice, &quoted)?,
                _ => {
                    let prompt = splice.find("prompt")?.value.clone();
                    if body.get(prompt.start) != Some(&b'"') {
                        return None;
                    }
                    let end = prompt.end - 1;
                    let inner = quoted.get(1..quoted.len() - 1)?;
                    splice.edits.push((end..end, inner.to_owned()));
                }
            }
        }
    }
    splice.finish()
}

/// The assistant's message so far, which the server is to go on with.
fn chat_by_text(splice: &mut Splice<'_>, quoted: &str) -> Option<()> {
    let messages = splice.find("messages")?.value.clone();
    let continues = splice.find("continue_final_message");
    let continues = continues.is_some_and(|it| splice.body.get(it.value.clone()) == Some(b"true"));
    if continues {
        // The client has begun it itself.
        let end = last_content(splice.body, &messages)?;
        let inner = quoted.get(1..quoted.len() - 1)?;
        splice.edits.push((end..end, inner.to_owned()));
        return Some(());
    }
    let end = messages.end - 1;
    let message = format!(",{{\"role\":\"assistant\",\"content\":{quoted}}}");
    splice.edits.push((end..end, message));
    splice.set("add_generation_prompt", "false");
    splice.set("continue_final_message", "true");
    Some(())
}

/// The end of the text of the last message, before its quote. `None`: it has no text.
fn last_content(body: &[u8], messages: &Range<usize>) -> Option<usize> {
    use crate::inference::json::Reader;

    let list = body.get(messages.clone())?;
    let mut end = None;
    let read = Reader::new(list).array(|item| {
        end = None;
        if item.peek() != Some(b'{') {
            return item.skip();
        }
        item.object(|key, value| {
            if key.is("content") && value.peek() == Some(b'"') {
                let text = value.text()?;
                end = Some(messages.start + text.span().end);
                return Ok(());
            }
            value.skip()
        })
    });
    read.ok()?;
    end
}

fn ids(prompt: &[u32], generated: &[u32]) -> String {
    let mut text = String::with_capacity(7 * (prompt.len() + generated.len()) + 2);
    text.push('[');
    for (index, id) in prompt.iter().chain(generated).enumerate() {
        if index > 0 {
            text.push(',');
        }
        // A `String` takes all there is.
        let _ = write!(text, "{id}");
    }
    text.push(']');
    text
}

/// A body whose members are changed; everything else stays as the client wrote it.
struct Splice<'a> {
    body: &'a Bytes,
    members: &'a [Member<'a>],
    edits: Vec<(Range<usize>, String)>,
    /// Members that it did not have.
    added: String,
}

impl<'a> Splice<'a> {
    fn find(&self, name: &str) -> Option<&'a Member<'a>> {
        self.members.iter().find(|member| member.name == name)
    }

    /// A whole number.
    fn number(&self, name: &str) -> Option<u32> {
        let value = self.body.get(self.find(name)?.value.clone())?;
        std::str::from_utf8(value).ok()?.parse().ok()
    }

    /// Only where it stands there.
    fn replace(&mut self, name: &str, with: String) {
        if let Some(member) = self.find(name) {
            self.edits.retain(|(at, _)| *at != member.value);
            self.edits.push((member.value.clone(), with));
        }
    }

    fn set(&mut self, name: &str, with: &str) {
        if self.find(name).is_some() {
            self.replace(name, with.to_owned());
        } else {
            let _ = write!(self.added, "\"{name}\":{with},");
        }
    }

    fn finish(mut self) -> Option<Bytes> {
        // There are members: the prompt at least.
        let open = self.members.iter().map(|member| member.key.start).min()? - 1;
        self.edits.push((open..open, self.added));
        self.edits.sort_by_key(|(at, _)| at.start);
        let mut made = Vec::with_capacity(self.body.len() + 64);
        let mut from = 0;
        for (at, with) in &self.edits {
            made.extend_from_slice(self.body.get(from..at.start)?);
            made.extend_from_slice(with.as_bytes());
            from = at.end;
        }
        made.extend_from_slice(self.body.get(from..)?);
        Some(made.into())
    }
}

/// What is known of a body that was made here. `None`: nothing.
pub(crate) fn read(api: Api, body: &Bytes) -> Option<ModelRequest> {
    let mut request = ModelRequest::new(api);
    probe::read(&mut request, body).ok()?;
    request.unread.is_none().then_some(request)
}

#[cfg(test)]
mod tests;
