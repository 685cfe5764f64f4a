//! Goes on with a token stream that broke: what a request allows ([`members`]), what is kept of its answer and how the next answer is made to
//! look like the first one ([`transcript`]), and the request for the rest ([`request`]). How it is sent is the business of
//! `outbound::continuation`.

mod chunk;
mod events;
#[cfg(any(test, feature = "fuzzing"))]
mod fuzz;
mod head;
mod members;
mod request;
mod transcript;

use std::cell::Cell;
use std::sync::Arc;

pub(crate) use events::Events;
pub(crate) use request::read;
pub(crate) use transcript::{Next, Step, Transcript};

use request::{Rest, rest};

use super::ModelRequest;
use super::api::Api;
use crate::policy::{Continuation, ContinuationMode};
use crate::telemetry::metrics::{ContinuationMetrics, ContinuationResult, ContinuedBy};

/// Whether a stream can go on elsewhere, by what its request says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allowed {
    /// `return_token_ids`, where the client has set it.
    pub(super) client_ids: Option<bool>,
    /// The prompt is text, which more can be added to.
    pub(super) has_text: bool,
}

impl Allowed {
    /// Whether the server is to be asked for token ids that the client did not ask for.
    pub(crate) fn asks_for_ids(self, mode: ContinuationMode) -> bool {
        mode != ContinuationMode::Text && self.client_ids.is_none()
    }
}

impl ModelRequest {
    /// Whether this is a stream that could be continued, and if it is, whether its request allows that. `None`: it is none.
    pub(crate) fn continuable(&self) -> Option<Result<Allowed, ContinuationResult>> {
        let is_ours = matches!(self.api, Api::Chat | Api::Completions) && self.stream;
        is_ours.then(|| *self.allowed.get_or_init(|| members::allowed(self)))
    }
}

/// What became of the breaks of one stream: shared with whoever answers for the request.
#[derive(Debug)]
pub struct Breaks {
    metrics: Arc<ContinuationMetrics>,
    /// How often the stream was continued.
    continued: Cell<u32>,
    /// Why it was not.
    refused: Cell<Option<ContinuationResult>>,
    /// Nobody waits for it to break.
    unwatched: bool,
}

impl Breaks {
    pub(crate) fn new(policy: &Continuation, unwatched: Option<ContinuationResult>) -> Breaks {
        Breaks {
            metrics: Arc::clone(&policy.metrics),
            continued: Cell::new(0),
            refused: Cell::new(unwatched),
            unwatched: unwatched.is_some(),
        }
    }

    /// How often the stream was continued.
    pub fn continued(&self) -> u32 {
        self.continued.get()
    }

    /// Why it was not, when it broke the last time.
    pub fn refused(&self) -> Option<ContinuationResult> {
        self.refused.get()
    }

    pub(crate) fn count(&self, by: ContinuedBy, result: ContinuationResult) {
        self.metrics.count(by, result);
        match result {
            ContinuationResult::Continued => self.continued.set(self.continued.get() + 1),
            ContinuationResult::Completed => {}
            why => self.refused.set(Some(why)),
        }
    }

    /// The stream has ended, broken or not.
    pub(crate) fn ended(&self, broken: bool) {
        if !broken {
            self.refused.set(None);
        } else if self.unwatched
            && let Some(why) = self.refused.get()
        {
            self.metrics.count(ContinuedBy::None, why);
        }
    }
}

/// For a fuzzer: a stream that is cut anywhere, and the rest of it from elsewhere, give the same whatever the pieces are that it
/// comes in.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz(bytes: &[u8]) {
    fuzz::fuzz(bytes);
    members::fuzz(bytes);
}
