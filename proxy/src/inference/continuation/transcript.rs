//! What is kept of a stream so that it can go on elsewhere, and how the rest is made to look like the part before: one head, one role,
//! one end, one usage.

mod broken;

use std::ops::Range;

use super::Allowed;
use super::chunk::{self, Chunk};
use super::head::Head;
use crate::inference::api::Api;
use crate::inference::stream::sse;
use crate::policy::ContinuationMode;
use crate::telemetry::metrics::{ContinuationResult, ContinuedBy};

/// What follows from an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Go,
    /// The server gave up: the event is not passed on.
    Broken,
    /// Another model answers.
    OtherModel,
}

/// What is to be done about a break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// All tokens are here, and what was missing is added.
    Complete,
    /// The rest is to be asked for.
    Ask(ContinuedBy),
    Refuse(ContinuationResult),
}

/// Which part of the stream is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leg {
    First,
    /// Tokens before it, and how the server was told of them.
    Next {
        before: u32,
        by: ContinuedBy,
        /// Only its count of the prompt is wanted.
        counts_only: bool,
    },
}

/// One stream, over all of its parts.
#[derive(Debug)]
pub(crate) struct Transcript {
    api: Api,
    mode: ContinuationMode,
    allowed: Allowed,
    /// Bytes of text and ids that are kept.
    max_bytes: usize,
    max_tokens: Option<u32>,
    /// The client, or who looks at the stream on the way to it, gets the usage.
    wants_usage: bool,
    leg: Leg,
    head: Option<Head>,
    role_sent: bool,
    text: String,
    /// Events with text.
    deltas: u32,
    prompt_ids: Option<Vec<u32>>,
    /// Of the text. `None`: of some of it they are not known.
    ids: Option<Vec<u32>>,
    /// Of text that has not come.
    pending: Vec<u32>,
    /// As the server counted.
    prompt_tokens: Option<u32>,
    output_tokens: Option<u32>,
    finished: bool,
    usage_sent: bool,
    done: bool,
    refused: Option<ContinuationResult>,
    joined: Vec<u8>,
}

impl Transcript {
    pub(crate) fn new(
        api: Api,
        allowed: Allowed,
        (mode, max_bytes): (ContinuationMode, usize),
        max_tokens: Option<u32>,
        wants_usage: bool,
    ) -> Transcript {
        Transcript {
            api,
            mode,
            allowed,
            max_bytes,
            max_tokens,
            wants_usage,
            leg: Leg::First,
            head: None,
            role_sent: false,
            text: String::new(),
            deltas: 0,
            prompt_ids: None,
            ids: (mode != ContinuationMode::Text).then(Vec::new),
            pending: Vec::new(),
            prompt_tokens: None,
            output_tokens: None,
            finished: false,
            usage_sent: false,
            done: false,
            refused: None,
            joined: Vec::new(),
        }
    }

    /// `[DONE]` is here.
    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    /// There is nothing to wait for but `[DONE]`, which not all servers send.
    pub(crate) fn is_finished(&self) -> bool {
        self.finished
    }

    /// There is text.
    pub(crate) fn has_begun(&self) -> bool {
        self.deltas > 0
    }

    /// It is passed on, and not continued if it breaks.
    pub(crate) fn give_up(&mut self, why: ContinuationResult) {
        self.refused.get_or_insert(why);
        self.text = String::new();
        self.prompt_ids = None;
        self.ids = None;
        self.pending = Vec::new();
    }

    /// Reads one event, and appends what the client gets of it.
    pub(crate) fn event(&mut self, event: &[u8], out: &mut Vec<u8>) -> Step {
        let fields = sse::fields(event);
        if fields.is_error {
            return Step::Broken;
        }
        let Some(data) = fields.data else {
            out.extend_from_slice(event);
            return Step::Go;
        };
        if fields.has_more {
            let mut joined = std::mem::take(&mut self.joined);
            sse::joined(event, &mut joined);
            // White space between values: within a text it would be no JSON.
            joined
                .iter_mut()
                .filter(|byte| **byte == b'\n')
                .for_each(|byte| *byte = b' ');
            let step = self.data(event, &joined, None, out);
            self.joined = joined;
            return step;
        }
        // Where the data stands in the event.
        let start = data.as_ptr() as usize - event.as_ptr() as usize;
        self.data(event, data, Some(start..start + data.len()), out)
    }

    /// `at`: where the data stands in the event, where it does in one piece.
    fn data(
        &mut self,
        event: &[u8],
        data: &[u8],
        at: Option<Range<usize>>,
        out: &mut Vec<u8>,
    ) -> Step {
        if data == b"[DONE]" {
            if !self.done {
                out.extend_from_slice(event);
            }
            self.done = true;
            return Step::Go;
        }
        let chunk = match chunk::read(data) {
            Ok(chunk) => chunk,
            Err(_) => {
                self.give_up(ContinuationResult::NoText);
                out.extend_from_slice(event);
                return Step::Go;
            }
        };
        let gave_up =
            |finish: &super::super::json::Text<'_>| finish.is("abort") || finish.is("error");
        if chunk.is_error || chunk.finish.as_ref().is_some_and(gave_up) {
            return Step::Broken;
        }
        if let Some(why) = chunk.refused {
            self.give_up(why);
        }
        match self.leg {
            Leg::First => {
                self.first(event, data, at, &chunk, out);
                Step::Go
            }
            Leg::Next {
                before,
                by,
                counts_only,
            } => {
                if !self.is_same_model(data, &chunk) {
                    return Step::OtherModel;
                }
                self.rest(data, &chunk, (before, by, counts_only), out);
                Step::Go
            }
        }
    }

