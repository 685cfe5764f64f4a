//! Which endpoint a request goes to.
//!
//! Two candidates are drawn by weight and the better one taken (P2C; Mitzenmacher, "The Power of Two Choices in Randomized
//! Load Balancing", 2001), or the policy is round robin or random. All state is atomics: threads share it without a lock.

pub(crate) mod clock;
mod draw;
mod endpoint;
mod load;
mod schedule;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rand::Rng;

pub use endpoint::{Endpoint, EndpointKey, InFlight};
pub use load::{DEFAULT_DECAY, FAILURE_PENALTY, INITIAL_LATENCY, Load, MAX_PENALTY};

use crate::resilience::health::HealthState;
use draw::Weights;
pub(crate) use draw::below;

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
}

impl Policy {
    /// The word used in resources: `peak-ewma`, …
    pub const fn as_str(self) -> &'static str {
        match self {
            Policy::PeakEwma => "peak-ewma",
            Policy::LeastRequest => "least-request",
            Policy::RoundRobin => "round-robin",
            Policy::Random => "random",
        }
    }
}

/// Endpoints of a service, or of a subset of it, that requests may go to.
#[derive(Debug)]
pub struct EndpointSet {
    policy: Policy,
    decay: Duration,
    endpoints: Box<[Arc<Endpoint>]>,
    weights: Weights,
    /// Round robin: indices in the order of their turns. Empty for other policies.
    schedule: Box<[u32]>,
    turn: AtomicUsize,
}

impl EndpointSet {
    /// A set for the endpoints given. `decay` holds for their loads from now on: it is a setting of the service, and an
    /// endpoint belongs to one service.
    pub fn new(policy: Policy, decay: Duration, endpoints: Vec<Arc<Endpoint>>) -> EndpointSet {
        for endpoint in &endpoints {
            endpoint.load.set_decay(decay);
        }
        let weights = Weights::new(endpoints.iter().map(|e| e.weight.max(1)));
        let schedule = match policy {
            Policy::RoundRobin => schedule::smooth(&weights),
            _ => Box::default(),
        };
        // Every sidecar gets a change of endpoints at the same moment: they must not all begin with the same one.
        let turn = match schedule.len() {
            0 => 0,
            len => below(&mut rand::rng(), len as u64) as usize,
        };
        EndpointSet {
            policy,
            decay,
            endpoints: endpoints.into(),
            weights,
            schedule,
            turn: AtomicUsize::new(turn),
        }
    }

    pub fn policy(&self) -> Policy {
        self.policy
    }

    pub fn decay(&self) -> Duration {
        self.decay
    }

    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// Chooses an endpoint. `None`: the set is empty, or every endpoint is [full](Load::is_full).
    ///
    /// An available one that was not tried, while there is one; else an available one; where none is available, all count
    /// as if they were.
    ///
    /// Call [`Endpoint::begin`] before the next choice, or the next choice does not see this one.
    pub fn pick(&self, rng: &mut impl Rng, tried: &[Arc<Endpoint>]) -> Option<Arc<Endpoint>> {
        let now = clock::now();
        let mut index = self.pick_at(now, rng, tried)?;
        // Nearly always it has room: no walk over the set.
        if self.endpoints[index].load.is_full() {
            index = self.pick_with_room(now, rng, tried)?;
        }
        Some(self.endpoints[index].clone())
    }

    /// As [`pick_at`](Self::pick_at), among those that are not full.
    fn pick_with_room(
        &self,
        now: u64,
        rng: &mut impl Rng,
        tried: &[Arc<Endpoint>],
    ) -> Option<usize> {
        let room = |index: usize| !self.endpoints[index].load.is_full();
        let available = |index: usize| room(index) && self.endpoints[index].health.is_available();
        let untried = |index: usize| !self.is_in(index, tried);
        let turn = match self.policy {
            Policy::RoundRobin => self.turn.fetch_add(1, Relaxed),
            _ => 0,
        };
        // With one endpoint there is no schedule; it is the one that is full.
        if self.endpoints.len() == 1 {
            return None;
        }
        self.pick_where(now, turn, rng, |i| available(i) && untried(i))
            .or_else(|| self.pick_where(now, turn, rng, available))
            .or_else(|| self.pick_where(now, turn, rng, |i| room(i) && untried(i)))
            .or_else(|| self.pick_where(now, turn, rng, room))
    }

    /// Whether no endpoint takes a request because all are as full as they may be, not because there is none.
    pub fn is_full(&self) -> bool {
        !self.is_empty() && self.endpoints.iter().all(|each| each.load.is_full())
    }

