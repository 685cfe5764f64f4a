//! The tokens of an answer, seen as they pass. Bytes go on at once and as they are; what is known of them is in a [`Report`]
//! that whoever answers for the request shares.

mod body;
mod budget;
mod clocks;
mod ending;
mod events;
pub(in crate::inference) mod sse;
mod usage;

use std::cell::{Cell, RefCell};

use tokio::time::Instant;

use super::api::Api;
use events::Event;
use sse::Splitter;

pub(crate) use body::{ModelStream, begin, meter, watch, watch_whole};

/// What was seen of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub events: u32,
    /// Pieces with a token in them, or several: an answer's tokens where its usage is not known.
    pub tokens: u32,
    pub usage: Option<Usage>,
    pub finish: Option<Finish>,
    /// The end that the interface has: `[DONE]`, `message_stop`, `response.completed`.
    pub done: bool,
    /// An error was reported within it.
    pub error: bool,
    /// Events that could not be read.
    pub unreadable: u32,
}

/// As the server counts. `None`: it did not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub input: Option<u32>,
    pub output: Option<u32>,
    /// Of the input, those that were in its cache.
    pub cached: Option<u32>,
}

/// Why a model stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    Stop,
    Length,
    Tool,
    Filter,
    Abort,
    Error,
    Other,
}

impl Finish {
    pub const fn as_str(self) -> &'static str {
        match self {
            Finish::Stop => "stop",
            Finish::Length => "length",
            Finish::Tool => "tool_calls",
            Finish::Filter => "content_filter",
            Finish::Abort => "abort",
            Finish::Error => "error",
            Finish::Other => "other",
        }
    }
}

/// What became of an answer, by what it says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum StreamOutcome {
    Complete,
    /// It ended without its end.
    Truncated,
    /// An error was reported within it, or the server gave up.
    Error,
    /// It ended without a token.
    Empty,
}

impl Seen {
    /// What it was if it ends now.
    pub fn outcome(&self, api: Api) -> StreamOutcome {
        if self.error || matches!(self.finish, Some(Finish::Abort | Finish::Error)) {
            return StreamOutcome::Error;
        }
        let has_answer = self.tokens > 0 || self.finish.is_some() || self.unreadable > 0;
        // These have no end of their own.
        let open_ended = matches!(api, Api::Kserve | Api::Other | Api::Audio);
        match (self.done || self.finish.is_some(), has_answer) {
            (_, false) => StreamOutcome::Empty,
            (true, true) => StreamOutcome::Complete,
            (false, true) if open_ended => StreamOutcome::Complete,
            (false, true) => StreamOutcome::Truncated,
        }
    }
}

/// What is known of an answer under way. The time of a token is the time when its bytes came.
#[derive(Debug)]
pub struct Report {
    pub api: Api,
    /// It is a stream of events.
    pub is_stream: bool,
    seen: RefCell<Seen>,
    first_token: Cell<Option<Instant>>,
    last_token: Cell<Option<Instant>>,
    /// Longest time between two reads with tokens.
    longest_gap: Cell<std::time::Duration>,
}

impl Report {
    fn new(api: Api, is_stream: bool) -> Report {
        Report {
            api,
            is_stream,
            seen: RefCell::default(),
            first_token: Cell::default(),
            last_token: Cell::default(),
            longest_gap: Cell::default(),
        }
    }

    /// Of an answer that has come so far.
    #[cfg(test)]
    pub(super) fn of(api: Api, is_stream: bool, data: &[u8]) -> Report {
        let report = Report::new(api, is_stream);
        if is_stream {
            let mut observer = Observer::new(api);
            observer.feed(data);
            *report.seen.borrow_mut() = observer.seen;
        } else {
            events::whole(data, &mut report.seen.borrow_mut());
        }
        report
    }

    pub fn seen(&self) -> Seen {
        *self.seen.borrow()
    }

    pub fn first_token(&self) -> Option<Instant> {
        self.first_token.get()
    }

    pub fn last_token(&self) -> Option<Instant> {
        self.last_token.get()
    }

