//! Active checks: endpoints are asked whether they are well, over the way that requests take.
//!
//! On the control thread, one task for each endpoint and check, for as long as a service is in the configuration: that is,
//! while the application calls it.

mod probe;
mod standing;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::health::{CheckFailure, Health};
use crate::balance::{Endpoint, below};
use crate::policy::health::Check;
use crate::policy::{Snapshot, Upstream};
use crate::shared::Shared;

use probe::Prober;
use standing::Standing;

/// How soon a change of the configuration is seen.
const TICK: Duration = Duration::from_millis(100);

/// Checks under way at a time, over all services. A check is some packets; a thousand endpoints that hang must not become a
/// thousand sockets.
const MAX_UNDER_WAY: usize = 64;

/// Checks come up to so many per cent earlier or later: sidecars that started together must not ask together.
const JITTER_PERCENT: u32 = 10;

/// A new endpoint is asked within this time, or a tenth of the interval.
const FIRST_WITHIN: Duration = Duration::from_millis(500);

/// Who is asked, as the configuration describes it now.
#[derive(Clone, Debug)]
struct Subject {
    upstream: Arc<Upstream>,
    endpoint: Arc<Endpoint>,
}

/// A check of one endpoint. Dropped, it ends.
struct Running {
    check: Check,
    health: Arc<Health>,
    subject: watch::Sender<Subject>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An endpoint's health, by its address in memory, and which of the service's checks.
type Key = (usize, usize);

/// Runs until the task is dropped.
pub async fn run(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let slots = Arc::new(Semaphore::new(MAX_UNDER_WAY));
    let mut running = HashMap::new();
    let mut seen: Option<Arc<Snapshot>> = None;
    loop {
        ticks.tick().await;
        let snapshot = shared.snapshot.load_full();
        if !seen
            .as_ref()
            .is_some_and(|seen| Arc::ptr_eq(seen, &snapshot))
        {
            reconcile(&mut running, &snapshot, &shared, &slots);
            seen = Some(snapshot);
        }
    }
}

/// Starts what is new, ends what is gone, and tells the rest what has changed.
fn reconcile(
    running: &mut HashMap<Key, Running>,
    snapshot: &Snapshot,
    shared: &Arc<Shared>,
    slots: &Arc<Semaphore>,
) {
    let mut before = std::mem::take(running);
    for upstream in snapshot.upstreams() {
        for (index, check) in upstream.health.checks.iter().enumerate() {
            let endpoints = upstream.endpoints.endpoints().iter();
            for endpoint in endpoints.filter(|it| it.serves(check.what.port)) {
                let key = (Arc::as_ptr(&endpoint.health) as usize, index);
                if running.contains_key(&key) {
                    continue;
                }
                let subject = Subject {
                    upstream: Arc::clone(upstream),
                    endpoint: Arc::clone(endpoint),
                };
                let kept = before.remove(&key).filter(|kept| kept.check == *check);
                let one = match kept {
                    Some(kept) => {
                        kept.subject.send_replace(subject);
                        kept
                    }
                    None => start(index, check, subject, shared, slots),
                };
                running.insert(key, one);
            }
        }
    }
    for ((health, index), gone) in before {
        let others = running.keys().any(|(other, _)| *other == health);
        if others {
            gone.health.set_failing(index, false);
        } else {
            gone.health.forget_checks();
        }
    }
}

fn start(
    index: usize,
    check: &Check,
    subject: Subject,
    shared: &Arc<Shared>,
    slots: &Arc<Semaphore>,
) -> Running {
    let health = Arc::clone(&subject.endpoint.health);
    let (sender, receiver) = watch::channel(subject);
    let follow = follow(
        index,
        check.clone(),
        receiver,
        Arc::clone(shared),
        Arc::clone(slots),
    );
    Running {
        check: check.clone(),
        health,
        subject: sender,
        task: tokio::spawn(follow),
    }
}

async fn follow(
    index: usize,
    check: Check,
    subject: watch::Receiver<Subject>,
    shared: Arc<Shared>,
    slots: Arc<Semaphore>,
) {
    let what = &check.what;
    let mut standing = Standing::new(what.unhealthy_threshold, what.healthy_threshold);
    let mut prober = Prober::default();
    tokio::time::sleep(random_below(FIRST_WITHIN.min(what.interval / 10))).await;
    loop {
        let result = {
            // It is never closed.
            let _slot = slots.acquire().await;
            let current = subject.borrow().clone();
            let asking = prober.ask(&shared, &current.upstream, &current.endpoint, &check);
            match tokio::time::timeout(what.timeout, asking).await {
                Ok(result) => result,
                Err(_) => {
                    prober.disconnect();
                    Some(Err(format!("no answer within {:?}", what.timeout)))
                }
            }
        };
        // Without an identity of our own nothing is learnt.
        if let Some(result) = result {
            let current = subject.borrow().clone();
            current.upstream.health.outliers.count_check(result.is_ok());
            note(&current, index, &mut standing, result);
        }
        tokio::time::sleep(jittered(what.interval)).await;
    }
}

fn note(subject: &Subject, index: usize, standing: &mut Standing, result: Result<(), String>) {
    let health = &subject.endpoint.health;
    let failing = standing.note(result.is_ok());
    if let Err(text) = result {
        if failing == Some(true) {
            tracing::info!(
                service = %subject.upstream.service, address = %subject.endpoint.address,
                "the endpoint is unhealthy: {text}"
            );
        }
        health.note_failure(CheckFailure {
            text,
            at: SystemTime::now(),
        });
    }
    if failing == Some(false) {
        tracing::debug!(
            service = %subject.upstream.service, address = %subject.endpoint.address,
            "the endpoint is healthy"
        );
    }
    if let Some(failing) = failing {
        health.set_failing(index, failing);
    }
}

fn random_below(span: Duration) -> Duration {
    let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(below(&mut rand::rng(), nanos.max(1)))
}

fn jittered(interval: Duration) -> Duration {
    let spread = interval / 100 * JITTER_PERCENT;
    interval - spread + random_below(spread * 2)
}

#[cfg(test)]
mod tests;
