//! What balancing did that is not seen in the endpoints' own figures.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// Handles for one service. What is not configured is never touched.
#[derive(Debug, Default)]
pub struct BalancingMetrics {
    panic_picks: AtomicU64,
    /// Local, remote.
    zone_picks: [AtomicU64; 2],
    hash_picks: [AtomicU64; HashPick::ALL.len()],
    sessions: [AtomicU64; SessionOutcome::ALL.len()],
}

/// What became of a request's session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SessionOutcome {
    /// The request brought no token of ours.
    New,
    /// Its endpoint answered.
    Kept,
    /// Its endpoint is gone or could not take the request: another one answered.
    Moved,
    /// Its token was too old.
    Expired,
}

impl SessionOutcome {
    /// In the order of the discriminants.
    pub const ALL: [SessionOutcome; 4] = [
        SessionOutcome::New,
        SessionOutcome::Kept,
        SessionOutcome::Moved,
        SessionOutcome::Expired,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            SessionOutcome::New => "new",
            SessionOutcome::Kept => "kept",
            SessionOutcome::Moved => "moved",
            SessionOutcome::Expired => "expired",
        }
    }
}

/// How a request of a service with consistent hashing found its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum HashPick {
    /// The one that its key belongs to.
    Owner,
    /// Another one: the key's own is not available, full, or was tried.
    Moved,
    /// It has none of the keys asked for.
    NoKey,
}

impl HashPick {
    /// In the order of the discriminants.
    pub const ALL: [HashPick; 3] = [HashPick::Owner, HashPick::Moved, HashPick::NoKey];

    pub const fn as_str(self) -> &'static str {
        match self {
            HashPick::Owner => "owner",
            HashPick::Moved => "moved",
            HashPick::NoKey => "no-key",
        }
    }
}

impl BalancingMetrics {
    /// A choice among all endpoints because too few are available.
    pub fn panicked(&self) {
        self.panic_picks.fetch_add(1, Relaxed);
    }

    /// A choice with a zone preference.
    pub fn zoned(&self, local: bool) {
        self.zone_picks[usize::from(!local)].fetch_add(1, Relaxed);
    }

    /// A choice with consistent hashing.
    pub fn hashed(&self, how: HashPick) {
        self.hash_picks[how as usize].fetch_add(1, Relaxed);
    }

    /// A request of a rule with sticky sessions was answered.
    pub fn session(&self, outcome: SessionOutcome) {
        self.sessions[outcome as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn sessions(&self) -> impl Iterator<Item = (SessionOutcome, u64)> {
        SessionOutcome::ALL
            .into_iter()
            .map(|outcome| (outcome, self.sessions[outcome as usize].load(Relaxed)))
    }

    pub(crate) fn panic_picks(&self) -> u64 {
        self.panic_picks.load(Relaxed)
    }

    pub(crate) fn zone_picks(&self) -> [(&'static str, u64); 2] {
        let [local, remote] = &self.zone_picks;
        [
            ("local", local.load(Relaxed)),
            ("remote", remote.load(Relaxed)),
        ]
    }

    pub(crate) fn hash_picks(&self) -> impl Iterator<Item = (HashPick, u64)> {
        HashPick::ALL
            .into_iter()
            .map(|how| (how, self.hash_picks[how as usize].load(Relaxed)))
    }
}
