//! How an endpoint of a service is chosen.

use serde::{Deserialize, Serialize};

use super::Duration;

/// How an endpoint is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LoadBalancing {
    /// Default peak-ewma.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<LoadBalancingPolicy>,
    /// Peak EWMA: how long a latency is remembered. Default 10 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ewma_decay: Option<Duration>,
    /// Policies that hash: what a request is told by; in order, what a request has is combined. Prefix affinity: what goes before the
    /// prompt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hash: Vec<HashInput>,
    /// Of the policy ring-hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring_hash: Option<RingHash>,
    /// Of the policy maglev.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maglev: Option<Maglev>,
    /// Policies that hash, prefix affinity: no endpoint takes more than this many per cent of its share of the requests under way. Unset: no
    /// bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bounded_load: Option<u32>,
    /// Unset: zones play no part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<ZonePreference>,
    /// Unset: a new endpoint has its whole weight at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<SlowStart>,
    /// Below this many per cent of available endpoints all are balanced over; 0: never. Default 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub panic_threshold: Option<u32>,
}

impl LoadBalancing {
    /// The value in effect.
    pub fn policy(&self) -> LoadBalancingPolicy {
        self.policy.unwrap_or_default()
    }

    /// The value in effect.
    pub fn ewma_decay(&self) -> Duration {
        self.ewma_decay.unwrap_or(Duration::from_secs(10))
    }

    /// The value in effect.
    pub fn panic_threshold(&self) -> u32 {
        self.panic_threshold.unwrap_or(50)
    }
}

/// Ways to choose an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoadBalancingPolicy {
    /// Two random endpoints, the one with the lower latency × load.
    #[default]
    PeakEwma,
    /// Two random endpoints, the one with fewer requests in flight.
    LeastRequest,
    /// In turn, by weight.
    RoundRobin,
    /// At random, by weight.
    Random,
    /// By a key of the request, on a ring.
    RingHash,
    /// By a key of the request, in a table.
    Maglev,
    /// The replica with the least work to do.
    ModelLoad,
    /// The replica that has the prompt's prefix in its cache.
    PrefixAffinity,
}

impl LoadBalancingPolicy {
    /// Whether requests are told apart by a key.
    pub const fn hashes(self) -> bool {
        matches!(self, Self::RingHash | Self::Maglev)
    }

    /// Whether a request may have a key.
    pub const fn takes_keys(self) -> bool {
        self.hashes() || matches!(self, Self::PrefixAffinity)
    }
}

/// Something that a request is told by: exactly one of the fields before `terminal`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HashInput {
    /// Value of this header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// Value of this cookie, which is made where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<HashCookie>,
    /// The calling workload. Only true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_identity: Option<bool>,
    /// The path, without the query. Only true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<bool>,
    /// Value of this query parameter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query_parameter: Option<String>,
    /// If a request has it, what comes behind plays no part. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<bool>,
}

/// A cookie that a request is told by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HashCookie {
    /// Its name.
    pub name: String,
    /// How long the client keeps it. Unset: until it is closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Duration>,
    /// Default `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// Settings of the policy ring-hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RingHash {
    /// Places on the ring for each endpoint of the least weight. Default 1024.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_ring_size: Option<u32>,
}

/// Settings of the policy maglev.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Maglev {
    /// Places in the table, a prime. Default 65537.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table_size: Option<u32>,
}

/// Whether endpoints of the caller's zone come first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ZonePreference {
    /// Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preference: Option<ZoneMode>,
    /// Per cent of its share that an available endpoint can take before others do. Default 140.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overprovisioning: Option<u32>,
    /// Per cent of the service's weight that must be in the caller's zone, or zones play no part. Default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_local_percent: Option<u32>,
}

impl ZonePreference {
    /// The value in effect.
    pub fn overprovisioning(self) -> u32 {
        self.overprovisioning.unwrap_or(140)
    }

    /// The value in effect.
    pub fn min_local_percent(self) -> u32 {
        self.min_local_percent.unwrap_or(0)
    }

    /// Whether it does anything.
    pub fn is_on(self) -> bool {
        self.preference == Some(ZoneMode::Prefer)
    }
}

/// What zones mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ZoneMode {
    /// Nothing.
    #[default]
    None,
    /// The own zone first, others when it is short of endpoints.
    Prefer,
}

/// New endpoints begin with a part of their weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SlowStart {
    /// Until an endpoint has its whole weight.
    pub window: Duration,
    /// 1: the weight grows evenly; more: faster at first. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aggression: Option<u32>,
    /// The weight to begin with, per cent. Default 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_percent: Option<u32>,
}

impl SlowStart {
    /// The value in effect.
    pub fn aggression(self) -> u32 {
        self.aggression.unwrap_or(1)
    }

    /// The value in effect.
    pub fn min_percent(self) -> u32 {
        self.min_percent.unwrap_or(10)
    }
}