    /// Whether the model has begun to answer: what comes before a stream's first token says nothing, what is no stream or cannot be
    /// read says it with its first byte.
    pub fn has_begun(&self) -> bool {
        !self.is_stream || self.first_token().is_some() || self.seen.borrow().unreadable > 0
    }

    /// Longest time between two reads with tokens.
    pub fn longest_gap(&self) -> std::time::Duration {
        self.longest_gap.get()
    }

    /// What it was if it ends now. What is no stream is what its status says.
    pub fn outcome(&self) -> StreamOutcome {
        if self.is_stream {
            self.seen().outcome(self.api)
        } else {
            StreamOutcome::Complete
        }
    }

    /// Tokens came.
    fn moved(&self, now: Instant) {
        match self.last_token.replace(Some(now)) {
            None => self.first_token.set(Some(now)),
            Some(before) => {
                let gap = now.saturating_duration_since(before);
                self.longest_gap.set(self.longest_gap.get().max(gap));
            }
        }
    }
}

/// Reads a stream of server-sent events as it passes, in whatever pieces it comes. Keeps at most one event of a limited size,
/// and only what was cut off of it.
#[derive(Debug)]
pub struct Observer {
    api: Api,
    splitter: Splitter,
    seen: Seen,
    /// For data in several lines.
    joined: Vec<u8>,
}

impl Observer {
    pub fn new(api: Api) -> Observer {
        Observer {
            api,
            splitter: Splitter::default(),
            seen: Seen::default(),
            joined: Vec::new(),
        }
    }

    /// What was seen so far.
    pub fn seen(&self) -> Seen {
        self.seen
    }

    /// The stream's next bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        let Observer {
            api,
            splitter,
            seen,
            joined,
        } = self;
        splitter.feed(bytes, |event| {
            match event {
                Some(event) => {
                    read(*api, event, seen, joined);
                }
                // Too large to be read: it is there all the same.
                None => seen.unreadable = seen.unreadable.saturating_add(1),
            }
        });
    }

    /// One event, complete.
    fn event(&mut self, event: &[u8]) -> Event {
        read(self.api, event, &mut self.seen, &mut self.joined)
    }
}

fn read(api: Api, event: &[u8], seen: &mut Seen, joined: &mut Vec<u8>) -> Event {
    let fields = sse::fields(event);
    seen.error |= fields.is_error;
    let Some(data) = fields.data else {
        return Event::default();
    };
    if fields.has_more {
        sse::joined(event, joined);
        let found = events::read(api, fields.name, joined, seen);
        // The places are those in the joined text.
        return Event {
            null_usage: None,
            ..found
        };
    }
    events::read(api, fields.name, data, seen)
}

/// For a fuzzer: what is seen does not depend on how the bytes are cut, nor does what is left after the filter.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz(bytes: &[u8]) {
    use bytes::{Bytes, BytesMut};

    let (cut, bytes) = bytes.split_first().unwrap_or((&0, &[]));
    let size = usize::from(*cut % 64) + 1;
    for api in [Api::Chat, Api::Responses, Api::Messages] {
        let mut whole = Observer::new(api);
        whole.feed(bytes);
        let mut pieces = Observer::new(api);
        for piece in bytes.chunks(size) {
            pieces.feed(piece);
        }
        assert_eq!(pieces.seen, whole.seen);
        assert_eq!(pieces.splitter.is_between(), whole.splitter.is_between());

        let filtered = |size: usize| {
            let mut observer = Observer::new(api);
            let mut filter = usage::UsageFilter::default();
            let mut out = BytesMut::new();
            for piece in bytes.chunks(size) {
                let piece = Bytes::copy_from_slice(piece);
                out.extend_from_slice(&filter.pass(piece, &mut observer));
            }
            out.extend_from_slice(&filter.rest());
            (out.freeze(), observer.seen)
        };
        let (out, seen) = filtered(size);
        assert_eq!((&out, seen), (&filtered(bytes.len().max(1)).0, whole.seen));
        assert!(out.len() <= bytes.len());
    }
    let mut seen = Seen::default();
    events::whole(bytes, &mut seen);
}

#[cfg(test)]
mod tests;