    fn first(
        &mut self,
        event: &[u8],
        data: &[u8],
        at: Option<Range<usize>>,
        chunk: &Chunk<'_>,
        out: &mut Vec<u8>,
    ) {
        self.note_head(data, chunk);
        self.role_sent |= chunk.has_role;
        if let Some(ids) = &chunk.prompt_ids
            && self.ids.is_some()
        {
            self.prompt_ids = Some(ids.clone());
        }
        self.take(chunk);
        self.finished |= chunk.finish.is_some();
        if let Some(usage) = chunk.usage {
            self.note_usage(usage.input, usage.output);
            self.usage_sent |= chunk.choices == 0;
        }
        let strips = chunk.has_ids && self.allowed.asks_for_ids(self.mode);
        if !strips {
            return out.extend_from_slice(event);
        }
        let length = out.len();
        let (before, after) = match &at {
            Some(at) => (&event[..at.start], &event[at.end..]),
            None => (&b"data: "[..], &b"\n\n"[..]),
        };
        out.extend_from_slice(before);
        if chunk::without_ids(data, out).is_err() {
            out.truncate(length);
            return out.extend_from_slice(event);
        }
        out.extend_from_slice(after);
    }

    fn note_head(&mut self, data: &[u8], chunk: &Chunk<'_>) {
        match &mut self.head {
            Some(head) => head.has_usage |= chunk.has_usage && chunk.choices > 0,
            None => self.head = Some(Head::of(data, chunk)),
        }
    }

    fn is_same_model(&self, data: &[u8], chunk: &Chunk<'_>) -> bool {
        let head = self.head.as_ref();
        head.is_none_or(|head| head.is_same_model(data, chunk))
    }

    /// A chunk as the first server would have made it. `text`: as it stands between quotes.
    fn write(
        &self,
        text: Option<&[u8]>,
        finish: Option<&[u8]>,
        ids: Option<&[u32]>,
        out: &mut Vec<u8>,
    ) {
        if let Some(head) = &self.head {
            head.write(self.api, text, finish, ids, out);
        }
    }

    fn write_usage(&mut self, prompt: u32, output: u32, out: &mut Vec<u8>) {
        self.usage_sent = true;
        if let Some(head) = &self.head {
            head.write_usage(prompt, output, out);
        }
    }

    /// Keeps what a chunk adds.
    fn take(&mut self, chunk: &Chunk<'_>) {
        let has_text = chunk.text.is_some_and(|text| text.len() > 0);
        if has_text {
            self.deltas = self.deltas.saturating_add(1);
        }
        if self.refused.is_some() {
            return;
        }
        if let Some(ids) = &chunk.token_ids {
            self.pending.extend_from_slice(ids);
        }
        if let Some(text) = chunk.text.filter(|_| has_text) {
            match text.decode() {
                Some(text) => self.text.push_str(&text),
                None => return self.give_up(ContinuationResult::NoText),
            }
            if let Some(ids) = &mut self.ids {
                if self.pending.is_empty() {
                    self.ids = None;
                    self.prompt_ids = None;
                } else {
                    ids.append(&mut self.pending);
                }
            }
            self.pending.clear();
        }
        let ids = [&self.ids, &self.prompt_ids];
        let ids: usize = ids.into_iter().flatten().map(Vec::len).sum();
        if self.text.len() + 4 * (ids + self.pending.len()) > self.max_bytes {
            // The text alone may do.
            if self.mode == ContinuationMode::Auto && self.text.len() <= self.max_bytes && ids > 0 {
                self.ids = None;
                self.prompt_ids = None;
                self.pending = Vec::new();
            } else {
                self.give_up(ContinuationResult::TooLong);
            }
        }
    }

    fn note_usage(&mut self, input: Option<u32>, output: Option<u32>) {
        self.prompt_tokens = input.or(self.prompt_tokens);
        self.output_tokens = output.or(self.output_tokens);
    }

    /// Tokens so far: as the server counts, by their ids, or one for each event, which can be too few.
    fn generated(&self) -> u32 {
        let before = match self.leg {
            Leg::First => 0,
            Leg::Next { before, .. } => before,
        };
        let by_ids = self.ids.as_ref().map(|ids| ids.len() as u32);
        by_ids
            .filter(|_| self.prompt_ids.is_some())
            .or(self.output_tokens)
            .unwrap_or(self.deltas)
            .max(before)
    }

    fn prompt_count(&self) -> Option<u32> {
        let ids = self.prompt_ids.as_ref().map(|ids| ids.len() as u32);
        ids.or(self.prompt_tokens)
    }
}

#[cfg(test)]
mod tests;
