//! The few bytes of a body that are replaced where a policy asks for it: the model's name, the wish for usage, the salt. Everything
//! else stays as the client wrote it.

use std::ops::Range;

use bytes::Bytes;

use super::api::Api;
use super::request::ModelRequest;
use crate::policy::{Inference, Model};

/// Replacements in a body, in the order of their places; none overlaps another.
#[derive(Debug, Default)]
pub struct Edits {
    list: Vec<(Range<usize>, Bytes)>,
}

/// The name of a model cannot be replaced in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotReplaced;

impl ModelRequest {
    /// What is replaced for a service. `None`: nothing.
    pub fn edits(&self, inference: &Inference) -> Option<Edits> {
        let mut list = Vec::new();
        if let Some(span) = &self.spans.model
            && let Some(name) = self.name()
            && let Some(model) = inference.find(name).map(|index| &inference.models[index])
            && model.server_name() != name
        {
            list.push((span.clone(), escaped(model.server_name())));
        }
        self.finished(list, Some(inference))
    }

    /// As [`edits`](Self::edits), for a request that is to ask for another model. `inference`: what the service says of
    /// models, where it says something.
    pub fn edits_to(
        &self,
        model: &str,
        inference: Option<&Inference>,
    ) -> Result<Option<Edits>, NotReplaced> {
        // Theirs is in the path, or in a message that is not written again.
        let elsewhere = matches!(self.api, Api::Kserve | Api::KserveGrpc | Api::ListModels);
        if elsewhere || self.body.is_empty() {
            return Err(NotReplaced);
        }
        let listed = inference.and_then(|it| Some(&it.models[it.find(model)?]));
        let server_name = listed.map_or(model, Model::server_name);
        let mut list = Vec::new();
        match &self.spans.model {
            Some(_) if self.name() == Some(server_name) => {}
            Some(span) => list.push((span.clone(), escaped(server_name))),
            None if self.spans.model_unclear => return Err(NotReplaced),
            None => {
                let open = self.spans.open;
                let name = serde_json::Value::from(server_name);
                let comma = if self.spans.has_members { "," } else { "" };
                list.push((open..open, format!("\"model\":{name}{comma}").into()));
            }
        }
        Ok(self.finished(list, inference))
    }

    fn finished(
        &self,
        mut list: Vec<(Range<usize>, Bytes)>,
        inference: Option<&Inference>,
    ) -> Option<Edits> {
        if inference.is_some_and(|it| it.streams.request_usage) {
            list.extend(self.usage_edit());
        }
        // Stable: of two at the same place the first one stays the first.
        list.sort_by_key(|(at, _)| at.start);
        (!list.is_empty()).then_some(Edits { list })
    }

    /// Whether usage is asked for that the client did not ask for.
    pub fn adds_usage(&self, inference: &Inference) -> bool {
        inference.streams.request_usage && self.usage_edit().is_some()
    }

    fn usage_edit(&self) -> Option<(Range<usize>, Bytes)> {
        const MEMBER: &str = "\"include_usage\":true";
        let can = matches!(self.api, Api::Chat | Api::Completions);
        if self.spans.options_unclear
            || !can
            || !self.stream
            || self.wants_usage
            || self.body.is_empty()
        {
            return None;
        }
        let comma = |has_members: bool| if has_members { "," } else { "" };
        Some(match &self.spans.options {
            None => {
                let open = self.spans.open;
                let rest = comma(self.spans.has_members);
                let text = format!("\"stream_options\":{{{MEMBER}}}{rest}");
                (open..open, text.into())
            }
            Some(options) if !options.is_object => {
                let text = format!("{{{MEMBER}}}");
                (options.value.clone(), text.into())
            }
            Some(options) => match &options.include_usage {
                Some(value) => (value.clone(), Bytes::from_static(b"true")),
                None => {
                    let open = options.value.start + 1;
                    let text = format!("{MEMBER}{}", comma(options.has_members));
                    (open..open, text.into())
                }
            },
        })
    }

    /// The value of `cache_salt` as the client wrote it. `None`: there is none.
    pub(super) fn cache_salt(&self) -> Option<&[u8]> {
        let value = self.body.get(self.spans.cache_salt.clone()?)?;
        (value != b"null").then_some(value)
    }

    /// Whether `cache_salt` stands there in another case.
    pub(super) fn has_unclear_salt(&self) -> bool {
        self.spans.cache_salt_unclear
    }

    /// Sets `cache_salt`, to a text that needs no escapes. `None`: the body was not read.
    pub(super) fn salt_edit(&self, salt: &str) -> Option<Edits> {
        if self.body.is_empty() {
            return None;
        }
        let edit = match &self.spans.cache_salt {
            Some(value) => (value.clone(), format!("\"{salt}\"")),
            None => {
                let open = self.spans.open;
                let comma = if self.spans.has_members { "," } else { "" };
                (open..open, format!("\"cache_salt\":\"{salt}\"{comma}"))
            }
        };
        Some(Edits {
            list: vec![(edit.0, edit.1.into())],
        })
    }

    /// The body with the edits.
    pub fn edited(&self, edits: &Edits) -> Vec<Bytes> {
        edits.apply(&self.body)
    }
}

impl Edits {
    /// The pieces of the new body. What stays is not copied.
    pub(super) fn apply(&self, body: &Bytes) -> Vec<Bytes> {
        let mut pieces = Vec::with_capacity(2 * self.list.len() + 1);
        let mut from = 0;
        for (at, with) in &self.list {
            pieces.push(body.slice(from..at.start));
            pieces.push(with.clone());
            from = at.end;
        }
        pieces.push(body.slice(from..));
        pieces.retain(|piece| !piece.is_empty());
        pieces
    }

    /// Asks for token ids as well, where the client has not said whether it wants them.
    pub(crate) fn ask_for_ids(&mut self, request: &ModelRequest) {
        let open = request.spans.open;
        // There are members: the prompt at least.
        let member = Bytes::from_static(b"\"return_token_ids\":true,");
        self.list.push((open..open, member));
        self.list.sort_by_key(|(at, _)| at.start);
    }

    /// Bytes that the body is longer by.
    pub fn growth(&self) -> i64 {
        let growth = |(at, with): &(Range<usize>, Bytes)| with.len() as i64 - at.len() as i64;
        self.list.iter().map(growth).sum()
    }
}

/// As it stands between quotes.
fn escaped(text: &str) -> Bytes {
    let quoted = serde_json::Value::from(text).to_string();
    let inner = quoted.len() - 1;
    Bytes::from(quoted).slice(1..inner)
}

#[cfg(test)]
mod tests;