    fn pick_at(&self, now: u64, rng: &mut impl Rng, tried: &[Arc<Endpoint>]) -> Option<usize> {
        match self.endpoints.len() {
            0 => return None,
            1 => return Some(0),
            _ => {}
        }
        let available = |index: usize| self.endpoints[index].health.is_available();
        let turn = match self.policy {
            Policy::RoundRobin => self.turn.fetch_add(1, Relaxed),
            _ => 0,
        };
        if tried.is_empty() || self.all_in(tried) {
            // Nearly always all that is drawn is available: no walk over the set.
            let (first, second) = match self.policy {
                Policy::RoundRobin => (self.turned(turn, |_| true)?, None),
                Policy::Random => (self.weights.draw(rng), None),
                Policy::PeakEwma | Policy::LeastRequest => {
                    let first = self.weights.draw(rng);
                    (first, Some(self.weights.draw_other(rng, first)))
                }
            };
            if available(first) && second.is_none_or(available) {
                return Some(second.map_or(first, |second| self.better(now, first, second)));
            }
        }
        let untried = |index: usize| !self.is_in(index, tried);
        self.pick_where(now, turn, rng, |i| available(i) && untried(i))
            .or_else(|| self.pick_where(now, turn, rng, available))
            .or_else(|| self.pick_where(now, turn, rng, untried))
            .or_else(|| self.pick_where(now, turn, rng, |_| true))
    }

    /// Chooses among those that `left` allows. Walks the whole set.
    fn pick_where(
        &self,
        now: u64,
        turn: usize,
        rng: &mut impl Rng,
        left: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        Some(match self.policy {
            Policy::RoundRobin => self.turned(turn, left)?,
            Policy::Random => self.weights.draw_where(rng, left)?,
            Policy::PeakEwma | Policy::LeastRequest => {
                let first = self.weights.draw_where(rng, &left)?;
                match self
                    .weights
                    .draw_where(rng, |index| index != first && left(index))
                {
                    Some(second) => self.better(now, first, second),
                    None => first,
                }
            }
        })
    }

    /// Whether the next choice is one that was not tried.
    pub fn has_untried(&self, tried: &[Arc<Endpoint>]) -> bool {
        let all = || self.endpoints.iter();
        let untried = |endpoint: &Endpoint| !tried.iter().any(|other| other.is_same(endpoint));
        all().any(|each| each.health.is_available() && untried(each))
            || (all().any(|each| untried(each)) && !all().any(|each| each.health.is_available()))
    }

    fn is_in(&self, index: usize, tried: &[Arc<Endpoint>]) -> bool {
        let endpoint = &self.endpoints[index];
        tried.iter().any(|tried| tried.is_same(endpoint))
    }

    fn all_in(&self, tried: &[Arc<Endpoint>]) -> bool {
        (0..self.endpoints.len()).all(|index| self.is_in(index, tried))
    }

    fn better(&self, now: u64, first: usize, second: usize) -> usize {
        if self.cost(now, second) < self.cost(now, first) {
            second
        } else {
            first
        }
    }

    fn cost(&self, now: u64, index: usize) -> f64 {
        let load = &self.endpoints[index].load;
        let cost = match self.policy {
            Policy::LeastRequest => load.request_cost(now),
            _ => load.latency_cost(now),
        };
        cost / f64::from(self.weights.get(index))
    }

    /// The first in the schedule from `turn` on that `allowed` allows.
    fn turned(&self, turn: usize, allowed: impl Fn(usize) -> bool) -> Option<usize> {
        let len = self.schedule.len();
        (0..len)
            .map(|step| self.schedule[turn.wrapping_add(step) % len] as usize)
            .find(|index| allowed(*index))
    }

    /// The endpoints with their load as it stands now, in the set's order.
    pub fn stats(&self) -> Vec<EndpointStats> {
        self.endpoints
            .iter()
            .map(|endpoint| EndpointStats {
                endpoint: endpoint.clone(),
                state: EndpointState::of(endpoint),
                in_flight: endpoint.load.in_flight(),
                latency: endpoint.load.latency(),
                picks: endpoint.load.begun(),
                failures: endpoint.load.failures(),
            })
            .collect()
    }
}

/// An endpoint and its load at one moment.
#[derive(Clone, Debug)]
pub struct EndpointStats {
    pub endpoint: Arc<Endpoint>,
    pub state: EndpointState,
    pub in_flight: u32,
    /// The peak-EWMA estimate.
    pub latency: Duration,
    /// Requests sent to it.
    pub picks: u64,
    pub failures: u64,
}

/// How this sidecar sees an endpoint. Those that are not ready or draining are not in the configuration at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndpointState {
    Ready,
    /// It failed a moment ago.
    Penalised,
    /// Outlier detection took it out.
    Ejected,
    /// Active checks fail.
    Unhealthy,
    /// It was ejected, and one request decides whether it is back.
    Probing,
}

impl EndpointState {
    pub const ALL: [EndpointState; 5] = [
        EndpointState::Ready,
        EndpointState::Penalised,
        EndpointState::Ejected,
        EndpointState::Unhealthy,
        EndpointState::Probing,
    ];

    fn of(endpoint: &Endpoint) -> EndpointState {
        match endpoint.health.state() {
            HealthState::Available if endpoint.load.is_penalised() => EndpointState::Penalised,
            HealthState::Available => EndpointState::Ready,
            HealthState::Ejected => EndpointState::Ejected,
            HealthState::Unhealthy => EndpointState::Unhealthy,
            HealthState::Probing => EndpointState::Probing,
        }
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            EndpointState::Ready => "ready",
            EndpointState::Penalised => "penalised",
            EndpointState::Ejected => "ejected",
            EndpointState::Unhealthy => "unhealthy",
            EndpointState::Probing => "probing",
        }
    }
}

#[cfg(test)]
mod tests;
