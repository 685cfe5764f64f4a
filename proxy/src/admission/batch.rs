//! A limit by the batch of a model server, and how long a request will wait for its turn.
//!
//! An engine with continuous batching takes the next request in the moment that a sequence of its batch ends. Requests beyond
//! the batch gain nothing by being there: it works on them no sooner, and serves them in an order of its own. One of them must be there
//! all the same, or a place of the batch stays empty for as long as the next one needs to come. So the limit is the batch, and a
//! *head room* of some per cent of it, one at least.
//!
//! How long a request waits follows from how fast places get free, which is Little's law:
//!
//! ```text
//! wait  = (ahead + 1) × turn
//! turn ← turn + (hold / n − turn) / 32          for each request that was answered and has ended
//! turn  = max(turn, silence / limit)
//! ```
//!
//! `turn` is the time from one place that gets free to the next, `ahead` those who have their turn before, and `hold` the time from a place
//! taken to the last byte of the response. `n` is the limit, or the requests that were there when it came where those were more (before
//! a batch was learnt): the last of them has held its place until all have ended. `silence` is how long somebody waits and no place
//! got free: of a server that hangs no request ends that could tell. Before the first one has ended the wait is unknown,
//! and nobody is refused because of it.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::time::Duration;

use super::first_tokens::FirstTokens;
use crate::identity::SpiffeId;
use crate::inference::engine::Figures;

/// Weight of a sample in the mean time from turn to turn: about as many answers as a batch has places, of which some have ten
/// tokens and some a thousand.
const WEIGHT: f64 = 1.0 / 32.0;

/// What is left of the difference when an engine runs fewer than it did, while others wait for it.
const SHRINK: u32 = 8;

/// A limit by batch, as it is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimit {
    /// Requests that the engine runs at the same time. `None`: learnt.
    pub size: Option<u32>,
    /// Requests beyond the batch, percent of it; one at least.
    pub head_room: u32,
    /// The batch until it is learnt.
    pub start: u32,
    /// The batch is never taken for larger.
    pub max: u32,
}

/// Where the size of a batch is known from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Configured.
    Declared,
    /// The engine says how many places it has.
    Told,
    /// It ran so many while others waited.
    Learnt,
    /// It says nothing, and its first tokens take longer where there are more.
    FirstTokens,
    /// Not known yet.
    Start,
}

impl Source {
    /// The word users see.
    pub const fn as_str(self) -> &'static str {
        match self {
            Source::Declared => "declared",
            Source::Told => "told",
            Source::Learnt => "learnt",
            Source::FirstTokens => "first-tokens",
            Source::Start => "start",
        }
    }
}

/// What is known of an engine's batch and its speed. Shared by all threads: an update that two make at once may be lost, which is
/// one sample of many.
#[derive(Debug)]
pub struct Batch {
    /// Places that the engine says it has; 0: it does not say.
    told: AtomicU32,
    /// 0: unknown.
    learnt: AtomicU32,
    /// Requests that ran in the last look while others waited; 0: none waited.
    full_before: AtomicU32,
    /// The engine has said what runs and what waits.
    speaks: AtomicBool,
    first_tokens: FirstTokens,
    /// Bits of an `f64`, nanoseconds; 0: unknown.
    turn: AtomicU64,
    /// When a place got free last, or somebody began to wait.
    moved_at: AtomicU64,
    /// Nobody is to choose whom he shares a hash with.
    hasher: RandomState,
}

impl Default for Batch {
    fn default() -> Batch {
        Batch {
            told: AtomicU32::new(0),
            learnt: AtomicU32::new(0),
            full_before: AtomicU32::new(0),
            speaks: AtomicBool::new(false),
            first_tokens: FirstTokens::default(),
            turn: AtomicU64::new(0),
            moved_at: AtomicU64::new(0),
            hasher: RandomState::new(),
        }
    }
}

