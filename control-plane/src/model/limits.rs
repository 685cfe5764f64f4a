//! How much of a service's load is let through, by the callers' sidecars and by its own.

use serde::{Deserialize, Serialize};

use super::Duration;
use super::meta::is_default;

/// Limits of a service. A limit that is not set does not exist.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// Open connections of one caller's sidecar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<u32>,
    /// Requests that wait for a connection in one caller's sidecar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<u32>,
    /// Requests under way from one caller's sidecar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<u32>,
    /// Retries under way from one caller's sidecar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    /// Of one caller's sidecar, for each endpoint.
    #[serde(default, skip_serializing_if = "is_default")]
    pub endpoint: EndpointLimits,
    /// Callers' sidecars do not send what will most likely be refused. Unset: off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttling: Option<Throttling>,
    /// Requests that the application of one endpoint has at a time. Enforced beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// As `concurrency`, found out from the latency. One of the three.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adaptive: Option<AdaptiveLimit>,
    /// As `concurrency`, by the batch of a model server. One of the three.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<BatchLimit>,
    /// Where requests wait that are above the concurrency. Unset: they are refused; with `batch`, a queue of defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<Queue>,
    /// Who goes first where not all can. Unset: all are equal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priorities: Option<Priorities>,
}

/// Limits of each endpoint at a caller's sidecar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EndpointLimits {
    /// Open connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<u32>,
    /// Requests under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<u32>,
}

/// Client-side throttling (Google SRE book, chapter 21): of the requests to a service that refuses, part is not sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Throttling {
    /// Requests sent for each 100 that are accepted. Default 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio_percent: Option<u32>,
    /// How long requests and acceptances are remembered. Default 2 min.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Duration>,
}

impl Throttling {
    /// The value in effect.
    pub fn ratio_percent(self) -> u32 {
        self.ratio_percent.unwrap_or(200)
    }

    /// The value in effect.
    pub fn window(self) -> Duration {
        self.window.unwrap_or(Duration::from_secs(120))
    }
}

/// A concurrency that follows the latency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AdaptiveLimit {
    /// Default gradient2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<AdaptiveAlgorithm>,
    /// Default 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_limit: Option<u32>,
    /// Default 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_limit: Option<u32>,
    /// Latency may be so much of its long-term average before the limit falls. Default 150.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerance_percent: Option<u32>,
}

impl AdaptiveLimit {
    /// Default of `minLimit`, Netflix's.
    pub const MIN_LIMIT: u32 = 20;
    /// Default of `maxLimit`, Netflix's.
    pub const MAX_LIMIT: u32 = 200;

    /// The value in effect.
    pub fn min_limit(self) -> u32 {
        // A maximum below the default minimum lowers it.
        self.min_limit
            .unwrap_or(Self::MIN_LIMIT.min(self.max_limit.unwrap_or(Self::MAX_LIMIT)))
    }

    /// The value in effect.
    pub fn max_limit(self) -> u32 {
        self.max_limit
            .unwrap_or(Self::MAX_LIMIT.max(self.min_limit.unwrap_or(Self::MIN_LIMIT)))
    }

    /// The value in effect.
    pub fn tolerance_percent(self) -> u32 {
        self.tolerance_percent.unwrap_or(150)
    }
}

/// A concurrency by the batch of a model server: `size` or `learn`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BatchLimit {
    /// Requests that the server runs at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u32>,
    /// The size is found out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learn: Option<LearnBatch>,
    /// Requests beyond the batch, percent of it, and one at least. Default 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_room_percent: Option<u32>,
}

/// How the size of a batch is found out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LearnBatch {
    /// Until it is known. Default 256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<u32>,
    /// It is never taken for larger. Default 1024.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
}

impl BatchLimit {
    /// The value in effect.
    pub fn head_room_percent(self) -> u32 {
        self.head_room_percent.unwrap_or(10)
    }
}

impl LearnBatch {
    /// Default of `start`: what vLLM had as `max_num_seqs` for years.
    pub const START: u32 = 256;
    /// Default of `max`: vLLM's largest default.
    pub const MAX: u32 = 1024;

    /// The value in effect.
    pub fn start(self) -> u32 {
        // A maximum below the default lowers it.
        self.start
            .unwrap_or(Self::START.min(self.max.unwrap_or(Self::MAX)))
    }

    /// The value in effect.
    pub fn max(self) -> u32 {
        self.max
            .unwrap_or(Self::MAX.max(self.start.unwrap_or(Self::START)))
    }
}

/// Ways to find out a concurrency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AdaptiveAlgorithm {
    /// Short-term latency against its long-term average (Netflix concurrency-limits).
    #[default]
    Gradient2,
}

/// Where requests wait for their turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Queue {
    /// Default 100; 1000 with `batch`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_length: Option<u32>,
    /// Default 1 s; 5 s with `batch`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_wait: Option<Duration>,
    /// A wait that is all right while the queue stands. Default 5 ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Duration>,
    /// A queue that was not empty for so long stands. Default 100 ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
}

impl Queue {
    /// As it is in front of a batch, with the defaults filled in.
    pub fn of_batch(self) -> Queue {
        Queue {
            max_length: Some(self.max_length.unwrap_or(1000)),
            max_wait: Some(self.max_wait.unwrap_or(Duration::from_secs(5))),
            target: None,
            interval: None,
        }
    }

    /// The value in effect.
    pub fn max_length(self) -> u32 {
        self.max_length.unwrap_or(100)
    }

    /// The value in effect.
    pub fn max_wait(self) -> Duration {
        self.max_wait.unwrap_or(Duration::from_secs(1))
    }

    /// The value in effect.
    pub fn target(self) -> Duration {
        self.target.unwrap_or(Duration::from_millis(5))
    }

    /// The value in effect.
    pub fn interval(self) -> Duration {
        self.interval.unwrap_or(Duration::from_millis(100))
    }
}

/// Who goes first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Priorities {
    /// A request may ask for its priority in this header. Default x-outrigger-priority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// Share of the concurrency that only critical requests get, percent. Default 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved_percent: Option<u32>,
    /// The first that names the caller applies. Others have the default priority, and may lower it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub callers: Vec<CallerPriority>,
}

impl Priorities {
    /// Default of `header`.
    pub const HEADER: &str = "x-outrigger-priority";

    /// The value in effect.
    pub fn header(&self) -> &str {
        self.header.as_deref().unwrap_or(Self::HEADER)
    }

    /// The value in effect.
    pub fn reserved_percent(&self) -> u32 {
        self.reserved_percent.unwrap_or(10)
    }
}

/// What priority some callers have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CallerPriority {
    /// SPIFFE ids. May end in `/*`. Empty: everybody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub identities: Vec<String>,
    /// Of a request that asks for none.
    pub priority: Priority,
    /// The highest that a request may ask for. Default: `priority`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub highest: Option<Priority>,
}

/// How much a request matters. Higher ones first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Priority {
    /// Served first, and from a share of its own.
    Critical,
    /// Of everybody who is not named.
    Default,
    /// Served when nobody else waits; goes first when something must go.
    Sheddable,
}
