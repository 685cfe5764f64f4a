//! Figures of what filters of routes did.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError};

use super::catalog;
use super::exposition::Page;
use super::{MAX_KINDS, OTHER};

/// Copies of one mirror that may be under way at the same time: a mirror that does not answer must not gather tasks.
const MAX_COPIES: usize = 1024;
/// Bytes of request bodies that wait for one mirror, over all of its copies.
const MAX_BUFFERED: usize = 16 << 20;

/// What a filter did instead of, or besides, passing a request on. Changes of headers and URLs are not counted: they happen to
/// every request of the route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FilterAction {
    Redirect,
    DirectResponse,
    CorsPreflight,
    FaultDelay,
    FaultAbort,
    FaultTruncate,
}

impl FilterAction {
    /// In the order of the discriminants.
    pub const ALL: [FilterAction; 6] = [
        FilterAction::Redirect,
        FilterAction::DirectResponse,
        FilterAction::CorsPreflight,
        FilterAction::FaultDelay,
        FilterAction::FaultAbort,
        FilterAction::FaultTruncate,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            FilterAction::Redirect => "redirect",
            FilterAction::DirectResponse => "direct-response",
            FilterAction::CorsPreflight => "cors-preflight",
            FilterAction::FaultDelay => "fault-delay",
            FilterAction::FaultAbort => "fault-abort",
            FilterAction::FaultTruncate => "fault-truncate",
        }
    }
}

/// Actions of the filters of one route, for one service.
#[derive(Debug, Default)]
pub struct FilterMetrics {
    actions: [AtomicU64; FilterAction::ALL.len()],
}

impl FilterMetrics {
    pub fn count(&self, action: FilterAction) {
        self.actions[action as usize].fetch_add(1, Relaxed);
    }
}

/// How a copy ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MirrorOutcome {
    /// A whole response with a status below 500.
    Ok,
    /// A whole response with a status of 500 or above.
    Error,
    /// No connection, or it broke.
    Failed,
    NoEndpoints,
    /// The mirror took the body so much slower than the original that the buffer was full.
    TooSlow,
    /// The original's body was not read to its end.
    Cut,
    /// The response was not at its end in time.
    Timeout,
    /// Not begun: too many copies were under way.
    Skipped,
    /// Not sent: a limit of the mirror's service.
    Limited,
}

impl MirrorOutcome {
    /// In the order of the discriminants.
    pub const ALL: [MirrorOutcome; 9] = [
        MirrorOutcome::Ok,
        MirrorOutcome::Error,
        MirrorOutcome::Failed,
        MirrorOutcome::NoEndpoints,
        MirrorOutcome::TooSlow,
        MirrorOutcome::Cut,
        MirrorOutcome::Timeout,
        MirrorOutcome::Skipped,
        MirrorOutcome::Limited,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            MirrorOutcome::Ok => "ok",
            MirrorOutcome::Error => "error",
            MirrorOutcome::Failed => "failed",
            MirrorOutcome::NoEndpoints => "no-endpoints",
            MirrorOutcome::TooSlow => "too-slow",
            MirrorOutcome::Cut => "cut",
            MirrorOutcome::Timeout => "timeout",
            MirrorOutcome::Skipped => "skipped",
            MirrorOutcome::Limited => "limited",
        }
    }
}

/// Copies from one route to one backend: how they ended, and how much they hold now.
#[derive(Debug, Default)]
pub struct MirrorMetrics {
    outcomes: [AtomicU64; MirrorOutcome::ALL.len()],
    copies: AtomicUsize,
    buffered: AtomicUsize,
}

impl MirrorMetrics {
    /// Begins a copy; what is returned counts how it ends. `None`: there are too many, and this one is
    /// counted as skipped.
    pub fn begin(self: &Arc<Self>) -> Option<MirrorCopy> {
        if self.copies.fetch_add(1, Relaxed) >= MAX_COPIES {
            self.copies.fetch_sub(1, Relaxed);
            self.count(MirrorOutcome::Skipped);
            return None;
        }
        Some(MirrorCopy {
            metrics: Arc::clone(self),
            outcome: MirrorOutcome::Failed,
        })
    }

    /// Takes room for bytes that wait. `false`: there is none.
    pub(crate) fn reserve(&self, bytes: usize) -> bool {
        let fits = self.buffered.fetch_add(bytes, Relaxed) + bytes <= MAX_BUFFERED;
        if !fits {
            self.release(bytes);
        }
        fits
    }

