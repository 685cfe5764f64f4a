//! What limits are compared with, found again by name when the configuration changes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::convert::{InboundSpec, RateLimitSpec, TokenSpec};
use crate::admission::tokens::{Counts as TokenCounts, Hub};
use crate::admission::{
    Breaker, Gate, KeyPart, Rate, RateLimit, RateLimitCounts, RateLimits, Throttle, TokenBudget,
    Usage,
};
use crate::policy::CallerLimits;
use crate::telemetry::Direction;
use crate::telemetry::metrics::Metrics;

type Name = Arc<str>;

/// State of limits as of the last snapshot.
#[derive(Debug, Default)]
pub(super) struct Admission {
    /// By service.
    usages: HashMap<Name, (Arc<Usage>, Option<Arc<Throttle>>)>,
    /// By service and port.
    gates: HashMap<(Name, u16), Arc<Gate>>,
    /// By service, policy and limit. One for all ports of the service.
    counts: HashMap<(Name, Name, Name), Counted>,
    /// The same, of tokens.
    budgets: HashMap<(Name, Name, Name), Budgeted>,
    hub: Arc<Hub>,
}

/// As [`Counted`], of tokens: the budget itself may change, its key and its windows may not.
#[derive(Debug)]
struct Budgeted {
    per: Duration,
    shared: bool,
    tokens: u64,
    key: Vec<KeyPart>,
    max_keys: u32,
    counts: Arc<TokenCounts>,
}

/// Counts of a rate limit, and what they were made for: with another rate or another key they mean something else.
#[derive(Clone, Debug)]
struct Counted {
    rate: Rate,
    key: Vec<KeyPart>,
    max_keys: u32,
    counts: Arc<RateLimitCounts>,
}

impl Admission {
    /// The limits of calls to a service.
    pub(super) fn breaker(
        &mut self,
        service: &Name,
        limits: Option<&CallerLimits>,
        metrics: &Metrics,
    ) -> Option<Arc<Breaker>> {
        let limits = limits?;
        let (usage, throttle) = self.usages.entry(service.clone()).or_default();
        *throttle = limits.throttling.map(|(ratio, window)| {
            let kept = throttle.take().filter(|old| old.is_for(ratio, window));
            kept.unwrap_or_else(|| Arc::new(Throttle::new(ratio, window)))
        });
        Some(Arc::new(Breaker {
            limits: limits.clone(),
            usage: usage.clone(),
            throttle: throttle.clone(),
            refusals: metrics.refusals(Direction::Outbound, service),
        }))
    }

    /// The concurrency of a served port.
    pub(super) fn gate(&mut self, port: &InboundSpec, metrics: &Metrics) -> Option<Arc<Gate>> {
        let limits = port.limits.as_ref()?;
        let key = (port.service.clone(), port.port);
        let gate = self.gates.entry(key).or_insert_with(|| {
            Gate::new(
                limits.clone(),
                metrics.refusals(Direction::Inbound, &port.service),
                metrics.queue_waits(&port.service),
            )
        });
        gate.set(limits.clone());
        Some(gate.clone())
    }

    /// The rate limits of a served port.
    pub(super) fn rate_limits(
        &mut self,
        port: &InboundSpec,
        metrics: &Metrics,
    ) -> Option<Arc<RateLimits>> {
        if port.rate_limits.is_empty() {
            return None;
        }
        let (mut limits, mut budgets) = (Vec::new(), Vec::new());
        for spec in &port.rate_limits {
            match spec.tokens {
                Some(tokens) => budgets.push(Arc::new(TokenBudget {
                    service: port.service.clone(),
                    policy: spec.policy.clone(),
                    name: spec.name.clone(),
                    matches: spec.matches.clone(),
                    key: spec.key.clone(),
                    tokens: tokens.tokens,
                    per: tokens.per,
                    counted: tokens.counted,
                    shared: tokens.shared,
                    hard_limit: tokens.hard_limit,
                    default_max_tokens: tokens.default_max_tokens,
                    advance: tokens.advance,
                    always_report: spec.always_report,
                    counts: self.token_counts(&port.service, spec, tokens),
                })),
                None => limits.push(RateLimit {
                    policy: spec.policy.clone(),
                    name: spec.name.clone(),
                    matches: spec.matches.clone(),
                    key: spec.key.clone(),
                    rate: spec.rate,
                    always_report: spec.always_report,
                    counts: self.counts(&port.service, spec),
                }),
            }
        }
        Some(Arc::new(RateLimits {
            limits,
            budgets,
            refusals: metrics.refusals(Direction::Inbound, &port.service),
        }))
    }

    fn counts(&mut self, service: &Name, spec: &RateLimitSpec) -> Arc<RateLimitCounts> {
        let name = (service.clone(), spec.policy.clone(), spec.name.clone());
        if let Some(counted) = self.counts.get(&name)
            && counted.rate == spec.rate
            && counted.key == spec.key
            && counted.max_keys == spec.max_keys
        {
            return counted.counts.clone();
        }
        let counts = Arc::new(RateLimitCounts::new(&spec.key, spec.max_keys));
        let counted = Counted {
            rate: spec.rate,
            key: spec.key.clone(),
            max_keys: spec.max_keys,
            counts: counts.clone(),
        };
        self.counts.insert(name, counted);
        counts
    }

    /// Where budgets ask for leases.
    pub(super) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    fn token_counts(
        &mut self,
        service: &Name,
        spec: &RateLimitSpec,
        tokens: TokenSpec,
    ) -> Arc<TokenCounts> {
        let name = (service.clone(), spec.policy.clone(), spec.name.clone());
        if let Some(budgeted) = self.budgets.get(&name)
            && budgeted.per == tokens.per
            && budgeted.shared == tokens.shared
            && (tokens.shared || budgeted.tokens == tokens.tokens)
            && budgeted.key == spec.key
            && budgeted.max_keys == spec.max_keys
        {
            return budgeted.counts.clone();
        }
        let counts = Arc::new(TokenCounts::new(&spec.key, spec.max_keys, &self.hub));
        let budgeted = Budgeted {
            per: tokens.per,
            shared: tokens.shared,
            tokens: tokens.tokens,
            key: spec.key.clone(),
            max_keys: spec.max_keys,
            counts: counts.clone(),
        };
        self.budgets.insert(name, budgeted);
        counts
    }

    /// Forgets what neither the last snapshots nor a request knows any more.
    pub(super) fn prune(&mut self) {
        self.usages
            .retain(|_, (usage, _)| Arc::strong_count(usage) > 1);
        self.gates.retain(|_, gate| Arc::strong_count(gate) > 1);
        self.counts
            .retain(|_, counted| Arc::strong_count(&counted.counts) > 1);
        self.budgets
            .retain(|_, budgeted| Arc::strong_count(&budgeted.counts) > 1);
    }
}
