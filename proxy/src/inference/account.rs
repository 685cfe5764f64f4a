//! A request for a model from its head to its last token: what is told of it when it has ended.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use super::continuation::Breaks;
use super::stream::{Finish, Report, StreamOutcome};
use super::{Api, ModelRequest};
use crate::admission::tokens::{End, Meter};
use crate::error::Reason;
use crate::policy::Inference;
use crate::telemetry::Outcome;
use crate::telemetry::metrics::ContinuationResult;

/// Kept with the request's exchange.
#[derive(Debug)]
pub struct Account {
    pub api: Api,
    pub name: Option<Box<str>>,
    pub inference: Arc<Inference>,
    /// Of the answer that the client gets. `None`: it is not read.
    pub report: Option<Rc<Report>>,
    /// Where a fallback took the request over.
    pub served: Option<Box<Served>>,
    /// What it has reserved of budgets of tokens. `None`: none is for it.
    pub(crate) meter: Option<Rc<Meter>>,
    /// Where the route continues streams that break. `None`: it does not.
    pub breaks: Option<Rc<Breaks>>,
}

/// What a fallback asked in place of what the request was for.
#[derive(Debug)]
pub struct Served {
    /// `None`: the same model.
    pub model: Option<Arc<str>>,
    /// What its service says of models. `None`: nothing.
    pub inference: Option<Arc<Inference>>,
}

/// How a request for a model ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ModelOutcome {
    Complete,
    ClientGone,
    /// The stream ended without its end.
    Truncated,
    /// An error was reported within the stream.
    Error,
    /// A stream without a token.
    Empty,
    /// Nothing came for too long.
    Stalled,
    /// There was no answer, or one with a status of 400 or above.
    Failed,
}

impl ModelOutcome {
    /// In the order of the discriminants.
    pub const ALL: [ModelOutcome; 7] = [
        ModelOutcome::Complete,
        ModelOutcome::ClientGone,
        ModelOutcome::Truncated,
        ModelOutcome::Error,
        ModelOutcome::Empty,
        ModelOutcome::Stalled,
        ModelOutcome::Failed,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            ModelOutcome::Complete => "complete",
            ModelOutcome::ClientGone => "client-gone",
            ModelOutcome::Truncated => "truncated",
            ModelOutcome::Error => "error",
            ModelOutcome::Empty => "empty",
            ModelOutcome::Stalled => "stalled",
            ModelOutcome::Failed => "failed",
        }
    }
}

/// What went wrong, as `error.type` of metrics has it: few words, whatever happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ErrorType {
    Truncated,
    Error,
    Empty,
    Stalled,
    ClientError,
    ServerError,
    /// There was no answer.
    Failed,
}

impl ErrorType {
    /// In the order of the discriminants.
    pub const ALL: [ErrorType; 7] = [
        ErrorType::Truncated,
        ErrorType::Error,
        ErrorType::Empty,
        ErrorType::Stalled,
        ErrorType::ClientError,
        ErrorType::ServerError,
        ErrorType::Failed,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            ErrorType::Truncated => "truncated",
            ErrorType::Error => "error",
            ErrorType::Empty => "empty",
            ErrorType::Stalled => "stalled",
            ErrorType::ClientError => "4xx",
            ErrorType::ServerError => "5xx",
            ErrorType::Failed => "failed",
        }
    }

    /// `None`: nothing went wrong. That the client went away is no error.
    fn of(outcome: ModelOutcome, status: Option<StatusCode>) -> Option<ErrorType> {
        Some(match outcome {
            ModelOutcome::Complete | ModelOutcome::ClientGone => return None,
            ModelOutcome::Truncated => ErrorType::Truncated,
            ModelOutcome::Error => ErrorType::Error,
            ModelOutcome::Empty => ErrorType::Empty,
            ModelOutcome::Stalled => ErrorType::Stalled,
            ModelOutcome::Failed => match status {
                Some(status) if status.is_client_error() => ErrorType::ClientError,
                Some(status) if status.is_server_error() => ErrorType::ServerError,
                _ => ErrorType::Failed,
            },
        })
    }
}

/// The figures of a request that has ended. What is not known is `None`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Result {
    pub outcome: ModelOutcome,
    /// `None`: nothing went wrong.
    pub error: Option<ErrorType>,
    pub duration: Duration,
    pub first_token: Option<Duration>,
    /// Mean time for each token after the first.
    pub per_token: Option<Duration>,
    pub longest_gap: Option<Duration>,
    /// As the server counted.
    pub input: Option<u32>,
    /// As the server counted, else as pieces of the stream were.
    pub output: Option<u32>,
    pub finish: Option<Finish>,
    /// How often the stream was continued elsewhere.
    pub continued: u32,
    /// Why a stream that broke was not.
    pub not_continued: Option<ContinuationResult>,
}

impl Account {
    pub(super) fn new(request: &ModelRequest, inference: &Arc<Inference>) -> Account {
        Account {
            api: request.api,
            name: request.name.clone(),
            inference: Arc::clone(inference),
            report: None,
            served: None,
            meter: None,
            breaks: None,
        }
    }

    /// The model that a fallback asked for in place of the one that the request names. `None`: the same.
    pub fn served_model(&self) -> Option<&Arc<str>> {
        self.served.as_ref()?.model.as_ref()
    }

