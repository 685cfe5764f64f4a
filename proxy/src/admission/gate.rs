//! How many requests an application has at a time, and the queue in front of it.
//!
//! A request that finds room costs an atomic addition. The lock is for the queue, which only those meet who have to wait, and who
//! ends while others do: it is held for a few map operations, and with one worker nobody else ever has it.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::priority::{Priorities, Priority};
use super::queue::{Comer, Queue, QueueSettings, Ticket};
use super::refusals::{Limit, Refusals};
use crate::balance::clock::{self, nanos};
use crate::inference::engine::Figures;
use crate::policy::{Concurrency, ServerLimits};
use crate::telemetry::metrics::QueueWaits;

mod served;
mod settings;

use served::Fastest;
pub use served::Served;
pub use settings::Settings;

/// What is told to who waits.
type Verdict = Result<Served, Limit>;
type Teller = oneshot::Sender<Verdict>;

/// Who wants a place.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ask {
    pub priority: Priority,
    /// When the caller gives up.
    pub deadline: Option<Instant>,
    /// How long it may take to the first byte of the answer, the wait included.
    pub patience: Option<Duration>,
    /// Where callers take turns: whose it is, and about how many tokens it costs.
    pub share: Option<(u64, u32)>,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    pub limit: Limit,
    /// How long it would have had to wait, where that is known.
    pub wait: Option<Duration>,
}

impl From<Limit> for Refused {
    fn from(limit: Limit) -> Refused {
        Refused { limit, wait: None }
    }
}

/// The concurrency of one port's application. Shared by all workers and by all versions of the configuration.
#[derive(Debug)]
pub struct Gate {
    settings: ArcSwap<Settings>,
    in_use: AtomicU32,
    /// Length of the queue, to look at without its lock.
    waiting: AtomicU32,
    queue: Mutex<Queue<Teller>>,
    fastest: Fastest,
    pub refusals: Arc<Refusals>,
    pub waits: Arc<QueueWaits>,
}

impl Gate {
    pub fn new(limits: ServerLimits, refusals: Arc<Refusals>, waits: Arc<QueueWaits>) -> Arc<Gate> {
        Arc::new(Gate {
            settings: ArcSwap::from_pointee(Settings::new(limits)),
            in_use: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            queue: Mutex::default(),
            fastest: Fastest::default(),
            refusals,
            waits,
        })
    }

    /// Goes by other limits from now on. What was learnt is forgotten where it was learnt for another range.
    pub fn set(self: &Arc<Self>, limits: ServerLimits) {
        if self.settings.load().limits == limits {
            return;
        }
        let before = self.settings.load_full();
        let mut settings = Settings::new(limits);
        if let (
            Some(adaptive),
            Concurrency::Adaptive {
                min,
                max,
                tolerance,
            },
        ) = (&before.adaptive, settings.limits.concurrency)
            && adaptive.is_for(min, max, tolerance)
        {
            settings.adaptive = Some(adaptive.copy());
        }
        if let (Some(known), true) = (&before.batch, settings.batch.is_some()) {
            settings.batch = Some(Arc::clone(known));
        }
        self.settings.store(Arc::new(settings));
        // There may be more room, or no queue any more.
        self.serve_waiting();
    }

    /// The settings in effect.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// Requests at the application.
    pub fn in_use(&self) -> u32 {
        self.in_use.load(Relaxed)
    }