impl Batch {
    /// Requests that the engine runs at the same time, and where that is known from.
    pub fn size(&self, limit: &BatchLimit) -> (u32, Source) {
        if let Some(size) = limit.size {
            return (size, Source::Declared);
        }
        let told = self.told.load(Relaxed);
        let learnt = self.learnt.load(Relaxed);
        let (size, source) = match (told, learnt) {
            (0, 0) => match self.first_tokens.limit() {
                Some(size) if !self.speaks.load(Relaxed) => (size, Source::FirstTokens),
                _ => (limit.start, Source::Start),
            },
            (0, learnt) => (learnt, Source::Learnt),
            // What it does is more than what it says.
            (told, learnt) if learnt > told => (learnt, Source::Learnt),
            (told, _) => (told, Source::Told),
        };
        (size.clamp(1, limit.max.max(1)), source)
    }

    /// Requests at a time: the batch and its head room.
    pub fn limit(&self, limit: &BatchLimit) -> u32 {
        let (size, _) = self.size(limit);
        let room = (u64::from(size) * u64::from(limit.head_room)).div_ceil(100);
        size.saturating_add((room as u32).max(1))
    }

    /// The engine says how many places it has.
    pub fn told(&self, places: u32) {
        self.told.store(places, Relaxed);
    }

    /// The engine's metrics were read. Where some wait, those that run are its batch: with two looks in a row, because between two
    /// steps of an engine a request that has just come waits too. Where it runs more than was known it can; where it runs
    /// fewer while some wait (its KV cache is full) it goes down by an eighth of the difference with each look.
    pub fn seen(&self, figures: &Figures) {
        let (Some(running), Some(waiting)) = (figures.running, figures.waiting) else {
            return;
        };
        self.speaks.store(true, Relaxed);
        let full = if waiting > 0 { running } else { 0 };
        let before = self.full_before.swap(full, Relaxed);
        let known = self.learnt.load(Relaxed);
        let next = if known > 0 && running > known {
            running
        } else if full > 0 && before > 0 {
            let size = full.max(before);
            match known.checked_sub(size) {
                None | Some(0) => size,
                Some(less) => known - less.div_ceil(SHRINK),
            }
        } else {
            return;
        };
        self.learnt.store(next, Relaxed);
    }

    /// The first token of an answer came after `time` nanoseconds. `among`: requests that were there when it came, itself included.
    pub(super) fn first_token(
        &self,
        limit: &BatchLimit,
        now: u64,
        time: u64,
        uncached: u32,
        among: u32,
    ) {
        if limit.size.is_none() && !self.speaks.load(Relaxed) {
            let bounds = (limit.start, limit.max);
            self.first_tokens.sample(now, time, uncached, among, bounds);
        }
    }

    /// A request that was answered has ended after `hold` nanoseconds, one of `among`.
    pub(crate) fn ended(&self, hold: u64, among: u32) {
        let sample = (hold as f64 / f64::from(among.max(1))).max(1.0);
        let before = f64::from_bits(self.turn.load(Relaxed));
        let turn = if before == 0.0 {
            sample
        } else {
            before + (sample - before) * WEIGHT
        };
        self.turn.store(turn.to_bits(), Relaxed);
    }

    /// A place is free, or the first one begins to wait.
    pub(super) fn moved(&self, now: u64) {
        self.moved_at.store(now, Relaxed);
    }

    /// How long who has `ahead` before him will wait, nanoseconds. `None`: it is not known.
    pub(super) fn wait(&self, now: u64, ahead: u64, limit: u32) -> Option<u64> {
        let turn = f64::from_bits(self.turn.load(Relaxed));
        if turn == 0.0 {
            return None;
        }
        let silence = now.saturating_sub(self.moved_at.load(Relaxed));
        let turn = turn.max(silence as f64 / f64::from(limit.max(1)));
        // Casts of floats saturate.
        Some((turn * (ahead as f64 + 1.0)) as u64)
    }

    /// Mean time from one turn to the next. `None`: it is not known.
    pub fn turn(&self) -> Option<Duration> {
        let turn = f64::from_bits(self.turn.load(Relaxed));
        (turn > 0.0).then(|| Duration::from_nanos(turn as u64))
    }

    /// Whom a request is of, as a number. Those without an identity are one.
    pub fn caller(&self, identity: Option<&SpiffeId>) -> u64 {
        self.hasher.hash_one(identity.map_or("", SpiffeId::as_str))
    }
}

#[cfg(test)]
mod tests;
