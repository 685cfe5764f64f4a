//! Figures of requests for models.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwap;

use super::exposition::Page;
use super::{OTHER, RequestMetrics, catalog};
use crate::inference::account::ErrorType;
use crate::inference::{self, Account, ModelOutcome, Unread};
use crate::telemetry::Direction;

/// What came of looking at a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Probe {
    Read,
    TooLarge,
    Compressed,
    OtherType,
    Malformed,
    TooDeep,
    Late,
    /// A member stands twice: the request was refused.
    Ambiguous,
}

impl Probe {
    /// In the order of the discriminants.
    pub const ALL: [Probe; 8] = [
        Probe::Read,
        Probe::TooLarge,
        Probe::Compressed,
        Probe::OtherType,
        Probe::Malformed,
        Probe::TooDeep,
        Probe::Late,
        Probe::Ambiguous,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Probe::Read => "read",
            Probe::TooLarge => "too-large",
            Probe::Compressed => "compressed",
            Probe::OtherType => "other-type",
            Probe::Malformed => "malformed",
            Probe::TooDeep => "too-deep",
            Probe::Late => "late",
            Probe::Ambiguous => "ambiguous",
        }
    }
}

impl From<Unread> for Probe {
    fn from(why: Unread) -> Probe {
        match why {
            Unread::TooLarge => Probe::TooLarge,
            Unread::Compressed => Probe::Compressed,
            Unread::OtherType => Probe::OtherType,
            Unread::Malformed => Probe::Malformed,
            Unread::TooDeep => Probe::TooDeep,
            Unread::Late => Probe::Late,
        }
    }
}

/// Of all services.
#[derive(Debug, Default)]
pub struct ModelMetrics {
    probes: [AtomicU64; Probe::ALL.len()],
    /// Those that have series of their own.
    names: Mutex<HashSet<Box<str>>>,
    /// How many there are, at most.
    figures: AtomicUsize,
}

impl ModelMetrics {
    /// A request's body was looked at.
    pub fn probed(&self, result: Probe) {
        self.probes[result as usize].fetch_add(1, Relaxed);
    }

    fn write(&self, page: &mut Page) {
        for result in Probe::ALL {
            let count = self.probes[result as usize].load(Relaxed);
            if count > 0 {
                page.add(
                    catalog::MODEL_REQUESTS_READ,
                    &[result.as_str()],
                    count as f64,
                );
            }
        }
    }
}

/// Most different names of models in metrics; later ones are `other`. A server has a handful, with adapters some dozens.
const MAX_MODELS: usize = 100;
/// Most combinations of direction, service, route, peer, model and operation; later ones are `other`. About 10 MB of figures.
const MAX_FIGURES: usize = 10_000;

/// Upper bounds of the histograms, as OpenTelemetry advises
/// (<https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/>); seconds, and tokens.
const DURATION: &[f64] = &[
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
];
const FIRST_TOKEN: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];
const PER_TOKEN: &[f64] = &[
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5,
];
const TOKENS: &[f64] = &[
    1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 4194304.0,
    16777216.0, 67108864.0,
];

/// Counts by bucket, and a sum in millionths.
#[derive(Debug)]
struct Histogram {
    bounds: &'static [f64],
    /// Not cumulative; the last one is for everything above.
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Histogram {
        Histogram {
            bounds,
            buckets: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
        }
    }

    fn observe(&self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum.fetch_add((value * 1e6) as u64, Relaxed);
    }

    fn add_to(&self, sum: &mut (Vec<u64>, f64)) {
        sum.0.resize(self.buckets.len(), 0);
        for (total, bucket) in sum.0.iter_mut().zip(&self.buckets) {
            *total += bucket.load(Relaxed);
        }
        sum.1 += self.sum.load(Relaxed) as f64 / 1e6;
    }
}

