//! What is known of a request for a model.

use std::cell::OnceCell;
use std::ops::Range;

use bytes::Bytes;

use super::api::Api;
use super::continuation::Allowed;
use super::json::Reader;
use super::prefix::Prefixes;
use crate::balance::{Prompt, PromptReader};
use crate::telemetry::metrics::ContinuationResult;

/// A request for a model, as far as it was understood. What is `None` is not known: nothing is guessed.
#[derive(Debug)]
pub struct ModelRequest {
    pub api: Api,
    /// As the request names it.
    pub name: Option<Box<str>>,
    /// It asks for a stream.
    pub stream: bool,
    /// Tokens that it wants at most.
    pub max_tokens: Option<u32>,
    /// An estimate of the prompt's tokens, see [`prompt`](super::prompt).
    pub prompt_tokens: Option<u32>,
    /// Answers that it wants (`n`).
    pub choices: u32,
    /// Who it says it is for: `user`, `safety_identifier`, or `metadata.user_id`. A client's word, no proof.
    pub tenant: Option<Box<str>>,
    /// It asks for usage at the end of the stream.
    pub wants_usage: bool,
    /// Why the body was not read.
    pub unread: Option<Unread>,
    pub(crate) body: Bytes,
    /// Found out where a route continues broken streams.
    pub(super) allowed: OnceCell<Result<Allowed, ContinuationResult>>,
    pub(super) spans: Spans,
}

/// Places in the body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Spans {
    /// Of the model's name, between its quotes.
    pub(super) model: Option<Range<usize>>,
    /// `model` stands there, and its value is no name, or it does in another case: who reads it may or may not take it for that.
    pub(super) model_unclear: bool,
    /// After the brace that opens the object.
    pub(super) open: usize,
    /// The object has other members.
    pub(super) has_members: bool,
    pub(super) options: Option<OptionsSpan>,
    /// `stream_options` stands there in another case: who reads it may or may not take it for that.
    pub(super) options_unclear: bool,
    /// The value of `cache_salt`.
    pub(super) cache_salt: Option<Range<usize>>,
    /// `cache_salt` stands there in another case: who reads it may or may not take it for that.
    pub(super) cache_salt_unclear: bool,
    /// What the prompt consists of, in the order in which a model reads it.
    pub(super) prompt: [Option<Range<usize>>; 3],
}

/// `stream_options`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OptionsSpan {
    /// The whole value.
    pub(super) value: Range<usize>,
    /// It is an object with members.
    pub(super) has_members: bool,
    /// It is an object.
    pub(super) is_object: bool,
    /// The value of `include_usage`.
    pub(super) include_usage: Option<Range<usize>>,
}

/// Why the body of a request was not read: path and headers are all that is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Unread {
    /// It is longer than what is read.
    TooLarge,
    /// It has a content coding.
    Compressed,
    /// It is of another kind.
    OtherType,
    /// It is not what it says it is.
    Malformed,
    /// It is nested too deep.
    TooDeep,
    /// The first message of a stream did not come.
    Late,
}

impl ModelRequest {
    pub(super) fn new(api: Api) -> ModelRequest {
        ModelRequest {
            api,
            name: None,
            stream: false,
            max_tokens: None,
            prompt_tokens: None,
            choices: 1,
            tenant: None,
            wants_usage: false,
            unread: None,
            body: Bytes::new(),
            allowed: OnceCell::new(),
            spans: Spans::default(),
        }
    }

    /// The model, as the request names it.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// What the choice of a replica goes by: the prompt's length and its prefixes, by the bytes of the JSON text. `None`: it is not
    /// known. Costs what it takes to read the prompt, each time.
    pub fn prompt(&self) -> Option<Prompt> {
        self.prompt_for(self.name().unwrap_or_default())
    }

    /// As [`prompt`](Self::prompt), for a model that is asked in place of the one that the request names.
    pub fn prompt_for(&self, model: &str) -> Option<Prompt> {
        let tokens = self.prompt_tokens?;
        let mut prompt = PromptReader::new(model.as_bytes());
        let [first, second, last] = &self.spans.prompt;
        for piece in [first, second].into_iter().flatten() {
            prompt.text(self.body.get(piece.clone()).unwrap_or_default());
            prompt.end_of_message();
        }
        let last = last.clone().and_then(|range| self.body.get(range));
        messages(last.unwrap_or_default(), &mut prompt);
        Some(prompt.finish(tokens))
    }

    /// Hashes of the prompt's beginning, one for each block of so many bytes: equal hashes mean equal beginnings for the same
    /// model. Costs what it takes to read the prompt, each time.
    pub fn prefixes(&self, block: usize) -> Prefixes<'_> {
        let piece = |range: &Option<Range<usize>>| {
            let range = range.clone()?;
            self.body.get(range)
        };
        let [first, second, third] = &self.spans.prompt;
        let pieces = [piece(first), piece(second), piece(third)].map(Option::unwrap_or_default);
        Prefixes::new(self.name().unwrap_or_default(), pieces, block)
    }
}

/// Reads a list of messages one by one, anything else as one text.
fn messages(text: &[u8], prompt: &mut PromptReader) {
    let mut reader = Reader::new(text);
    let mut read_to = 0;
    if reader.peek() == Some(b'[') {
        // It was read before: there is no flaw. If there were one, the rest would be one text.
        let _ = reader.array(|item| {
            let start = item.position();
            let is_message = matches!(item.peek(), Some(b'{' | b'"'));
            item.skip()?;
            if is_message {
                prompt.text(text.get(start..item.end()).unwrap_or_default());
                prompt.end_of_message();
                read_to = item.end();
            }
            Ok(())
        });
    }
    // What closes the list is not there yet when the next message is.
    if read_to == 0 {
        prompt.text(text);
    }
}