    /// Requests that wait.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Relaxed)
    }

    /// The priorities in effect.
    pub fn priority(&self, of: impl FnOnce(&Priorities) -> Priority) -> Priority {
        let settings = self.settings.load();
        settings
            .limits
            .priorities
            .as_ref()
            .map_or(Priority::Default, of)
    }

    /// Whether requests without an answer by the model take no place: a batch is of answers.
    pub fn is_by_batch(&self) -> bool {
        self.settings.load().batch().is_some()
    }

    /// Whether the size of a batch is to be learnt.
    pub fn learns_batch(&self) -> bool {
        let settings = self.settings.load();
        settings
            .batch()
            .is_some_and(|(_, limit)| limit.size.is_none())
    }

    /// The model server behind it says how many requests it runs at a time.
    pub fn engine_has(self: &Arc<Self>, places: u32) {
        if let Some((batch, _)) = self.settings.load().batch() {
            batch.told(places);
        }
    }

    /// What the model server behind it says of its load.
    pub fn engine_says(self: &Arc<Self>, figures: &Figures) {
        if let Some((batch, _)) = self.settings.load().batch() {
            batch.seen(figures);
        } else {
            return;
        }
        // It may have grown.
        self.serve_waiting();
    }

    /// Takes a place at the application, or waits for one.
    ///
    /// # Errors
    /// What refused it, which is counted.
    pub async fn enter(self: &Arc<Self>, ask: Ask) -> Result<Served, Refused> {
        // Nobody is overtaken.
        if self.waiting.load(SeqCst) == 0
            && let Some(served) = self.try_enter(ask.priority)
        {
            return Ok(served);
        }
        let result = self.wait(ask).await;
        if let Err(refused) = &result {
            self.refusals.count(refused.limit);
        }
        result
    }

    fn try_enter(self: &Arc<Self>, priority: Priority) -> Option<Served> {
        let most = self.settings.load().limit_for(priority);
        let taken = self.in_use.fetch_update(SeqCst, SeqCst, |in_use| {
            (in_use < most).then(|| in_use.saturating_add(1))
        });
        taken.ok().map(|before| Served {
            gate: Arc::clone(self),
            begun_at: clock::now(),
            among: before.saturating_add(1),
            queued: false,
            judged: false,
        })
    }

    async fn wait(self: &Arc<Self>, ask: Ask) -> Result<Served, Refused> {
        let Some(queue) = self.settings.load().limits.queue else {
            return Err(Limit::Concurrency.into());
        };
        let Ask {
            priority, deadline, ..
        } = ask;
        let now = Instant::now();
        let (tell, told) = oneshot::channel();
        let ticket = self.line_up(&ask, &queue, tell)?;
        let waiting = Waiting { gate: self, ticket };
        // There may have been room after all.
        self.serve_waiting();
        let patience = now.checked_add(queue.max_wait);
        let (until, limit) = match (patience, deadline) {
            (Some(patience), Some(deadline)) if deadline < patience => {
                (Some(deadline), Limit::QueueDeadline)
            }
            (patience, deadline) => (patience.or(deadline), Limit::QueueWait),
        };
        let verdict = match until {
            Some(until) => tokio::time::timeout_at(until, told).await,
            None => Ok(told.await),
        };
        drop(waiting);
        let limit = match verdict {
            Ok(Ok(Ok(served))) => {
                self.waits.observe(priority, now.elapsed());
                return Ok(served);
            }
            Ok(Ok(Err(limit))) => limit,
            // The teller is dropped without a word only with the gate.
            Ok(Err(_)) => Limit::Concurrency,
            Err(_) => limit,
        };
        let wait = self.expected_wait(&self.settings.load(), &self.queue(), &comer(&ask));
        Err(Refused { limit, wait })
    }

    fn line_up(&self, ask: &Ask, queue: &QueueSettings, tell: Teller) -> Result<Ticket, Refused> {
        let comer = comer(ask);
        let settings = self.settings.load();
        let discipline = Settings::discipline(*queue);
        let mut dropped = Vec::new();
        let mut waiting = self.queue();
        if let Some((batch, _)) = settings.batch()
            && waiting.len() == 0
        {
            batch.moved(comer.now);
        }
        let wait = self.expected_wait(&settings, &waiting, &comer);
        if let Some(wait) = wait
            && self.is_too_long(wait, ask, queue, &comer)
        {
            return Err(Refused {
                limit: Limit::ExpectedWait,
                wait: Some(wait),
            });
        }
        let pushed = waiting.push(&comer, &discipline, tell, &mut dropped);
        self.note_length(&waiting);
        drop(waiting);
        tell_dropped(dropped);
        pushed.map_err(|(_, limit)| Refused { limit, wait })
    }

    /// How long somebody who lines up now will wait. `None`: it is not known.
    fn expected_wait(
        &self,
        settings: &Settings,
        queue: &Queue<Teller>,
        comer: &Comer,
    ) -> Option<Duration> {
        let (batch, _) = settings.batch()?;
        let limit = settings.limit_for(comer.priority);
        let wait = batch.wait(comer.now, queue.ahead(comer), limit)?;
        Some(Duration::from_nanos(wait))
    }

    /// Whether a wait is longer than the queue allows, than the caller waits for the answer, or than the answer may take to
    /// begin; the last two by the application's fastest answer of late.
    fn is_too_long(&self, wait: Duration, ask: &Ask, queue: &QueueSettings, comer: &Comer) -> bool {
        let begun = wait.saturating_add(Duration::from_nanos(self.fastest.get()));
        wait > queue.max_wait
            || ask.patience.is_some_and(|patience| begun > patience)
            || comer
                .deadline
                .is_some_and(|deadline| comer.now.saturating_add(nanos(begun)) > deadline)
    }

    /// Gives free places to those who wait.
    fn serve_waiting(self: &Arc<Self>) {
        let mut dropped = Vec::new();
        while self.waiting.load(SeqCst) > 0 {
            let mut queue = self.queue();
            let Some(settings) = self.settings.load().limits.queue else {
                queue.clear(Limit::Concurrency, &mut dropped);
                self.note_length(&queue);
                break;
            };
            // Who comes first may have a higher limit than the others, never a lower one.
            let Some(mut served) = queue.first().and_then(|first| self.try_enter(first)) else {
                break;
            };
            served.queued = true;
            let discipline = Settings::discipline(settings);
            let next = queue.pop(clock::now(), self.fastest.get(), &discipline, &mut dropped);
            self.note_length(&queue);
            // What follows may end a request, which takes the lock again.
            drop(queue);
            match next {
                // Where nobody listens any more the place comes back, and is free again.
                Some((tell, _)) => drop(tell.send(Ok(served))),
                None => drop(served),
            }
        }
        tell_dropped(dropped);
    }

    fn note_length(&self, queue: &Queue<Teller>) {
        self.waiting.store(queue.len() as u32, SeqCst);
    }

    fn queue(&self) -> MutexGuard<'_, Queue<Teller>> {
        // Nothing under this lock leaves the queue half-changed.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn comer(ask: &Ask) -> Comer {
    let now = clock::now();
    let deadline = ask.deadline.map(|deadline| {
        let left = deadline.saturating_duration_since(Instant::now());
        now.saturating_add(nanos(left))
    });
    Comer {
        priority: ask.priority,
        now,
        deadline,
        share: ask.share,
    }
}

fn tell_dropped(dropped: Vec<(Teller, Limit)>) {
    for (tell, limit) in dropped {
        // Who has left meanwhile does not listen.
        let _ = tell.send(Err(limit));
    }
}

/// A request in the queue; leaves it when it is given up.
struct Waiting<'a> {
    gate: &'a Arc<Gate>,
    ticket: Ticket,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut queue = self.gate.queue();
        if queue.remove(self.ticket) {
            self.gate.note_length(&queue);
        }
    }
}

/// What a client that was refused is told to wait, whole seconds: the queue's patience, at least one.
pub(crate) fn retry_after(gate: &Gate) -> Duration {
    let settings = gate.settings.load();
    let wait = settings
        .limits
        .queue
        .map_or(Duration::ZERO, |queue| queue.max_wait);
    Duration::from_secs(wait.as_secs().max(1))
}

#[cfg(test)]
mod batching;
#[cfg(test)]
mod tests;
