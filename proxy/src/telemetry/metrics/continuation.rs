//! Continuations of broken token streams, counted.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

use super::{MAX_KINDS, OTHER};

/// By what the next endpoint was told where the answer was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ContinuedBy {
    Tokens,
    Text,
    /// It came to neither.
    None,
}

impl ContinuedBy {
    /// In the order of the discriminants.
    pub const ALL: [ContinuedBy; 3] = [ContinuedBy::Tokens, ContinuedBy::Text, ContinuedBy::None];

    pub const fn as_str(self) -> &'static str {
        match self {
            ContinuedBy::Tokens => "tokens",
            ContinuedBy::Text => "text",
            ContinuedBy::None => "none",
        }
    }
}

/// What came of a stream that broke: once for each time that it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ContinuationResult {
    /// Another endpoint has taken it up.
    Continued,
    /// Every token was here: the end was added.
    Completed,
    /// It was sent, and no endpoint took it up.
    Failed,
    /// An endpoint refused the request for it.
    Rejected,
    /// Another endpoint answered as another model, or another revision of it.
    OtherModel,
    /// It broke more often than the policy allows.
    Attempts,
    NoBudget,
    /// As many retries are under way to the service as may be.
    Limit,
    NoEndpoint,
    /// The answer is longer than what is kept.
    TooLong,
    /// The policy wants token ids, and there were none.
    NoTokenIds,
    /// What the model thinks is not known as a whole.
    Reasoning,
    /// The answer has something else than text.
    NoText,
    /// The request is none that is understood.
    Unread,
    /// More than one answer was asked for (`n`, `best_of`, beam search, several prompts).
    Choices,
    Logprobs,
    Tools,
    /// The form of the answer is fixed (`response_format`, guided decoding, a grammar).
    StructuredOutput,
    Seed,
    Stop,
    /// The prompt is part of the answer, or the answer stands before an end.
    Echo,
    /// Completions without `max_tokens`: how many the server makes then is not known.
    NoMaxTokens,
}

impl ContinuationResult {
    /// In the order of the discriminants.
    pub const ALL: [ContinuationResult; 22] = [
        ContinuationResult::Continued,
        ContinuationResult::Completed,
        ContinuationResult::Failed,
        ContinuationResult::Rejected,
        ContinuationResult::OtherModel,
        ContinuationResult::Attempts,
        ContinuationResult::NoBudget,
        ContinuationResult::Limit,
        ContinuationResult::NoEndpoint,
        ContinuationResult::TooLong,
        ContinuationResult::NoTokenIds,
        ContinuationResult::Reasoning,
        ContinuationResult::NoText,
        ContinuationResult::Unread,
        ContinuationResult::Choices,
        ContinuationResult::Logprobs,
        ContinuationResult::Tools,
        ContinuationResult::StructuredOutput,
        ContinuationResult::Seed,
        ContinuationResult::Stop,
        ContinuationResult::Echo,
        ContinuationResult::NoMaxTokens,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            ContinuationResult::Continued => "continued",
            ContinuationResult::Completed => "completed",
            ContinuationResult::Failed => "failed",
            ContinuationResult::Rejected => "rejected",
            ContinuationResult::OtherModel => "other-model",
            ContinuationResult::Attempts => "attempts",
            ContinuationResult::NoBudget => "no-budget",
            ContinuationResult::Limit => "limit",
            ContinuationResult::NoEndpoint => "no-endpoint",
            ContinuationResult::TooLong => "too-long",
            ContinuationResult::NoTokenIds => "no-token-ids",
            ContinuationResult::Reasoning => "reasoning",
            ContinuationResult::NoText => "no-text",
            ContinuationResult::Unread => "unread",
            ContinuationResult::Choices => "choices",
            ContinuationResult::Logprobs => "logprobs",
            ContinuationResult::Tools => "tools",
            ContinuationResult::StructuredOutput => "structured-output",
            ContinuationResult::Seed => "seed",
            ContinuationResult::Stop => "stop",
            ContinuationResult::Echo => "echo",
            ContinuationResult::NoMaxTokens => "no-max-tokens",
        }
    }
}

const MODES: usize = ContinuedBy::ALL.len();

/// Handles for the streams of one service, resolved once.
#[derive(Debug, Default)]
pub struct ContinuationMetrics([[AtomicU64; MODES]; ContinuationResult::ALL.len()]);

impl ContinuationMetrics {
    pub fn count(&self, by: ContinuedBy, result: ContinuationResult) {
        self.0[result as usize][by as usize].fetch_add(1, Relaxed);
    }
}

/// Of all services there were.
#[derive(Debug, Default)]
pub(super) struct Continuations(Mutex<HashMap<Arc<str>, Arc<ContinuationMetrics>>>);

impl Continuations {
    pub(super) fn get(&self, service: &str) -> Arc<ContinuationMetrics> {
        // Nothing under this lock leaves the map half-changed.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let full = known.len() >= MAX_KINDS && !known.contains_key(service);
        let name = if full { OTHER } else { service };
        known.entry(name.into()).or_default().clone()
    }

    /// Calls back for each result that occurred.
    pub(super) fn each_count(
        &self,
        mut each: impl FnMut(&str, ContinuedBy, ContinuationResult, u64),
    ) {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (service, metrics) in known.iter() {
            for result in ContinuationResult::ALL {
                for by in ContinuedBy::ALL {
                    let count = metrics.0[result as usize][by as usize].load(Relaxed);
                    if count > 0 {
                        each(service, by, result, count);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ContinuationResult, ContinuedBy};

    #[test]
    fn the_lists_are_in_the_order_of_the_discriminants() {
        for (index, result) in ContinuationResult::ALL.into_iter().enumerate() {
            assert_eq!(result as usize, index);
        }
        for (index, by) in ContinuedBy::ALL.into_iter().enumerate() {
            assert_eq!(by as usize, index);
        }
    }
}
