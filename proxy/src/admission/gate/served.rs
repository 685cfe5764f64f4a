//! A place at the application, and how long answers take there.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use tokio::time::Instant;

use super::Gate;
use crate::balance::clock::{self, nanos};

/// How long the application's fastest answer is remembered, nanoseconds.
const FASTEST_FOR: u64 = 5_000_000_000;

/// A place at the application, until this is dropped: with the last byte of the response.
#[derive(Debug)]
#[must_use = "the place is free again when this is dropped"]
pub struct Served {
    pub(super) gate: Arc<Gate>,
    pub(super) begun_at: u64,
    /// Requests that were there when it came, itself included.
    pub(super) among: u32,
    pub(super) queued: bool,
    pub(super) judged: bool,
}

impl Served {
    /// It had to wait for its place.
    pub fn was_queued(&self) -> bool {
        self.queued
    }

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

impl Served {
    /// The answer has ended, and it is known when its first token came and how many tokens of its prompt were not in the cache.
    pub(crate) fn answered(&self, first_token: Instant, uncached: u32) {
        let settings = self.gate.settings.load();
        let Some((batch, limit)) = settings.batch() else {
            return;
        };
        let now = clock::now();
        let since = nanos(first_token.elapsed());
        let time = now.saturating_sub(since).saturating_sub(self.begun_at);
        let before = batch.limit(limit);
        batch.first_token(limit, now, time, uncached, self.among);
        if batch.limit(limit) > before {
            drop(settings);
            self.gate.serve_waiting();
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
pub(super) struct Fastest {
    turned_at: AtomicU64,
    current: AtomicU64,
    previous: AtomicU64,
}

impl Fastest {
    pub(super) fn sample(&self, latency: u64, now: u64) {
        if now.saturating_sub(self.turned_at.load(Relaxed)) > FASTEST_FOR {
            self.turned_at.store(now, Relaxed);
            let current = self.current.swap(latency, Relaxed);
            self.previous.store(current, Relaxed);
        } else {
            self.current.fetch_min(latency, Relaxed);
        }
    }

    /// Nanoseconds; 0 where nothing is known, so that somebody is let through to find out.
    pub(super) fn get(&self) -> u64 {
        if clock::now().saturating_sub(self.turned_at.load(Relaxed)) > 2 * FASTEST_FOR {
            return 0;
        }
        self.current.load(Relaxed).min(self.previous.load(Relaxed))
    }
}
