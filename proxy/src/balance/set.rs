//! The endpoints that requests for one backend may go to, and the choice among them.

mod keyed;
mod prompted;
mod zones;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rand::Rng;

use super::clock;
use super::endpoint::Endpoint;
use super::group::Group;
use super::settings::{Policy, Settings};
use super::table::Table;
use super::view::{View, WHOLE};
use crate::policy::HashPolicy;
use crate::resilience::health;
use crate::telemetry::metrics::{BalancingMetrics, HashPick};
use prompted::Prompts;
use zones::Zones;

/// Endpoints of a service, or of a subset of it, that requests may go to.
#[derive(Debug)]
pub struct EndpointSet {
    settings: Arc<Settings>,
    all: Group,
    /// Only with a zone preference, and with endpoints in the own zone and in others.
    zones: Option<Box<Zones>>,
    /// Only with consistent hashing.
    table: Option<Box<Table>>,
    /// Only with prefix affinity.
    prompts: Option<Box<Prompts>>,
    /// Bits of a [`View`].
    view: AtomicU64,
    /// When the last endpoint has its whole weight.
    warm_at: u64,
    metrics: Arc<BalancingMetrics>,
}

impl EndpointSet {
    /// A set with the defaults of everything but the policy, whose choices are counted nowhere.
    pub fn new(policy: Policy, decay: Duration, endpoints: Vec<Arc<Endpoint>>) -> EndpointSet {
        let settings = Settings {
            policy,
            decay,
            ..Settings::default()
        };
        EndpointSet::with(Arc::new(settings), endpoints, Arc::default(), None)
    }

    /// A set for the endpoints given. The decay holds for their loads from now on: it is a setting of the service, and an
    /// endpoint belongs to one service.
    ///
    /// `before`: the same set before the change, whose tables are used again where they are still right. To build one takes
    /// milliseconds: never do it on the data path.
    pub fn with(
        settings: Arc<Settings>,
        endpoints: Vec<Arc<Endpoint>>,
        metrics: Arc<BalancingMetrics>,
        before: Option<&EndpointSet>,
    ) -> EndpointSet {
        for endpoint in &endpoints {
            endpoint.load.set_decay(settings.decay);
        }
        let prompts = Prompts::new(&settings, &endpoints, before).map(Box::new);
        let before = before.and_then(|set| set.table.as_deref());
        let table = Table::new(&settings, &endpoints, before).map(Box::new);
        let zones = settings.zone.as_ref();
        let zones = zones.and_then(|zone| Zones::new(zone, settings.policy, &endpoints));
        let warm_at = settings.slow_start.map_or(0, |slow_start| {
            let came = endpoints.iter().filter_map(|each| each.load.came_at());
            let window = clock::nanos(slow_start.window);
            came.max().map_or(0, |newest| newest.saturating_add(window))
        });
        let set = EndpointSet {
            all: Group::new(settings.policy, endpoints),
            zones: zones.map(Box::new),
            table,
            prompts,
            view: AtomicU64::new(0),
            warm_at,
            metrics,
            settings,
        };
        set.look(health::changes());
        set
    }

    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// What requests are told by. `None`: this set does not hash.
    pub fn hash_policy(&self) -> Option<&HashPolicy> {
        // Both stand beside what a choice reads anyway.
        if self.table.is_none() && self.prompts.is_none() {
            return None;
        }
        self.settings.hash.as_deref()
    }

    pub fn policy(&self) -> Policy {
        self.settings.policy
    }

