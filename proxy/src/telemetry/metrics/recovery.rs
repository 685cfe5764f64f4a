//! Hedges and fallbacks, counted.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

use super::{MAX_KINDS, OTHER};
use crate::policy::Cause;

/// What came of a request whose answer was slow to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum HedgeResult {
    /// Sent once more, and that one gave the answer.
    Won,
    /// Sent once more, and the one before gave the answer.
    Lost,
    /// Sent once more, and none gave a good answer.
    Failed,
    /// Not sent: the retry budget is spent.
    NoBudget,
    /// Not sent: as many retries are under way to the service as may be.
    Limit,
    /// Not sent: there is no other endpoint.
    NoEndpoint,
    /// Not sent: the request's body is not here as a whole, or too large to be kept.
    Body,
}

impl HedgeResult {
    /// In the order of the discriminants.
    pub const ALL: [HedgeResult; 7] = [
        HedgeResult::Won,
        HedgeResult::Lost,
        HedgeResult::Failed,
        HedgeResult::NoBudget,
        HedgeResult::Limit,
        HedgeResult::NoEndpoint,
        HedgeResult::Body,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            HedgeResult::Won => "won",
            HedgeResult::Lost => "lost",
            HedgeResult::Failed => "failed",
            HedgeResult::NoBudget => "no-budget",
            HedgeResult::Limit => "limit",
            HedgeResult::NoEndpoint => "no-endpoint",
            HedgeResult::Body => "body",
        }
    }
}

/// Hedges of one kind of requests.
#[derive(Debug, Default)]
pub struct Hedges([AtomicU64; HedgeResult::ALL.len()]);

impl Hedges {
    pub fn count(&self, result: HedgeResult) {
        self.0[result as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn read(&self) -> impl Iterator<Item = (HedgeResult, u64)> {
        HedgeResult::ALL
            .into_iter()
            .map(|result| (result, self.0[result as usize].load(Relaxed)))
    }
}

/// Handles for one fallback of a route, resolved once.
#[derive(Debug, Default)]
pub struct FallbackMetrics([AtomicU64; Cause::ALL.len()]);

impl FallbackMetrics {
    /// A request is handed to the fallback.
    pub fn used(&self, cause: Cause) {
        self.0[cause as usize].fetch_add(1, Relaxed);
    }
}

/// All fallbacks there were.
#[derive(Debug, Default)]
pub(super) struct Fallbacks(Mutex<HashMap<Labels, Arc<FallbackMetrics>>>);

/// Service, route, and where the fallback leads. All of them are of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Labels {
    pub(super) service: Arc<str>,
    pub(super) route: Arc<str>,
    pub(super) to: Arc<str>,
    /// The model that it asks for. Empty: the one that the request names.
    pub(super) model: Arc<str>,
}

impl Fallbacks {
    pub(super) fn get(
        &self,
        service: &str,
        route: &str,
        to: &str,
        model: &str,
    ) -> Arc<FallbackMetrics> {
        let mut labels = Labels {
            service: service.into(),
            route: route.into(),
            to: to.into(),
            model: model.into(),
        };
        // Nothing under this lock leaves the map half-changed.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_KINDS && !known.contains_key(&labels) {
            let other: Arc<str> = OTHER.into();
            labels = Labels {
                service: other.clone(),
                route: other.clone(),
                to: other.clone(),
                model: other,
            };
        }
        known.entry(labels).or_default().clone()
    }

    /// Calls back for each cause that occurred.
    pub(super) fn each_count(&self, mut each: impl FnMut(&Labels, Cause, u64)) {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (labels, metrics) in known.iter() {
            for cause in Cause::ALL {
                let count = metrics.0[cause as usize].load(Relaxed);
                if count > 0 {
                    each(labels, cause, count);
                }
            }
        }
    }
}
