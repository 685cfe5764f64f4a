//! What happens to a request besides being sent and retried: hedges and fallbacks.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode};

use super::filters::DirectResponse;
use super::{Backend, Rule};
use crate::error::Reason;
use crate::telemetry::metrics::{ContinuationMetrics, FallbackMetrics};

/// Of one rule. The default: nothing of it.
#[derive(Debug, Default)]
pub struct Recovery {
    /// `None`: a request waits for the endpoint that it was sent to.
    pub hedge: Option<Hedge>,
    /// `None`: a token stream that breaks is broken for the client too.
    pub continuation: Option<Box<Continuation>>,
    /// In the order in which they are tried.
    pub fallbacks: Box<[Fallback]>,
    /// Responses say how often the request was sent.
    pub expose_attempts: bool,
}

/// Sends a request once more where an answer is slow to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hedge {
    /// How long an answer is waited for.
    pub delay: Duration,
    /// Under way at the same time, the first one included; at least 2.
    pub max_requests: u32,
    pub methods: Vec<Method>,
}

/// A token stream that breaks goes on at another endpoint.
#[derive(Debug)]
pub struct Continuation {
    pub mode: ContinuationMode,
    /// Requests after the first, at least 1.
    pub max_attempts: u32,
    /// Of an answer: its text, and four for each token id.
    pub max_bytes: usize,
    pub metrics: Arc<ContinuationMetrics>,
}

/// By what the next endpoint is told where the answer was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContinuationMode {
    /// By token ids where the engine gives them, else by text.
    Auto,
    Tokens,
    Text,
}

impl ContinuationMode {
    /// The word used in resources.
    pub const fn as_str(self) -> &'static str {
        match self {
            ContinuationMode::Auto => "auto",
            ContinuationMode::Tokens => "tokens",
            ContinuationMode::Text => "text",
        }
    }
}

/// What answers where a backend fails.
#[derive(Debug)]
pub struct Fallback {
    pub on: Causes,
    pub to: FallbackTo,
    /// `<namespace>/<name>` of the backend's service, or `response`.
    pub name: Arc<str>,
    /// The same as the value of a header.
    pub mark: HeaderValue,
    /// The model that is asked for there. `None`: the one that the request names.
    pub model: Option<FallbackModel>,
    pub metrics: Arc<FallbackMetrics>,
}

/// A model in place of the one that a request names.
#[derive(Clone, Debug)]
pub struct FallbackModel {
    /// As requests would name it.
    pub name: Arc<str>,
    /// The same as the value of a header.
    pub mark: HeaderValue,
}

#[derive(Debug)]
pub enum FallbackTo {
    Backend(Box<Backend>),
    Response(DirectResponse),
}

/// A failure that a fallback can be for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Cause {
    NoEndpoints,
    CircuitOpen,
    /// Shed: by a sidecar, or by the backend with 429 or 503.
    Overload,
    /// A sidecar says that the caller has used up its requests or tokens.
    Budget,
    ConnectFailed,
    /// The connection broke before the response began.
    Reset,
    /// A clock before the first byte, or before a stream's first token, ran out.
    FirstByteTimeout,
    /// A model's stream had an error in the place of its first token, or ended before it.
    ModelError,
    /// A response with a status 5xx.
    ServerError,
}

impl Cause {
    /// In the order of the discriminants.
    pub const ALL: [Cause; 9] = [
        Cause::NoEndpoints,
        Cause::CircuitOpen,
        Cause::Overload,
        Cause::Budget,
        Cause::ConnectFailed,
        Cause::Reset,
        Cause::FirstByteTimeout,
        Cause::ModelError,
        Cause::ServerError,
    ];

    /// The word used in resources and labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Cause::NoEndpoints => "no-endpoints",
            Cause::CircuitOpen => "circuit-open",
            Cause::Overload => "overload",
            Cause::Budget => "budget",
            Cause::ConnectFailed => "connect-failed",
            Cause::Reset => "reset",
            Cause::FirstByteTimeout => "first-byte-timeout",
            Cause::ModelError => "model-error",
            Cause::ServerError => "server-error",
        }
    }

    /// What a reason is as a cause. `None`: no other backend would make it better, or there is no time left for one.
    pub const fn of(reason: Reason) -> Option<Cause> {
        match reason {
            Reason::NoEndpoints | Reason::DnsFailed => Some(Cause::NoEndpoints),
            Reason::CircuitOpen => Some(Cause::CircuitOpen),
            Reason::Overloaded | Reason::Throttled => Some(Cause::Overload),
            Reason::RateLimited | Reason::TokenBudget => Some(Cause::Budget),
            Reason::ConnectFailed
            | Reason::ConnectTimeout
            | Reason::UpstreamUntrusted
            | Reason::UnknownService
            | Reason::NotReady
            | Reason::Draining => Some(Cause::ConnectFailed),
            Reason::UpstreamReset => Some(Cause::Reset),
            Reason::PerTryTimeout
            | Reason::ResponseHeadersTimeout
            | Reason::FirstByteTimeout
            | Reason::FirstTokenTimeout => Some(Cause::FirstByteTimeout),
            Reason::ModelError => Some(Cause::ModelError),
            _ => None,
        }
    }
}

