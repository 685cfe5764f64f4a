//! The choice for a request to a model, by its prompt.

use std::sync::Arc;

use rand::Rng;

use super::{EndpointSet, is_in};
use crate::balance::clock;
use crate::balance::endpoint::Endpoint;
use crate::balance::model::affinity::{self, Candidate, Question};
use crate::balance::model::popularity::Popularity;
use crate::balance::model::{Asked, Picked};
use crate::balance::settings::{Policy, Settings};
use crate::telemetry::metrics::HashPick;

/// What prefix affinity keeps for a set.
#[derive(Debug)]
pub(super) struct Prompts {
    /// Outlives changes of the endpoints.
    popularity: Arc<Popularity>,
    /// Of the endpoints' addresses, in the set's order.
    hashes: Box<[u64]>,
}

impl Prompts {
    pub(super) fn new(
        settings: &Settings,
        endpoints: &[Arc<Endpoint>],
        before: Option<&EndpointSet>,
    ) -> Option<Prompts> {
        if settings.policy != Policy::PrefixAffinity {
            return None;
        }
        let before = before.and_then(|set| set.prompts.as_deref());
        let popularity = before.map(|before| Arc::clone(&before.popularity));
        let hashes = endpoints
            .iter()
            .map(|each| affinity::address_hash(each.address));
        Some(Prompts {
            popularity: popularity.unwrap_or_else(|| Arc::new(Popularity::new())),
            hashes: hashes.collect(),
        })
    }
}

impl EndpointSet {
    /// Whether a choice wants to know the prompt.
    pub fn wants_prompt(&self) -> bool {
        self.settings.policy.is_for_models()
    }

    /// Part of the prompts that came before. `None`: the set does not look at them.
    pub fn prompts_again(&self) -> Option<f32> {
        self.prompts
            .as_ref()
            .map(|prompts| prompts.popularity.again())
    }

    /// As [`pick_by`](Self::pick_by), for policies that know more of a request than a key.
    pub fn pick_for(
        &self,
        asked: &Asked<'_>,
        rng: &mut impl Rng,
        tried: &[Arc<Endpoint>],
    ) -> Option<Picked> {
        self.pick_for_at(clock::now(), asked, rng, tried)
    }

    pub(in crate::balance) fn pick_for_at(
        &self,
        now: u64,
        asked: &Asked<'_>,
        rng: &mut impl Rng,
        tried: &[Arc<Endpoint>],
    ) -> Option<Picked> {
        if let Some(prompts) = &self.prompts {
            if let Some(picked) = self.of_prompt(prompts, now, asked, rng, tried) {
                return Some(picked);
            }
            if asked.key.is_none() && asked.prompt.is_none() {
                self.metrics.hashed(HashPick::NoKey);
            }
        }
        let endpoint = self.pick_at(now, asked.key, rng, tried)?;
        Some(Picked {
            endpoint: Arc::clone(endpoint),
            uncached: asked.prompt.map_or(0, |prompt| prompt.tokens()),
        })
    }

    fn of_prompt(
        &self,
        prompts: &Prompts,
        now: u64,
        asked: &Asked<'_>,
        rng: &mut impl Rng,
        tried: &[Arc<Endpoint>],
    ) -> Option<Picked> {
        let view = self.view();
        let question = Question {
            key: asked.key,
            prompt: asked.prompt,
            again: !tried.is_empty(),
            bounded_load: self.settings.bounded_load,
        };
        let candidates = self.endpoints().iter().zip(&prompts.hashes).enumerate();
        let candidates = candidates
            .filter(|(_, (endpoint, _))| {
                !endpoint.load.is_full()
                    && (view.is_plain() || endpoint.health.is_available())
                    && !is_in(endpoint, tried)
            })
            .map(|(index, (endpoint, hash))| Candidate {
                index,
                hash: *hash,
                weight: endpoint.weight.max(1),
                work: endpoint.load.work(),
                penalty: endpoint.load.penalty_tokens(now),
            });
        let chosen = affinity::choose(now, &question, &prompts.popularity, rng, candidates)?;
        if view.is_panic() {
            self.metrics.panicked();
        }
        self.metrics.hashed(match chosen.is_owner {
            true => HashPick::Owner,
            false => HashPick::Moved,
        });
        Some(Picked {
            endpoint: Arc::clone(&self.endpoints()[chosen.index]),
            uncached: chosen.uncached,
        })
    }
}