    pub fn decay(&self) -> Duration {
        self.settings.decay
    }

    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.all.endpoints
    }

    pub fn is_empty(&self) -> bool {
        self.endpoints().is_empty()
    }

    /// Whether so few endpoints are available that requests go to all of them.
    pub fn is_panic(&self) -> bool {
        !self.is_empty() && self.view().is_panic()
    }

    /// Part of the requests that stay in the own zone. `None`: zones play no part (now).
    pub fn local_share(&self) -> Option<f64> {
        self.zones.as_ref()?;
        let share = self.view().local_share()?;
        Some(share as f64 / WHOLE as f64)
    }

    /// Places on the ring or in the table.
    pub fn table_len(&self) -> Option<usize> {
        self.table.as_ref().map(|table| table.len())
    }

    /// Chooses an endpoint for a request without a key.
    /// See [`pick_by`](Self::pick_by).
    pub fn pick(&self, rng: &mut impl Rng, tried: &[Arc<Endpoint>]) -> Option<Arc<Endpoint>> {
        self.pick_by(None, rng, tried)
    }

    /// Chooses an endpoint. `None`: none may be chosen: there is none, those that may be are [full](super::Load::is_full), or
    /// none is available and the panic threshold is 0.
    ///
    /// An available one that was not tried, while there is one; else an available one. In panic all count as available.
    /// `key`: the hash of what the request is to be told by, for policies that hash.
    ///
    /// Call [`Endpoint::begin`] before the next choice, or the next choice does not see this one.
    pub fn pick_by(
        &self,
        key: Option<u64>,
        rng: &mut impl Rng,
        tried: &[Arc<Endpoint>],
    ) -> Option<Arc<Endpoint>> {
        self.pick_at(clock::now(), key, rng, tried).cloned()
    }

    pub(super) fn pick_at(
        &self,
        now: u64,
        key: Option<u64>,
        rng: &mut impl Rng,
        tried: &[Arc<Endpoint>],
    ) -> Option<&Arc<Endpoint>> {
        if self.is_empty() {
            return None;
        }
        let view = self.view();
        if view.is_panic() {
            self.metrics.panicked();
        }
        let plain = tried.is_empty() && view.is_plain() && now >= self.warm_at;
        if plain && self.table.is_none() {
            // Any may be chosen, and nearly always it has room: no walk over the set.
            let chosen = match &self.zones {
                None => self.all.draw(now, rng),
                Some(zones) => zones.group(view, rng).unwrap_or(&self.all).draw(now, rng),
            };
            if !chosen.load.is_full() {
                if self.zones.is_some() {
                    self.metrics.zoned(self.is_local(chosen));
                }
                return Some(chosen);
            }
        }
        if view.is_closed() {
            return None;
        }
        let usable = |endpoint: &Endpoint| {
            !endpoint.load.is_full() && (view.is_plain() || endpoint.health.is_available())
        };
        let untried = |endpoint: &Endpoint| !is_in(endpoint, tried);
        let first_try = |endpoint: &Endpoint| usable(endpoint) && untried(endpoint);
        let keyed = match (&self.table, key) {
            (Some(table), Some(key)) => Some((table, key)),
            (Some(_), None) => {
                self.metrics.hashed(HashPick::NoKey);
                None
            }
            (None, _) => None,
        };
        let chosen = match keyed {
            Some((table, key)) => self.of_key(table, key, first_try),
            None => self.among(now, view, rng, first_try),
        };
        match (chosen, tried, keyed) {
            (Some(_), _, _) | (None, [], _) => chosen,
            // Better one that was tried than none.
            (None, _, Some((table, key))) => self.of_key(table, key, usable),
            (None, _, None) => self.among(now, view, rng, usable),
        }
    }

    /// By the policy, and by zone where that plays a part.
    fn among(
        &self,
        now: u64,
        view: View,
        rng: &mut impl Rng,
        eligible: impl Fn(&Endpoint) -> bool,
    ) -> Option<&Arc<Endpoint>> {
        let slow_start = self.settings.slow_start.as_ref();
        let slow_start = slow_start.filter(|_| now < self.warm_at);
        let Some(zones) = &self.zones else {
            return self.all.draw_where(now, rng, slow_start, &eligible);
        };
        let chosen = match zones.group(view, rng) {
            None => self.all.draw_where(now, rng, slow_start, &eligible)?,
            Some(group) => match group.draw_where(now, rng, slow_start, &eligible) {
                Some(chosen) => chosen,
                None => zones
                    .other(group)
                    .draw_where(now, rng, slow_start, &eligible)?,
            },
        };
        self.metrics.zoned(self.is_local(chosen));
        Some(chosen)
    }

    /// This endpoint again, for a session: `None` where it is not of this set (any more), not available, full, or was tried.
    pub fn pick_same(&self, endpoint: &Endpoint, tried: &[Arc<Endpoint>]) -> Option<Arc<Endpoint>> {
        let found = self
            .endpoints()
            .iter()
            .find(|each| each.is_same(endpoint))?;
        let usable = !found.load.is_full()
            && (self.view().is_plain() || found.health.is_available())
            && !is_in(found, tried);
        usable.then(|| found.clone())
    }

    /// Whether no endpoint takes a request because those that may be chosen are as full as they may be, not because there
    /// is none.
    pub fn is_full(&self) -> bool {
        let view = self.view();
        let mut may_be_chosen = self
            .endpoints()
            .iter()
            .filter(|each| view.is_plain() || each.health.is_available())
            .peekable();
        may_be_chosen.peek().is_some() && may_be_chosen.all(|each| each.load.is_full())
    }

    /// Whether the next choice is one that was not tried.
    pub fn has_untried(&self, tried: &[Arc<Endpoint>]) -> bool {
        let view = self.view();
        self.endpoints()
            .iter()
            .any(|each| (view.is_plain() || each.health.is_available()) && !is_in(each, tried))
    }

    #[cfg(test)]
    pub(super) fn schedule(&self) -> &[u32] {
        &self.all.schedule
    }

    fn is_local(&self, endpoint: &Endpoint) -> bool {
        let zone = self.settings.zone.as_ref();
        zone.is_some_and(|zone| !zone.own.is_empty() && zone.own == endpoint.zone)
    }

    fn view(&self) -> View {
        let view = View::from_bits(self.view.load(Relaxed));
        let changes = health::changes();
        if view.changes() == changes {
            return view;
        }
        self.look(changes)
    }

    /// Looks at every endpoint. Threads that do so at the same time come to the same.
    #[cold]
    fn look(&self, changes: u32) -> View {
        let available = |endpoint: &Endpoint| endpoint.health.is_available();
        let all = self.endpoints();
        let count = all.iter().filter(|each| available(each)).count();
        let share = match (&self.zones, &self.settings.zone) {
            (Some(zones), Some(zone)) => zones.local_share(zone, available),
            _ => None,
        };
        let panic_percent = self.settings.panic_percent;
        let view = View::new(changes, count, all.len(), panic_percent, share);
        self.view.store(view.bits(), Relaxed);
        view
    }
}

fn is_in(endpoint: &Endpoint, tried: &[Arc<Endpoint>]) -> bool {
    tried.iter().any(|tried| tried.is_same(endpoint))
}
