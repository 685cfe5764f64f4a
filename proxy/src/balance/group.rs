//! Endpoints that are balanced over together: all of a set, or those of one zone.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rand::Rng;

use super::below;
use super::draw::Weights;
use super::endpoint::Endpoint;
use super::model::work::Comparison;
use super::schedule;
use super::settings::{Policy, SlowStart};

#[derive(Debug)]
pub(super) struct Group {
    pub(super) endpoints: Box<[Arc<Endpoint>]>,
    policy: Policy,
    weights: Weights,
    /// Round robin: indices in the order of their turns. Empty for other policies.
    pub(super) schedule: Box<[u32]>,
    turn: AtomicUsize,
}

impl Group {
    pub(super) fn new(policy: Policy, endpoints: Vec<Arc<Endpoint>>) -> Group {
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
        Group {
            endpoints: endpoints.into(),
            policy,
            weights,
            schedule,
            turn: AtomicUsize::new(turn),
        }
    }

    /// Sum of the weights of those that count.
    pub(super) fn weight(&self, counts: impl Fn(&Endpoint) -> bool) -> u64 {
        let counted = self.endpoints.iter().filter(|endpoint| counts(endpoint));
        counted
            .map(|endpoint| u64::from(endpoint.weight.max(1)))
            .sum()
    }

    /// An endpoint by the policy, where any may be chosen. The group must not be empty.
    pub(super) fn draw(&self, now: u64, rng: &mut impl Rng) -> &Arc<Endpoint> {
        let index = match (self.endpoints.len(), self.policy) {
            (1, _) => 0,
            (_, Policy::RoundRobin) => {
                let turn = self.turn.fetch_add(1, Relaxed);
                self.schedule[turn % self.schedule.len()] as usize
            }
            (_, Policy::Random) => self.weights.draw(rng),
            _ => {
                let first = self.weights.draw(rng);
                let second = self.weights.draw_other(rng, first);
                self.better(now, first, second)
            }
        };
        &self.endpoints[index]
    }

    /// An endpoint among those that `eligible` allows. Walks the group.
    pub(super) fn draw_where(
        &self,
        now: u64,
        rng: &mut impl Rng,
        slow_start: Option<&SlowStart>,
        eligible: impl Fn(&Endpoint) -> bool,
    ) -> Option<&Arc<Endpoint>> {
        let eligible = |index: usize| eligible(&self.endpoints[index]);
        let factor = |index: usize| match slow_start {
            Some(slow_start) => self.endpoints[index].warmth(now, slow_start),
            None => 1.0,
        };
        let index = match self.policy {
            Policy::RoundRobin => self.turn_where(rng, eligible, factor)?,
            Policy::Random => self.weights.draw_by(rng, |index, weight| {
                if eligible(index) {
                    scaled(weight, factor(index))
                } else {
                    0
                }
            })?,
            _ => {
                let first = self.weights.draw_where(rng, eligible)?;
                let others = |index: usize| index != first && eligible(index);
                match self.weights.draw_where(rng, others) {
                    Some(second) => {
                        // One that has a tenth of its weight stands to the choice in a tenth of its cases. The cost
                        // alone would not do: with little load its place is the emptiest, and with two
                        // endpoints it is always one of the two.
                        let stands = |rng: &mut _, index| happens(rng, factor(index));
                        match (stands(rng, first), stands(rng, second)) {
                            (true, false) => first,
                            (false, true) => second,
                            _ => self.better(now, first, second),
                        }
                    }
                    None => first,
                }
            }
        };
        Some(&self.endpoints[index])
    }

    /// The next in the schedule that is eligible; one that has a tenth of its weight lets nine turns of ten pass.
    fn turn_where(
        &self,
        rng: &mut impl Rng,
        eligible: impl Fn(usize) -> bool,
        factor: impl Fn(usize) -> f64,
    ) -> Option<usize> {
        let len = self.schedule.len();
        let turn = self.turn.fetch_add(1, Relaxed);
        let from = |turn: usize| {
            let turns = (0..len).map(move |step| (step, turn.wrapping_add(step) % len));
            turns.map(|(step, place)| (step, self.schedule[place] as usize))
        };
        let mut first = None;
        for (step, index) in from(turn).filter(|(_, index)| eligible(*index)) {
            first.get_or_insert(index);
            if happens(rng, factor(index)) {
                // Turns that passed are over, or whoever comes after one that lets it pass would have two.
                self.turn.fetch_add(step, Relaxed);
                return Some(index);
            }
        }
        first
    }

    fn better(&self, now: u64, first: usize, second: usize) -> usize {
        let compared = self.comparison(now, [first, second].into_iter());
        if self.cost(now, &compared, second) < self.cost(now, &compared, first) {
            second
        } else {
            first
        }
    }

    fn comparison(&self, now: u64, among: impl Iterator<Item = usize>) -> Comparison {
        if !self.policy.is_for_models() {
            return Comparison::default();
        }
        Comparison::new(now, among.map(|index| self.endpoints[index].load.work()))
    }

    fn cost(&self, now: u64, compared: &Comparison, index: usize) -> f64 {
        let load = &self.endpoints[index].load;
        let cost = match self.policy {
            Policy::LeastRequest => load.request_cost(now),
            Policy::ModelLoad | Policy::PrefixAffinity => load.work_cost(now, compared),
            _ => load.latency_cost(now),
        };
        cost / f64::from(self.weights.get(index))
    }
}

impl Endpoint {
    /// The part of its weight that it has now.
    pub(super) fn warmth(&self, now: u64, slow_start: &SlowStart) -> f64 {
        match self.load.came_at() {
            None => 1.0,
            Some(came) => slow_start.factor(Duration::from_nanos(now.saturating_sub(came))),
        }
    }
}

/// A weight in thousandths, at least one.
fn scaled(weight: u32, factor: f64) -> u64 {
    ((f64::from(weight) * factor * 1000.0) as u64).max(1)
}

fn happens(rng: &mut impl Rng, probability: f64) -> bool {
    const PARTS: u64 = 1 << 32;
    probability >= 1.0 || (below(rng, PARTS) as f64) < probability * PARTS as f64
}
