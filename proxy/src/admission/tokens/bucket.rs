//! What is left of a key's tokens in one window, and the table of the keys.
//!
//! A bucket belongs to its window: with the next one another takes its place in the table, and who still holds the old one settles
//! there. What may be reserved is one number, so that requests on all workers and the control side, which adds leases and takes
//! them back, need no lock.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;

/// Places of a set.
const WAYS: usize = 8;
/// Shared buckets.
const SHARED: usize = 256;

/// Says which key it is, the same in all sidecars.
pub(crate) type Digest = [u8; 16];

/// A key's tokens in a window.
#[derive(Debug)]
pub(crate) struct Bucket {
    pub(crate) digest: Digest,
    /// The key for people.
    pub(crate) label: Box<str>,
    /// Number of the window.
    pub(crate) window: u64,
    /// Tokens that may still be reserved. Below zero: more was used than there was.
    free: AtomicI64,
    /// Leased, or the whole budget where it is not shared.
    held: AtomicU64,
    /// May be given away although it is not leased. None with the control plane's first answer.
    advance: AtomicU64,
    /// A lease is asked for where less is free. `i64::MAX`: at once.
    low: AtomicI64,
    /// Most tokens that a request was refused since the control plane was asked.
    pub(super) short: AtomicU64,
    /// It is in the list of those that want a lease.
    pub(super) wanting: AtomicBool,
    /// It is in the list of those that hold a lease.
    pub(super) listed: AtomicBool,
    /// The control plane has answered.
    answered: AtomicBool,
    /// No lease is asked for before this time, nanoseconds: there was none.
    quiet_until: AtomicU64,
    /// Of the budget, nobody's as of the last answer.
    left: AtomicU64,
    /// When something was reserved last, nanoseconds.
    touched: AtomicU64,
    /// Of the next window, leased ahead.
    next: OnceLock<Arc<Bucket>>,
}

impl Bucket {
    /// `held`: what it has from the start.
    pub(crate) fn new(
        digest: Digest,
        label: Box<str>,
        window: u64,
        held: u64,
        advance: u64,
    ) -> Bucket {
        Bucket {
            digest,
            label,
            window,
            free: AtomicI64::new(signed(held.saturating_add(advance))),
            held: AtomicU64::new(held),
            advance: AtomicU64::new(advance),
            low: AtomicI64::new(i64::MAX),
            short: AtomicU64::new(0),
            wanting: AtomicBool::new(false),
            listed: AtomicBool::new(false),
            answered: AtomicBool::new(false),
            quiet_until: AtomicU64::new(0),
            left: AtomicU64::new(0),
            touched: AtomicU64::new(0),
            next: OnceLock::new(),
        }
    }

    /// Takes so many tokens, if they are there. Nothing is taken of an empty bucket, not even nothing.
    pub(super) fn take(&self, tokens: u64, now: u64) -> bool {
        let tokens = signed(tokens);
        self.touched.store(now, Relaxed);
        self.free
            .fetch_update(Relaxed, Relaxed, |free| {
                (free >= tokens.max(1)).then(|| free - tokens)
            })
            .is_ok()
    }

    /// Adds what was not used, or takes what was used too much, whether it is there or not.
    pub(super) fn settle(&self, back: i64) {
        self.free.fetch_add(back, Relaxed);
    }

    pub(crate) fn free(&self) -> i64 {
        self.free.load(Relaxed)
    }

    pub(crate) fn held(&self) -> u64 {
        self.held.load(Relaxed)
    }

    /// Reserved and used.
    pub(crate) fn used(&self) -> u64 {
        let given = self.held() + self.advance.load(Relaxed);
        u64::try_from(signed(given) - self.free()).unwrap_or(0)
    }

    pub(super) fn is_low(&self) -> bool {
        self.free() < self.low.load(Relaxed)
    }

    pub(super) fn may_ask(&self, now: u64) -> bool {
        now >= self.quiet_until.load(Relaxed)
    }

    /// There is no lease for now.
    pub(super) fn be_quiet_until(&self, then: u64) {
        self.quiet_until.store(then, Relaxed);
    }

    pub(crate) fn is_answered(&self) -> bool {
        self.answered.load(Relaxed)
    }

    /// Nobody's, as of the last answer.
    pub(super) fn left(&self) -> u64 {
        self.left.load(Relaxed)
    }

    pub(crate) fn touched(&self) -> u64 {
        self.touched.load(Relaxed)
    }

    /// What the control plane has answered; on the control side alone. `held`: what is leased now.
    pub(crate) fn answer(&self, held: u64, left: u64) {
        let before = self.held.swap(held, Relaxed);
        let advance = self.advance.swap(0, Relaxed);
        // What was given away in advance is paid for with the lease.
        let more = signed(held) - signed(before) - signed(advance);
        let free = self.free.fetch_add(more, Relaxed) + more;
        // Half of what is there now is time enough to ask for more.
        self.low.store(free.max(0) / 2 + 1, Relaxed);
        self.left.store(left, Relaxed);
        self.answered.store(true, Relaxed);
    }