/// A set of causes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Causes(u16);

impl Causes {
    pub const fn with(self, cause: Cause) -> Causes {
        Causes(self.0 | 1 << cause as u8)
    }

    pub const fn has(self, cause: Cause) -> bool {
        self.0 & 1 << cause as u8 != 0
    }

    /// The first cause that both have.
    pub fn first_of_both(self, other: Causes) -> Option<Cause> {
        let both = self.0 & other.0;
        Cause::ALL
            .into_iter()
            .find(|cause| both & 1 << *cause as u8 != 0)
    }

    pub fn iter(self) -> impl Iterator<Item = Cause> {
        Cause::ALL
            .into_iter()
            .filter(move |cause| self.0 & 1 << *cause as u8 != 0)
    }

    /// What a failure without a response is.
    pub fn of_reason(reason: Reason) -> Causes {
        Cause::of(reason).map_or(Causes::default(), |cause| Causes::default().with(cause))
    }

    /// What a response is. `reason`: why another sidecar made it itself.
    pub fn of_response(status: StatusCode, reason: Option<Reason>) -> Causes {
        let mut causes = reason.map_or(Causes::default(), Causes::of_reason);
        if matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
        ) && reason.is_none()
        {
            causes = causes.with(Cause::Overload);
        }
        if status.is_server_error() {
            causes = causes.with(Cause::ServerError);
        }
        causes
    }
}

impl FromIterator<Cause> for Causes {
    fn from_iter<I: IntoIterator<Item = Cause>>(causes: I) -> Causes {
        causes.into_iter().fold(Causes::default(), Causes::with)
    }
}

impl Recovery {
    /// Whether there is a fallback for streams that fail before their first token.
    pub fn is_for_streams(&self) -> bool {
        let mut fallbacks = self.fallbacks.iter();
        fallbacks.any(|fallback| fallback.on.has(Cause::ModelError))
    }
}

impl Rule {
    /// Everywhere that its requests, or copies of them, may go.
    pub fn destinations(&self) -> impl Iterator<Item = &Backend> {
        let fallbacks = self.recovery.fallbacks.iter();
        let fallbacks = fallbacks.filter_map(|fallback| match &fallback.to {
            FallbackTo::Backend(backend) => Some(&**backend),
            FallbackTo::Response(_) => None,
        });
        let mirrors = self.filters.iter().flat_map(|filters| filters.mirrors());
        self.backends.iter().chain(fallbacks).chain(mirrors)
    }
}

#[cfg(test)]
mod tests {
    use super::{Cause, Causes};
    use crate::error::Reason;
    use http::StatusCode;

    fn of(status: u16, reason: Option<Reason>) -> Vec<Cause> {
        let status = StatusCode::from_u16(status).unwrap_or_default();
        Causes::of_response(status, reason).iter().collect()
    }

    #[test]
    fn causes_are_sets() {
        for (index, cause) in Cause::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, index);
        }
        let causes: Causes = [Cause::ServerError, Cause::Overload].into_iter().collect();
        assert_eq!(
            causes.iter().collect::<Vec<_>>(),
            [Cause::Overload, Cause::ServerError]
        );
        let other = Causes::default()
            .with(Cause::ServerError)
            .with(Cause::Reset);
        assert_eq!(causes.first_of_both(other), Some(Cause::ServerError));
        assert_eq!(causes.first_of_both(Causes::default()), None);
    }

    #[test]
    fn what_responses_are() {
        assert_eq!(of(200, None), []);
        assert_eq!(of(404, None), []);
        assert_eq!(of(500, None), [Cause::ServerError]);
        assert_eq!(of(429, None), [Cause::Overload]);
        assert_eq!(of(503, None), [Cause::Overload, Cause::ServerError]);
        // The peer's sidecar knows better than the status.
        assert_eq!(
            of(503, Some(Reason::ConnectFailed)),
            [Cause::ConnectFailed, Cause::ServerError]
        );
        assert_eq!(
            of(503, Some(Reason::Overloaded)),
            [Cause::Overload, Cause::ServerError]
        );
        assert_eq!(of(429, Some(Reason::RateLimited)), [Cause::Budget]);
        assert_eq!(of(429, Some(Reason::TokenBudget)), [Cause::Budget]);
        // Nothing is left to be tried in.
        assert_eq!(
            of(504, Some(Reason::DeadlineExceeded)),
            [Cause::ServerError]
        );
        assert_eq!(Causes::of_reason(Reason::RequestTimeout), Causes::default());
    }
}
