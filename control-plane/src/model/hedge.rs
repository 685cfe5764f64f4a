//! When a request is sent a second time before the first has failed.

use serde::{Deserialize, Serialize};

use super::Duration;

/// Hedging: where an answer is slow to come, the request is sent to another endpoint as well, and the first good answer is
/// taken. Paid for with the retry budget.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Hedge {
    /// How long an answer is waited for. A good choice is the 95th percentile of the time to the first byte.
    pub delay: Duration,
    /// Requests under way at the same time, the first one included. Default 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_requests: Option<u32>,
    /// Methods of requests that may be sent twice. Default as for retries: those that are idempotent by RFC 9110.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub methods: Option<Vec<String>>,
}

impl Hedge {
    /// The value in effect.
    pub fn max_requests(&self) -> u32 {
        self.max_requests.unwrap_or(2)
    }

    /// The value in effect, upper case.
    pub fn methods(&self) -> Vec<String> {
        self.methods
            .clone()
            .unwrap_or_else(super::retry::idempotent_methods)
    }
}