    /// Takes out what is free but for so many tokens, to give it back; on the control side alone. Returns how much it was.
    pub(crate) fn give_up(&self, keep: u64) -> u64 {
        let keep = signed(keep);
        let before = self
            .free
            .fetch_update(Relaxed, Relaxed, |free| (free > keep).then_some(keep));
        let Ok(before) = before else { return 0 };
        let out = u64::try_from(before - keep).unwrap_or(0);
        self.held.fetch_sub(out, Relaxed);
        self.low.store(keep / 2 + 1, Relaxed);
        out
    }

    /// The same key in the next window.
    pub(crate) fn next(&self, advance: u64) -> &Arc<Bucket> {
        self.next.get_or_init(|| {
            let label = self.label.clone();
            Arc::new(Bucket::new(self.digest, label, self.window + 1, 0, advance))
        })
    }
}

/// Tokens are bounded by the contract far below this.
fn signed(tokens: u64) -> i64 {
    i64::try_from(tokens).unwrap_or(i64::MAX / 4)
}

/// Buckets by key: sets of eight places, as in [`KeyTable`](crate::admission::KeyTable). A place whose window is over may be taken.
#[derive(Debug)]
pub(super) struct BucketTable {
    /// Its seed is random: nobody can make keys for one set.
    hasher: RandomState,
    sets: Box<[[ArcSwapOption<Bucket>; WAYS]]>,
    /// For keys that find no place, told apart by the caller.
    shared: Box<[ArcSwapOption<Bucket>]>,
    crowded: AtomicU64,
}

/// What a bucket is for.
pub(super) struct Wanted<'a, H> {
    pub(super) digest: Digest,
    pub(super) window: u64,
    /// Who shares a bucket with himself where there is no place.
    pub(super) caller: &'a H,
    /// His digest.
    pub(super) crowd: &'a dyn Fn() -> Digest,
    pub(super) make: &'a dyn Fn(Digest) -> Bucket,
    pub(super) advance: u64,
}

impl BucketTable {
    /// For at least so many keys; 1: for all requests together.
    pub(super) fn new(keys: u32) -> BucketTable {
        // Twice as many places: sets fill unevenly.
        let sets = (keys as usize * 2).div_ceil(WAYS).next_power_of_two();
        let shared = if keys > 1 { SHARED } else { 1 };
        BucketTable {
            hasher: RandomState::new(),
            sets: (0..sets).map(|_| Default::default()).collect(),
            shared: (0..shared).map(|_| ArcSwapOption::empty()).collect(),
            crowded: AtomicU64::new(0),
        }
    }

    pub(super) fn crowded(&self) -> u64 {
        self.crowded.load(Relaxed)
    }

    pub(super) fn bucket<H: Hash>(&self, wanted: &Wanted<'_, H>) -> Arc<Bucket> {
        let hash = self.hasher.hash_one(wanted.digest);
        let set = &self.sets[hash as usize & (self.sets.len() - 1)];
        loop {
            let is_own = |place: &&ArcSwapOption<Bucket>| {
                place
                    .load()
                    .as_ref()
                    .is_some_and(|bucket| bucket.digest == wanted.digest)
            };
            let is_over = |place: &&ArcSwapOption<Bucket>| {
                place
                    .load()
                    .as_ref()
                    .is_none_or(|bucket| bucket.window < wanted.window)
            };
            let place = set.iter().find(is_own).or_else(|| set.iter().find(is_over));
            if let Some(place) = place {
                if let Some(bucket) = enter(place, wanted, wanted.digest) {
                    return bucket;
                }
                continue;
            }
            self.crowded.fetch_add(1, Relaxed);
            let place = self.hasher.hash_one(wanted.caller) as usize % self.shared.len();
            let place = &self.shared[place];
            // Whoever came first in this window has given it its name.
            let present = place.load_full();
            if let Some(bucket) = present.filter(|bucket| bucket.window >= wanted.window) {
                return bucket;
            }
            if let Some(bucket) = enter(place, wanted, (wanted.crowd)()) {
                return bucket;
            }
        }
    }
}

/// The bucket of a place, made or renewed where need be. `None`: somebody else was faster; look again.
fn enter<H>(
    place: &ArcSwapOption<Bucket>,
    wanted: &Wanted<'_, H>,
    digest: Digest,
) -> Option<Arc<Bucket>> {
    let present = place.load();
    let new = match &*present {
        Some(bucket) if bucket.digest == digest => {
            // A clock that was put right may have led others to the next window.
            if bucket.window >= wanted.window {
                return Some(Arc::clone(bucket));
            }
            if bucket.window + 1 == wanted.window && bucket.next.get().is_some() {
                Arc::clone(bucket.next(wanted.advance))
            } else {
                Arc::new((wanted.make)(digest))
            }
        }
        Some(bucket) if bucket.window >= wanted.window => return None,
        _ => Arc::new((wanted.make)(digest)),
    };
    let before = place.compare_and_swap(&present, Some(Arc::clone(&new)));
    let is_same = match (&*before, &*present) {
        (None, None) => true,
        (Some(before), Some(present)) => Arc::ptr_eq(before, present),
        _ => false,
    };
    is_same.then_some(new)
}