/// Of one model's requests of one kind.
#[derive(Debug)]
struct Figures {
    /// `gen_ai.provider.name`; empty where it is not known.
    provider: Box<str>,
    /// Of those that went well.
    duration: Histogram,
    /// Of the others: most never happen.
    failed: [OnceLock<Box<Histogram>>; ErrorType::ALL.len()],
    first_token: Histogram,
    per_token: Histogram,
    longest_gap: Histogram,
    input: Histogram,
    output: Histogram,
    outcomes: [AtomicU64; ModelOutcome::ALL.len()],
}

impl Figures {
    fn new(provider: &str) -> Figures {
        Figures {
            provider: provider.into(),
            duration: Histogram::new(DURATION),
            failed: Default::default(),
            first_token: Histogram::new(FIRST_TOKEN),
            per_token: Histogram::new(PER_TOKEN),
            longest_gap: Histogram::new(PER_TOKEN),
            input: Histogram::new(TOKENS),
            output: Histogram::new(TOKENS),
            outcomes: Default::default(),
        }
    }

    fn add(&self, result: &inference::account::Result) {
        self.outcomes[result.outcome as usize].fetch_add(1, Relaxed);
        let duration = match result.error {
            None => &self.duration,
            Some(error) => {
                self.failed[error as usize].get_or_init(|| Box::new(Histogram::new(DURATION)))
            }
        };
        duration.observe(result.duration.as_secs_f64());
        let times = [
            (&self.first_token, result.first_token),
            (&self.per_token, result.per_token),
            (&self.longest_gap, result.longest_gap),
        ];
        for (histogram, time) in times {
            if let Some(time) = time {
                histogram.observe(time.as_secs_f64());
            }
        }
        for (histogram, tokens) in [(&self.input, result.input), (&self.output, result.output)] {
            if let Some(tokens) = tokens {
                histogram.observe(f64::from(tokens));
            }
        }
    }
}

/// The models that requests of one kind were for. A request that has ended finds its figures without a lock, unless it is the
/// first one for its model.
#[derive(Debug, Default)]
pub(super) struct ByModel {
    models: ArcSwap<Models>,
}

