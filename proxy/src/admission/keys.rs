//! The buckets of a rate limit by key, in a table whose size never changes.
//!
//! Sets of eight places, as in a processor's cache; a key has its place in one set. A place may be taken over when the bucket
//! in it is full again, which loses nothing. Where all eight are in use, the key shares a bucket with others that found no place:
//! nobody who is being counted is ever displaced, however many keys somebody makes up. Shared buckets are told apart by the
//! caller, so that who makes keys up shares with himself.
//!
//! Everything is an atomic and there is no lock, whichever the number of workers. Two workers that see a key for the first time
//! in the same moment, and a place in the same set run out in between, may give it two places: one burst too many, once.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// Places of a set.
const WAYS: usize = 8;
/// Shared buckets.
const SHARED: usize = 256;

/// Buckets by key.
#[derive(Debug)]
pub struct KeyTable {
    /// Its seed is random: nobody can make keys for one set.
    hasher: RandomState,
    sets: Box<[[Place; WAYS]]>,
    shared: Box<[AtomicU64]>,
    /// Times a key found no place.
    crowded: AtomicU64,
}

#[derive(Debug, Default)]
struct Place {
    /// Hash of the key; 0: none. Two keys of one hash share a bucket: one in 2⁶⁴.
    key: AtomicU64,
    /// See [`Rate`](super::Rate).
    time: AtomicU64,
}

impl KeyTable {
    /// For at least so many keys.
    pub fn new(keys: u32) -> KeyTable {
        // Twice as many places: sets fill unevenly.
        let sets = (keys as usize * 2).div_ceil(WAYS).next_power_of_two();
        KeyTable {
            hasher: RandomState::new(),
            sets: (0..sets).map(|_| Default::default()).collect(),
            shared: (0..SHARED).map(|_| AtomicU64::new(0)).collect(),
            crowded: AtomicU64::new(0),
        }
    }

    /// The bucket of a key. `caller`: who has made it.
    pub fn bucket(&self, key: &impl Hash, caller: &impl Hash, now: u64) -> &AtomicU64 {
        let hash = self.hasher.hash_one(key).max(1);
        let set = &self.sets[(hash >> 32) as usize & (self.sets.len() - 1)];
        loop {
            if let Some(place) = set.iter().find(|place| place.key.load(Relaxed) == hash) {
                return &place.time;
            }
            let Some(free) = set.iter().find(|place| place.time.load(Relaxed) <= now) else {
                self.crowded.fetch_add(1, Relaxed);
                let shared = self.hasher.hash_one(caller) as usize % SHARED;
                return &self.shared[shared];
            };
            let old = free.key.load(Relaxed);
            // Somebody else may have begun to use it, or has taken it for the same key.
            if old != hash
                && free.time.load(Relaxed) <= now
                && free
                    .key
                    .compare_exchange(old, hash, Relaxed, Relaxed)
                    .is_ok()
            {
                return &free.time;
            }
        }
    }

    /// How often a request's key found no place.
    pub fn crowded(&self) -> u64 {
        self.crowded.load(Relaxed)
    }

    /// Bytes that it takes.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        size_of_val(&*self.sets) + size_of_val(&*self.shared)
    }
}

#[cfg(test)]
mod tests;
