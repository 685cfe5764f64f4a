//! When a request is tried again.

use serde::{Deserialize, Serialize};

use super::Duration;

/// Retries. A rule's `retry` takes the place of its service's as a whole, that of the mesh's. A failed connect is always
/// tried on another endpoint, with or without this.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retry {
    /// Tries after the first. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// Response statuses that are tried again. Default 502, 503, 504.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codes: Option<Vec<u16>>,
    /// gRPC statuses that are tried again. Default unavailable. A gRPC call is a POST: `methods` has to name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc_codes: Option<Vec<GrpcCode>>,
    /// Methods that may be tried again after the request was sent. Default GET, HEAD, OPTIONS, PUT, DELETE: those that
    /// are idempotent by RFC 9110.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub methods: Option<Vec<String>>,
    /// Try again where the connection broke before the response's head. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_reset: Option<bool>,
    /// Try again after `timeouts.backendRequest`. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_timeout: Option<bool>,
    /// First pause. Default 25 ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Duration>,
    /// Longest pause. Default ten times `backoff`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_backoff: Option<Duration>,
    /// A request with a longer body is sent once. Bytes; default 65,536.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_body_bytes: Option<u64>,
    /// How many retries there may be, relative to requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<RetryBudget>,
}

impl Retry {
    /// The value in effect.
    pub fn attempts(&self) -> u32 {
        self.attempts.unwrap_or(1)
    }

    /// The value in effect.
    pub fn codes(&self) -> Vec<u16> {
        self.codes.clone().unwrap_or_else(|| vec![502, 503, 504])
    }

    /// The value in effect.
    pub fn grpc_codes(&self) -> Vec<GrpcCode> {
        self.grpc_codes
            .clone()
            .unwrap_or_else(|| vec![GrpcCode::Unavailable])
    }

    /// The value in effect, upper case.
    pub fn methods(&self) -> Vec<String> {
        self.methods.clone().unwrap_or_else(idempotent_methods)
    }

    /// The value in effect.
    pub fn on_reset(&self) -> bool {
        self.on_reset.unwrap_or(true)
    }

    /// The value in effect.
    pub fn on_timeout(&self) -> bool {
        self.on_timeout.unwrap_or(false)
    }

    /// The value in effect.
    pub fn backoff(&self) -> Duration {
        self.backoff.unwrap_or(Duration::from_millis(25))
    }

    /// The value in effect.
    pub fn max_backoff(&self) -> Duration {
        self.max_backoff
            .unwrap_or_else(|| Duration::from_millis(self.backoff().as_millis().saturating_mul(10)))
    }

    /// The value in effect.
    pub fn max_body_bytes(&self) -> u64 {
        self.max_body_bytes.unwrap_or(65_536)
    }

    /// The value in effect.
    pub fn budget(&self) -> RetryBudget {
        self.budget.unwrap_or_default()
    }
}

/// The idempotent methods of RFC 9110, without TRACE.
pub(super) fn idempotent_methods() -> Vec<String> {
    ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"]
        .map(str::to_owned)
        .to_vec()
}

/// Bounds the retries that a failing service gets on top of its requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetryBudget {
    /// Retries for each 100 requests. Default 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u32>,
    /// Retries per second that are always allowed. Default 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_per_second: Option<u32>,
}

impl RetryBudget {
    /// The value in effect.
    pub fn percent(self) -> u32 {
        self.percent.unwrap_or(20)
    }

    /// The value in effect.
    pub fn min_per_second(self) -> u32 {
        self.min_per_second.unwrap_or(10)
    }
}

/// gRPC statuses other than OK, with the numbers of the gRPC specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the names are those of the gRPC specification")]
pub enum GrpcCode {
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

impl GrpcCode {
    /// The number on the wire.
    pub const fn number(self) -> u32 {
        self as u32
    }
}