/// By the model that was asked for, the one that a fallback asked for in its place (empty: none), and the operation.
type Models = HashMap<(Box<str>, Box<str>, &'static str), Arc<Figures>>;

impl ByModel {
    fn find(&self, model: &str, served: &str, operation: &'static str) -> Option<Arc<Figures>> {
        // The map is small: a server has a handful of models.
        let models = self.models.load();
        let mut found = models.iter();
        found
            .find(|((name, other, of), _)| {
                **name == *model && **other == *served && *of == operation
            })
            .map(|(_, figures)| Arc::clone(figures))
    }

    fn make(
        &self,
        (model, served): (&str, &str),
        operation: &'static str,
        provider: &str,
    ) -> Arc<Figures> {
        let made = Arc::new(Figures::new(provider));
        self.models.rcu(|models| {
            let mut models = HashMap::clone(models);
            models
                .entry((model.into(), served.into(), operation))
                .or_insert_with(|| Arc::clone(&made));
            models
        });
        self.find(model, served, operation).unwrap_or(made)
    }
}

impl ModelMetrics {
    /// A request for a model has ended.
    pub(crate) fn ended(
        &self,
        kind: &RequestMetrics,
        account: &Account,
        result: &inference::account::Result,
    ) {
        let name = account.name.as_deref().unwrap_or_default();
        let operation = account.api.operation();
        let models = kind.models.get_or_init(ByModel::default);
        let served = account.served_model().map_or("", |model| &**model);
        if let Some(figures) = models.find(name, served, operation) {
            return figures.add(result);
        }
        // Names that no server has answered to are clients' inventions.
        let is_real = name.is_empty()
            || account.inference.find(name).is_some()
            || (served.is_empty() && result.outcome == ModelOutcome::Complete);
        let name = if is_real && self.admit(name) {
            name
        } else {
            OTHER
        };
        let figures = models.find(name, served, operation);
        figures
            .unwrap_or_else(|| models.make((name, served), operation, account.provider()))
            .add(result);
    }

    /// Whether there is room for the name.
    fn admit(&self, name: &str) -> bool {
        if self.figures.fetch_add(1, Relaxed) >= MAX_FIGURES {
            return false;
        }
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.contains(name) {
            return true;
        }
        names.len() < MAX_MODELS && names.insert(name.into())
    }

    pub(super) fn render(&self, page: &mut Page, kinds: &[Arc<RequestMetrics>]) {
        self.write(page);
        let mut sums: BTreeMap<_, (Vec<u64>, f64)> = BTreeMap::new();
        let mut counts: BTreeMap<_, u64> = BTreeMap::new();
        for kind in kinds {
            let Some(models) = kind.models.get() else {
                continue;
            };
            let labels = &kind.labels;
            let (direction, service) = (labels.direction, &*labels.service);
            for ((model, served, operation), figures) in models.models.load().iter() {
                let model: Arc<str> = Arc::from(&**model);
                let served: Arc<str> = Arc::from(&**served);
                let provider: Arc<str> = Arc::from(&*figures.provider);
                let duration = match direction {
                    Direction::Inbound => 0,
                    Direction::Outbound => 1,
                };
                let histograms = [
                    (duration, "", &figures.duration),
                    (2, "", &figures.first_token),
                    (3, "", &figures.per_token),
                    (4, "input", &figures.input),
                    (4, "output", &figures.output),
                    (5, "", &figures.longest_gap),
                ];
                let failed = ErrorType::ALL.into_iter().filter_map(|error| {
                    let histogram = figures.failed[error as usize].get()?;
                    Some((duration, error.as_str(), &**histogram))
                });
                for (family, token, histogram) in histograms.into_iter().chain(failed) {
                    let key = (
                        family,
                        direction,
                        service,
                        *operation,
                        (
                            Arc::clone(&model),
                            Arc::clone(&provider),
                            Arc::clone(&served),
                        ),
                        token,
                    );
                    histogram.add_to(sums.entry(key).or_default());
                }
                for outcome in ModelOutcome::ALL {
                    let count = figures.outcomes[outcome as usize].load(Relaxed);
                    if count > 0 {
                        let key = (
                            direction,
                            service,
                            *operation,
                            (Arc::clone(&model), Arc::clone(&served)),
                            outcome.as_str(),
                        );
                        *counts.entry(key).or_default() += count;
                    }
                }
                for (token, histogram) in [("input", &figures.input), ("output", &figures.output)] {
                    let tokens = histogram.sum.load(Relaxed) as f64 / 1e6;
                    if tokens > 0.0 {
                        let values = [
                            direction.as_str(),
                            service,
                            &labels.route,
                            &labels.peer,
                            operation,
                            &model,
                            &served,
                            token,
                        ];
                        page.add(catalog::MODEL_TOKENS, &values, tokens);
                    }
                }
            }
        }
        for (key, (counts, sum)) in sums {
            let (family, direction, service, operation, (model, provider, served), token) = key;
            if counts.iter().all(|count| *count == 0) {
                continue;
            }
            let direction = direction.as_str();
            let tokens: &[&str] = &[
                direction, service, operation, &provider, &model, &served, token,
            ];
            let directed = &tokens[..6];
            let plain = &tokens[1..];
            let (family, values, bounds) = match family {
                0 => (catalog::GEN_AI_SERVER_DURATION, plain, DURATION),
                1 => (catalog::GEN_AI_CLIENT_DURATION, plain, DURATION),
                2 => (catalog::GEN_AI_FIRST_TOKEN, directed, FIRST_TOKEN),
                3 => (catalog::GEN_AI_PER_TOKEN, directed, PER_TOKEN),
                4 => (catalog::GEN_AI_TOKEN_USAGE, tokens, TOKENS),
                _ => (catalog::MODEL_LONGEST_GAP, directed, PER_TOKEN),
            };
            page.add_buckets(family, values, bounds, &counts, sum);
        }
        for ((direction, service, operation, (model, served), outcome), count) in counts {
            let direction = direction.as_str();
            let values = [direction, service, operation, &model, &served, outcome];
            page.add(catalog::MODEL_REQUESTS, &values, count as f64);
        }
    }
}

#[cfg(test)]
mod tests;
