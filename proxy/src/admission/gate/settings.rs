//! What a gate goes by.

use std::sync::Arc;

use super::super::batch::{Batch, BatchLimit};
use super::super::gradient2::Gradient2;
use super::super::priority::Priority;
use super::super::queue::{Discipline, QueueSettings};
use crate::balance::clock::nanos;
use crate::policy::{Concurrency, ServerLimits};

/// What a gate goes by.
#[derive(Debug)]
pub struct Settings {
    pub limits: ServerLimits,
    /// `None`: the limit is fixed, or by batch.
    pub(super) adaptive: Option<Gradient2>,
    /// What is known of the batch, where the limit goes by it.
    pub(super) batch: Option<Arc<Batch>>,
}

impl Settings {
    pub(super) fn new(limits: ServerLimits) -> Settings {
        let adaptive = match limits.concurrency {
            Concurrency::Fixed(_) | Concurrency::Batch(_) => None,
            Concurrency::Adaptive {
                min,
                max,
                tolerance,
            } => Some(Gradient2::new(min, max, tolerance)),
        };
        let by_batch = matches!(limits.concurrency, Concurrency::Batch(_));
        Settings {
            limits,
            adaptive,
            batch: by_batch.then(Arc::default),
        }
    }

    /// What is known of the model server's batch, where the limit goes by it.
    pub fn batch(&self) -> Option<(&Arc<Batch>, &BatchLimit)> {
        match (&self.batch, &self.limits.concurrency) {
            (Some(batch), Concurrency::Batch(limit)) => Some((batch, limit)),
            _ => None,
        }
    }

    /// Requests at a time.
    pub fn limit(&self) -> u32 {
        match (&self.adaptive, &self.limits.concurrency) {
            (Some(adaptive), _) => adaptive.limit(),
            (None, Concurrency::Fixed(limit)) => *limit,
            (None, Concurrency::Adaptive { min, .. }) => *min,
            (None, Concurrency::Batch(limit)) => match &self.batch {
                Some(batch) => batch.limit(limit),
                None => limit.start,
            },
        }
    }

    /// Requests of this priority at a time.
    pub(super) fn limit_for(&self, priority: Priority) -> u32 {
        let limit = self.limit();
        if let Some((batch, by)) = self.batch() {
            // On top: what is kept free for them would be missing in the batch.
            let (size, _) = batch.size(by);
            return match &self.limits.priorities {
                Some(priorities) if priority == Priority::Critical => {
                    let reserved = (u64::from(size) * u64::from(priorities.reserved)).div_ceil(100);
                    limit.saturating_add(reserved as u32)
                }
                _ => limit,
            };
        }
        let reserved = match &self.limits.priorities {
            Some(priorities) if priority != Priority::Critical => priorities.reserved,
            _ => return limit,
        };
        let reserved = (u64::from(limit) * u64::from(reserved)).div_ceil(100);
        // Others are not locked out where the limit is small.
        limit.saturating_sub(reserved as u32).max(1)
    }

    pub(super) fn discipline(queue: QueueSettings) -> Discipline {
        Discipline {
            max_length: queue.max_length,
            target: nanos(queue.target),
            interval: nanos(queue.interval),
        }
    }
}
