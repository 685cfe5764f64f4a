//! How a service wants its endpoints chosen.

use std::sync::Arc;
use std::time::Duration;

use super::load::DEFAULT_DECAY;
use crate::policy::HashPolicy;

/// Below this share of available endpoints all are balanced over. Envoy's default
/// (`common_lb_config.healthy_panic_threshold`): the few that are left would only break under the load of all.
pub const DEFAULT_PANIC_PERCENT: u8 = 50;

/// Places on the ring for each unit of weight, so that every ring has at least so many. Envoy's default
/// (`ring_hash_lb_config.minimum_ring_size`), which there is for all endpoints together.
pub const DEFAULT_RING_SIZE: u32 = 1024;

/// Places on the ring, at most, whatever the weights: 16 bytes each.
pub const MAX_RING_SIZE: u32 = 262_144;

/// Places in the Maglev table: the prime of the paper (Eisenbud et al., NSDI 2016, section 5.3) and of Envoy.
pub const DEFAULT_MAGLEV_SIZE: u32 = 65_537;

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Policy {
    /// P2C by latency × (in flight + 1) / weight.
    #[default]
    PeakEwma,
    /// P2C by (in flight + 1) / weight.
    LeastRequest,
    /// Smooth weighted round robin. Load and failures play no part.
    RoundRobin,
    /// By weight. Load and failures play no part.
    Random,
    /// Consistent hashing on a ring (ketama). Requests without a key are balanced as by `PeakEwma`.
    RingHash,
    /// Consistent hashing in a table: more even than the ring, moves a few keys more. Without a key as `RingHash`.
    Maglev,
    /// The least work to do: prompt tokens to read, streams, what endpoints report.
    ModelLoad,
    /// The endpoint that has the prompt's prefix in its cache, while it is not much busier than others.
    PrefixAffinity,
}

impl Policy {
    pub const ALL: [Policy; 8] = [
        Policy::PeakEwma,
        Policy::LeastRequest,
        Policy::RoundRobin,
        Policy::Random,
        Policy::RingHash,
        Policy::Maglev,
        Policy::ModelLoad,
        Policy::PrefixAffinity,
    ];

    /// The word used in resources: `peak-ewma`, …
    pub const fn as_str(self) -> &'static str {
        match self {
            Policy::PeakEwma => "peak-ewma",
            Policy::LeastRequest => "least-request",
            Policy::RoundRobin => "round-robin",
            Policy::Random => "random",
            Policy::RingHash => "ring-hash",
            Policy::Maglev => "maglev",
            Policy::ModelLoad => "model-load",
            Policy::PrefixAffinity => "prefix-affinity",
        }
    }

    /// Whether it goes by what requests to models are.
    pub const fn is_for_models(self) -> bool {
        matches!(self, Policy::ModelLoad | Policy::PrefixAffinity)
    }
}

/// All settings of one service's balancing.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub policy: Policy,
    /// How long peak EWMA remembers a latency.
    pub decay: Duration,
    /// 0 to 100. 0: endpoints that are not available never get requests.
    pub panic_percent: u8,
    /// Ring hash: places for each unit of weight.
    pub ring_size: u32,
    /// Maglev: number of places, a prime.
    pub maglev_size: u32,
    /// What requests are told by. `None`: the policy does not hash, or requests bring no key.
    pub hash: Option<Arc<HashPolicy>>,
    /// Consistent hashing: no endpoint takes more than this many per cent of its share of what is in flight; a key whose
    /// endpoint is full goes to the next one. Above 100. `None`: without a bound.
    pub bounded_load: Option<u32>,
    pub zone: Option<ZonePreference>,
    pub slow_start: Option<SlowStart>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            policy: Policy::default(),
            decay: DEFAULT_DECAY,
            panic_percent: DEFAULT_PANIC_PERCENT,
            ring_size: DEFAULT_RING_SIZE,
            maglev_size: DEFAULT_MAGLEV_SIZE,
            hash: None,
            bounded_load: None,
            zone: None,
            slow_start: None,
        }
    }
}

/// Endpoints of the sidecar's own zone come first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZonePreference {
    /// The zone of this sidecar; empty: it has none, and the preference does nothing.
    pub own: Arc<str>,
    /// Per cent: how much more than its share an available endpoint can take. Local endpoints get
    /// min(1, this × available / all of them) of the requests, others the rest. Envoy's overprovisioning factor, 140 there.
    pub overprovisioning: u32,
    /// Per cent of the service's weight that must be local, or zones play no part: a zone with one endpoint of twenty is
    /// not to take all requests of its callers.
    pub min_local_percent: u8,
}

impl ZonePreference {
    /// Envoy's default.
    pub const OVERPROVISIONING: u32 = 140;
}

/// Endpoints that come later begin with a part of their weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowStart {
    /// Until an endpoint has its whole weight.
    pub window: Duration,
    /// 1: the weight grows evenly; more: faster at first.
    pub aggression: u32,
    /// The weight to begin with, per cent.
    pub min_percent: u8,
}

impl SlowStart {
    /// Part of its weight that an endpoint has at this age: max(min, (age / window)^(1 / aggression)), as in Envoy
    /// (`slow_start_config`).
    pub(super) fn factor(&self, age: Duration) -> f64 {
        if age >= self.window {
            return 1.0;
        }
        let part = age.as_secs_f64() / self.window.as_secs_f64();
        let grown = match self.aggression {
            0 | 1 => part,
            more => part.powf(1.0 / f64::from(more)),
        };
        grown.max(f64::from(self.min_percent) / 100.0).min(1.0)
    }
}
