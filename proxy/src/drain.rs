//! How the sidecar ends: requests that are under way are finished, new ones go elsewhere.
//!
//! The order, driven by [`Drain::run`]:
//! 1. [`Drain::start`]: not ready any more, and the control plane is told, so that callers choose other endpoints. New
//!    requests are still taken: callers that have not heard of it yet must not fail.
//! 2. [`Drain::signaled`]: listeners close; HTTP/1.1 connections end with their next response (`Connection: close`),
//!    HTTP/2 connections get a GOAWAY.
//! 3. What is under way ([`Drain::guard`]) comes to its end ([`Drain::idle`]).
//! 4. [`Drain::expired`]: at the deadline what is left is cut. It is one deadline, counted from the start.

use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// How long listeners stay open after the start if nobody says that the control plane has heard of it. One round trip to
/// the control plane and one push to the callers take milliseconds.
pub const ANNOUNCEMENT: Duration = Duration::from_secs(1);

/// Where the sidecar is on its way to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Running,
    /// Not ready; the control plane is being told; requests are still taken.
    Announcing,
    /// No new connections.
    Closing,
    /// The deadline has passed.
    Expired,
}

impl Phase {
    pub const fn as_str(self) -> &'static str {
        match self {
            Phase::Running => "running",
            Phase::Announcing => "announcing",
            Phase::Closing => "closing",
            Phase::Expired => "expired",
        }
    }
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Everything came to its end.
    Idle,
    /// So many were still under way at the deadline.
    Expired(usize),
}

/// Shared by everything that serves. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Drain {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    phase: watch::Sender<Phase>,
    /// Past `Running`. Requests ask for it, and a `watch` takes a lock.
    draining: AtomicBool,
    under_way: AtomicUsize,
    idle: Notify,
}

impl Default for Drain {
    fn default() -> Drain {
        Drain::new()
    }
}

impl Drain {
    pub fn new() -> Drain {
        Drain {
            inner: Arc::new(Inner {
                phase: watch::Sender::new(Phase::Running),
                draining: AtomicBool::new(false),
                under_way: AtomicUsize::new(0),
                idle: Notify::new(),
            }),
        }
    }

    /// Begins to drain. Calling it again changes nothing.
    pub fn start(&self) {
        self.advance(Phase::Announcing);
    }

    /// The control plane has heard that this sidecar drains, or there is nothing to tell: listeners may close. Before
    /// [`start`](Self::start) it does nothing.
    pub fn announced(&self) {
        if self.is_draining() {
            self.advance(Phase::Closing);
        }
    }

    pub fn phase(&self) -> Phase {
        *self.inner.phase.borrow()
    }

    /// From [`start`](Self::start) on.
    pub fn is_draining(&self) -> bool {
        self.inner.draining.load(Acquire)
    }

    /// Waits for [`start`](Self::start): time to tell the control plane.
    pub async fn started(&self) {
        self.reached(Phase::Announcing).await;
    }

    /// Waits for the moment to stop accepting and to let connections run out.
    pub async fn signaled(&self) {
        self.reached(Phase::Closing).await;
    }

    /// Waits for the deadline: cut what is left.
    pub async fn expired(&self) {
        self.reached(Phase::Expired).await;
    }

    /// Counts a connection or request as under way until the guard is dropped.
    pub fn guard(&self) -> DrainGuard {
        self.inner.under_way.fetch_add(1, AcqRel);
        DrainGuard {
            inner: self.inner.clone(),
        }
    }

    /// How much is under way.
    pub fn under_way(&self) -> usize {
        self.inner.under_way.load(Acquire)
    }

    /// Waits until nothing is under way.
    pub async fn idle(&self) {
        loop {
            // Made before the look: it hears of a last guard that goes in between.
            let notified = self.inner.idle.notified();
            if self.under_way() == 0 {
                return;
            }
            notified.await;
        }
    }

    /// Drains from start to end, `timeout` at most. Call it once; [`start`](Self::start) may have been called before.
    pub async fn run(&self, timeout: Duration) -> Drained {
        let deadline = Instant::now() + timeout;
        self.start();
        let announced = tokio::time::timeout(ANNOUNCEMENT.min(timeout), self.signaled()).await;
        if announced.is_err() {
            tracing::debug!("closing listeners without word from the control plane");
        }
        self.announced();
        match tokio::time::timeout_at(deadline, self.idle()).await {
            Ok(()) => Drained::Idle,
            Err(_) => {
                let left = self.under_way();
                self.advance(Phase::Expired);
                Drained::Expired(left)
            }
        }
    }

    fn advance(&self, to: Phase) {
        self.inner.draining.store(true, Release);
        self.inner.phase.send_if_modified(|phase| {
            let further = *phase < to;
            if further {
                *phase = to;
            }
            further
        });
    }

    async fn reached(&self, wanted: Phase) {
        let mut phase = self.inner.phase.subscribe();
        // The sender lives in `self`: it cannot be gone.
        let _ = phase.wait_for(|phase| *phase >= wanted).await;
    }
}

/// Something under way.
#[derive(Debug)]
#[must_use = "it counts as ended when this is dropped"]
pub struct DrainGuard {
    inner: Arc<Inner>,
}

impl Drop for DrainGuard {
    fn drop(&mut self) {
        if self.inner.under_way.fetch_sub(1, AcqRel) == 1 {
            self.inner.idle.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests;