    /// `gen_ai.provider.name` of the service that was asked last. Empty: it is not known.
    pub fn provider(&self) -> &str {
        match &self.served {
            None => &self.inference.provider,
            Some(served) => served.inference.as_ref().map_or("", |it| &it.provider),
        }
    }

    /// Tells budgets what it has used: what the server says, else what was counted or estimated.
    pub(crate) fn settle(&self, outcome: &Outcome) {
        let Some(meter) = &self.meter else { return };
        let answered = outcome.status.is_some_and(|status| status.as_u16() < 400);
        let end = match &self.report {
            // An error, or nobody was asked.
            _ if !answered && outcome.reason != Some(Reason::ClientGone) => End::Nothing,
            _ if !meter.is_sent() => End::Nothing,
            // Nothing came of the answer; the prompt was worked on.
            None if !answered => End::Used {
                input: None,
                output: Some(0),
            },
            None => End::Unknown,
            Some(report) => used(report),
        };
        meter.settle(end);
    }

    /// What is wrong with an answer that has come to its end. `None`: nothing.
    pub(crate) fn flaw(&self) -> Option<Reason> {
        match self.report.as_ref()?.outcome() {
            StreamOutcome::Complete => None,
            StreamOutcome::Truncated => Some(Reason::UpstreamTruncated),
            StreamOutcome::Error | StreamOutcome::Empty => Some(Reason::ModelError),
        }
    }

    /// When the first token of a stream came, and how many tokens of the prompt were not in the server's cache: 0 where it does not
    /// say. `None`: there was none.
    pub(crate) fn first_token(&self) -> Option<(Instant, u32)> {
        let report = self.report.as_ref().filter(|report| report.is_stream)?;
        let first = report.first_token()?;
        let usage = report.seen().usage.unwrap_or_default();
        let uncached = usage
            .input
            .unwrap_or(0)
            .saturating_sub(usage.cached.unwrap_or(0));
        Some((first, uncached))
    }

    /// Whether the client has all there is: many go away at the last event, before the end of the body.
    pub(crate) fn is_told_all(&self) -> bool {
        let report = self.report.as_ref();
        report.is_some_and(|report| report.is_stream && report.seen().done)
    }

    pub(crate) fn result(&self, outcome: &Outcome, started: Instant) -> Result {
        let report = self.report.as_deref();
        let seen = report.map(Report::seen).unwrap_or_default();
        let since = |at: Instant| at.saturating_duration_since(started);
        let usage = seen.usage.unwrap_or_default();
        let output = usage.output.or((seen.tokens > 0).then_some(seen.tokens));
        let times = report.and_then(|report| Some((report.first_token()?, report.last_token()?)));
        let per_token = times.and_then(|(first, last)| {
            let others = output?.checked_sub(1)?;
            last.saturating_duration_since(first).checked_div(others)
        });
        let ended = self.outcome(outcome);
        let breaks = self.breaks.as_deref();
        if let Some(breaks) = breaks {
            use ModelOutcome::{Error, Stalled, Truncated};
            breaks.ended(matches!(ended, Error | Stalled | Truncated));
        }
        Result {
            outcome: ended,
            error: ErrorType::of(ended, outcome.status),
            duration: outcome.duration,
            first_token: times.map(|(first, _)| since(first)),
            per_token,
            longest_gap: report.filter(|_| seen.tokens > 1).map(Report::longest_gap),
            input: usage.input,
            output,
            finish: seen.finish,
            continued: breaks.map_or(0, Breaks::continued),
            not_continued: breaks.and_then(Breaks::refused),
        }
    }

    fn outcome(&self, outcome: &Outcome) -> ModelOutcome {
        match outcome.reason {
            Some(Reason::ClientGone) => ModelOutcome::ClientGone,
            Some(
                Reason::StreamIdleTimeout
                | Reason::FirstByteTimeout
                | Reason::FirstTokenTimeout
                | Reason::TokenIdleTimeout,
            ) => ModelOutcome::Stalled,
            Some(Reason::ModelError) => match self.report.as_ref().map(|report| report.outcome()) {
                Some(StreamOutcome::Empty) => ModelOutcome::Empty,
                _ => ModelOutcome::Error,
            },
            Some(Reason::UpstreamTruncated | Reason::FaultTruncate) => ModelOutcome::Truncated,
            // A budget has ended it; the client has a whole answer where its interface has an end for that.
            Some(Reason::TokenBudget) if outcome.status.is_some_and(|it| it.as_u16() < 400) => {
                match self
                    .report
                    .as_ref()
                    .is_some_and(|report| report.seen().done)
                {
                    true => ModelOutcome::Complete,
                    false => ModelOutcome::Truncated,
                }
            }
            Some(_) => ModelOutcome::Failed,
            None => match outcome.status {
                Some(status) if status.as_u16() < 400 => ModelOutcome::Complete,
                _ => ModelOutcome::Failed,
            },
        }
    }
}

/// By an answer that has begun.
fn used(report: &Report) -> End {
    let seen = report.seen();
    let usage = seen.usage.unwrap_or_default();
    let output = match usage.output {
        // A stream that was cut has said what it had said by then.
        Some(output) if report.is_stream && !seen.done => Some(output.max(seen.tokens)),
        Some(output) => Some(output),
        None if report.is_stream => Some(seen.tokens),
        None => return End::Unknown,
    };
    End::Used {
        input: usage.input.map(u64::from),
        output: output.map(u64::from),
    }
}

#[cfg(test)]
mod tests;
