//! How many requests an application has at a time, and the queue in front of it.
//!
//! A request that finds room costs an atomic addition. The lock is for the queue, which only those meet who have to wait, and who
//! ends while others do: it is held for a few map operations, and with one worker nobody else ever has it.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::batch::{Batch, BatchLimit};
use super::gradient2::Gradient2;
use super::priority::{Priorities, Priority};
use super::queue::{Comer, Discipline, Queue, QueueSettings, Ticket};
use super::refusals::{Limit, Refusals};
use crate::balance::clock::{self, nanos};
use crate::inference::engine::Figures;
use crate::policy::{Concurrency, ServerLimits};
use crate::telemetry::metrics::QueueWaits;

/// How long the application's fastest answer is remembered, nanoseconds.
const FASTEST_FOR: u64 = 5_000_000_000;

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

/// What a gate goes by.
#[derive(Debug)]
pub struct Settings {
    pub limits: ServerLimits,
    /// `None`: the limit is fixed, or by batch.
    adaptive: Option<Gradient2>,
    /// What is known of the batch, where the limit goes by it.
    batch: Option<Arc<Batch>>,
}

impl Settings {
    fn new(limits: ServerLimits) -> Settings {
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
    fn limit_for(&self, priority: Priority) -> u32 {
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

    fn discipline(queue: QueueSettings) -> Discipline {
        Discipline {
            max_length: queue.max_length,
            target: nanos(queue.target),
            interval: nanos(queue.interval),
        }
    }
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
            let Some(served) = queue.first().and_then(|first| self.try_enter(first)) else {
                break;
            };
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

/// A place at the application, until this is dropped: with the last byte of the response.
#[derive(Debug)]
#[must_use = "the place is free again when this is dropped"]
pub struct Served {
    gate: Arc<Gate>,
    begun_at: u64,
    /// Requests that were there when it came, itself included.
    among: u32,
    judged: bool,
}

impl Served {
    /// The response has begun. Streams go on for as long as they have something to say: what a latency is is over here.
    pub fn first_byte(&mut self) {
        if self.judged {
            return;
        }
        self.judged = true;
        let now = clock::now();
        let latency = now.saturating_sub(self.begun_at);
        self.gate.fastest.sample(latency, now);
        let settings = self.gate.settings.load();
        if let Some(adaptive) = &settings.adaptive {
            let before = adaptive.limit();
            adaptive.sample(latency, self.gate.in_use());
            if adaptive.limit() > before {
                drop(settings);
                self.gate.serve_waiting();
            }
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some((batch, limit)) = self.gate.settings.load().batch() {
            let now = clock::now();
            batch.moved(now);
            // What was not answered says nothing of how long answers take.
            if self.judged {
                let among = self.among.max(batch.limit(limit));
                batch.ended(now.saturating_sub(self.begun_at), among);
            }
        }
        self.gate.in_use.fetch_sub(1, SeqCst);
        // Sequentially consistent on both sides: who lines up sees the free place, or is seen here.
        if self.gate.waiting.load(SeqCst) > 0 {
            self.gate.serve_waiting();
        }
    }
}

/// The application's fastest answer of late.
#[derive(Debug, Default)]
struct Fastest {
    turned_at: AtomicU64,
    current: AtomicU64,
    previous: AtomicU64,
}

impl Fastest {
    fn sample(&self, latency: u64, now: u64) {
        if now.saturating_sub(self.turned_at.load(Relaxed)) > FASTEST_FOR {
            self.turned_at.store(now, Relaxed);
            let current = self.current.swap(latency, Relaxed);
            self.previous.store(current, Relaxed);
        } else {
            self.current.fetch_min(latency, Relaxed);
        }
    }

    /// Nanoseconds; 0 where nothing is known, so that somebody is let through to find out.
    fn get(&self) -> u64 {
        if clock::now().saturating_sub(self.turned_at.load(Relaxed)) > 2 * FASTEST_FOR {
            return 0;
        }
        self.current.load(Relaxed).min(self.previous.load(Relaxed))
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
