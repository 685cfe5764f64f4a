//! Traces: which requests leave one, and what is kept of a request until it ends.
//!
//! A request that is not sampled has nothing of this; its `traceparent` goes on as it came. A sampled one gets a span of its own
//! in place of the caller's in the header, and is told to the exporter when it has ended ([`Traces::record`]): plain data
//! through a bounded queue, as the access log has it. The exporter ([`export`]) runs on the control thread, while a mesh
//! has tracing on.

mod context;
mod export;
mod otlp;
mod span;

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::policy::Tracing;
pub(crate) use span::{Ended, Trace, TryEnd, Trying, begin};

/// Requests that wait for the exporter: some megabytes where a receiver is away, and nothing otherwise.
const QUEUE: usize = 2048;

/// What became of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Fate {
    /// The receiver has it.
    Exported,
    /// The exporter was behind.
    QueueFull,
    /// The receiver could not be reached, or did not answer.
    Unsent,
    /// The receiver refused it.
    Rejected,
}

impl Fate {
    /// In the order of the discriminants.
    pub const ALL: [Fate; 4] = [
        Fate::Exported,
        Fate::QueueFull,
        Fate::Unsent,
        Fate::Rejected,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Fate::Exported => "exported",
            Fate::QueueFull => "queue-full",
            Fate::Unsent => "unsent",
            Fate::Rejected => "rejected",
        }
    }
}

/// Who tells: attributes of all spans of a sidecar.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Teller {
    /// The service account.
    pub name: String,
    pub namespace: String,
    /// This run of the sidecar.
    pub instance: String,
    pub zone: Arc<str>,
}

/// Shared by all threads.
#[derive(Debug, Default)]
pub struct Traces {
    /// `None`: nobody wants to know.
    queue: ArcSwapOption<mpsc::Sender<Box<Ended>>>,
    fates: Arc<Fates>,
    /// Of the control thread.
    running: Mutex<Option<Running>>,
}

/// Spans by what became of them.
#[derive(Debug, Default)]
pub(crate) struct Fates([AtomicU64; Fate::ALL.len()]);

impl Fates {
    fn add(&self, fate: Fate, spans: u64) {
        self.0[fate as usize].fetch_add(spans, Relaxed);
    }
}

#[derive(Debug)]
struct Running {
    tracing: Arc<Tracing>,
    task: JoinHandle<()>,
}

impl Traces {
    /// A sampled request has ended. Never waits: where the exporter is behind, its spans are dropped and counted.
    pub(crate) fn record(&self, ended: Ended) {
        let queue = self.queue.load();
        // Where tracing was switched off meanwhile there is nobody to miss it.
        let Some(queue) = &*queue else {
            return;
        };
        let spans = ended.spans();
        if queue.try_send(Box::new(ended)).is_err() {
            self.fates.add(Fate::QueueFull, spans);
        }
    }

    /// Spans that had this fate so far.
    pub fn count(&self, fate: Fate) -> u64 {
        self.fates.0[fate as usize].load(Relaxed)
    }

    /// Whether tracing is on, or was.
    pub(crate) fn is_used(&self) -> bool {
        self.queue.load().is_some() || Fate::ALL.into_iter().any(|fate| self.count(fate) > 0)
    }

    /// A configuration is in effect: starts, changes or ends the exporter. On a runtime.
    pub(crate) fn follow(&self, wanted: Option<&Arc<Tracing>>, teller: &Teller) {
        let mut running = self.running();
        if running.as_ref().map(|it| &it.tracing) == wanted {
            return;
        }
        // The one before ends when it has told what it has.
        self.queue.store(None);
        *running = wanted.map(|tracing| {
            let (sender, receiver) = mpsc::channel(QUEUE);
            self.queue.store(Some(Arc::new(sender)));
            let exporter = export::run(
                Arc::clone(tracing),
                teller.clone(),
                receiver,
                Arc::clone(&self.fates),
            );
            Running {
                tracing: Arc::clone(tracing),
                task: tokio::spawn(exporter),
            }
        });
    }

    /// For the end of the process: waits until what was recorded is told, `patience` at most. Nothing is recorded from then on.
    pub(crate) async fn finish(&self, patience: Duration) -> bool {
        let running = self.running().take();
        self.queue.store(None);
        match running {
            Some(running) => tokio::time::timeout(patience, running.task).await.is_ok(),
            None => true,
        }
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        // Nothing under this lock leaves it half-changed.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