    pub(crate) fn release(&self, bytes: usize) {
        self.buffered.fetch_sub(bytes, Relaxed);
    }

    fn count(&self, outcome: MirrorOutcome) {
        self.outcomes[outcome as usize].fetch_add(1, Relaxed);
    }
}

/// A copy under way.
#[derive(Debug)]
pub struct MirrorCopy {
    metrics: Arc<MirrorMetrics>,
    outcome: MirrorOutcome,
}

impl MirrorCopy {
    /// How it ended. A copy that is dropped without this has failed.
    pub fn end(mut self, outcome: MirrorOutcome) {
        self.outcome = outcome;
    }
}

impl Drop for MirrorCopy {
    fn drop(&mut self) {
        self.metrics.copies.fetch_sub(1, Relaxed);
        self.metrics.count(self.outcome);
    }
}

/// All handles there are. Same labels, same handle.
#[derive(Debug, Default)]
pub(super) struct Registry {
    filters: Mutex<BTreeMap<[Arc<str>; 2], Arc<FilterMetrics>>>,
    mirrors: Mutex<BTreeMap<[Arc<str>; 3], Arc<MirrorMetrics>>>,
}

impl Registry {
    pub(super) fn filters(&self, service: &str, route: &str) -> Arc<FilterMetrics> {
        get(&self.filters, [service.into(), route.into()])
    }

    pub(super) fn mirror(&self, service: &str, route: &str, backend: &str) -> Arc<MirrorMetrics> {
        get(
            &self.mirrors,
            [service.into(), route.into(), backend.into()],
        )
    }

    pub(super) fn render(&self, page: &mut Page) {
        let filters = self.filters.lock().unwrap_or_else(PoisonError::into_inner);
        for ([service, route], metrics) in filters.iter() {
            for (action, count) in FilterAction::ALL.iter().zip(&metrics.actions) {
                let count = count.load(Relaxed);
                if count > 0 {
                    let labels = [&**service, route, action.as_str()];
                    page.add(catalog::FILTER_ACTIONS, &labels, count as f64);
                }
            }
        }
        drop(filters);
        let mirrors = self.mirrors.lock().unwrap_or_else(PoisonError::into_inner);
        for ([service, route, backend], metrics) in mirrors.iter() {
            for (outcome, count) in MirrorOutcome::ALL.iter().zip(&metrics.outcomes) {
                let count = count.load(Relaxed);
                if count > 0 {
                    let labels = [&**service, route, backend, outcome.as_str()];
                    page.add(catalog::MIRRORED, &labels, count as f64);
                }
            }
        }
    }
}

fn get<const N: usize, M: Default>(
    all: &Mutex<BTreeMap<[Arc<str>; N], Arc<M>>>,
    mut labels: [Arc<str>; N],
) -> Arc<M> {
    // Nothing under these locks leaves the maps half-changed.
    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
    if all.len() >= MAX_KINDS && !all.contains_key(&labels) {
        labels = [(); N].map(|()| OTHER.into());
    }
    Arc::clone(all.entry(labels).or_default())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn tables_are_in_the_order_of_the_discriminants() {
        for (index, action) in FilterAction::ALL.into_iter().enumerate() {
            assert_eq!(action as usize, index, "{}", action.as_str());
        }
        for (index, outcome) in MirrorOutcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, index, "{}", outcome.as_str());
        }
    }

    #[test]
    fn copies_and_their_bytes_are_bounded() {
        let metrics = Arc::new(MirrorMetrics::default());
        let copies: Vec<_> = (0..MAX_COPIES).map(|_| metrics.begin().unwrap()).collect();
        assert!(metrics.begin().is_none());
        drop(copies);
        assert!(metrics.begin().is_some());
        let count = |outcome: MirrorOutcome| metrics.outcomes[outcome as usize].load(Relaxed);
        assert_eq!(count(MirrorOutcome::Skipped), 1);
        assert_eq!(count(MirrorOutcome::Failed), MAX_COPIES as u64 + 1);

        assert!(metrics.reserve(MAX_BUFFERED));
        assert!(!metrics.reserve(1));
        metrics.release(1);
        assert!(metrics.reserve(1));
    }
}
