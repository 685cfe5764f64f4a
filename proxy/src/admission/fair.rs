//! Whose turn it is among callers: start-time fair queueing (P. Goyal, H. Vin, H. Cheng, SIGCOMM 1996).
//!
//! Each request gets a tag when it comes, and the smallest tag is served next:
//!
//! ```text
//! tag            = max(virtual time, finish of the caller's last request)
//! finish         = tag + cost
//! virtual time   = tag of the request served last
//! ```
//!
//! A caller with a hundred requests has a hundred tags one behind the other; the one request of somebody else begins at the virtual
//! time, which is where the first of the hundred is. The cost is in tokens, so what is shared is the model's work and not the
//! number of requests. All of it takes constant time; the queue is ordered by tag.

use std::collections::HashMap;

/// Callers that are told apart. Further ones share what one has.
const MOST_CALLERS: usize = 4096;
/// What those share.
const SHARED: u64 = 0;

/// A request's place among those of all callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    caller: u64,
    cost: u64,
    pub(super) tag: u64,
}

/// One class' callers.
#[derive(Debug, Default)]
pub(super) struct Fair {
    virtual_time: u64,
    callers: HashMap<u64, Caller>,
    /// Callers that wait.
    active: u64,
    /// Requests that wait, and what they cost together.
    waiting: u64,
    cost: u64,
    /// Requests until callers are looked through for those that can be forgotten.
    until_purge: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Caller {
    finish: u64,
    waiting: u32,
}

impl Fair {
    /// The turn that a request gets if it lines up now.
    pub(super) fn turn(&self, caller: u64, cost: u32) -> Turn {
        let is_room = self.callers.len() < MOST_CALLERS || self.callers.contains_key(&caller);
        let caller = if is_room { caller } else { SHARED };
        let finish = self.callers.get(&caller).map_or(0, |known| known.finish);
        Turn {
            caller,
            cost: u64::from(cost.max(1)),
            tag: self.virtual_time.max(finish),
        }
    }

    /// Requests that are served before one with this turn: its caller's own, and for each other caller as much as it is behind,
    /// and one more. Never more than wait. Exact where all cost the same.
    pub(super) fn ahead(&self, turn: Turn) -> u64 {
        if self.waiting == 0 {
            return 0;
        }
        let own = self.callers.get(&turn.caller);
        let own = own.map_or(0, |known| u64::from(known.waiting));
        let others = self.active - u64::from(own > 0);
        let mean = (self.cost / self.waiting).max(1);
        let turns = turn.tag.saturating_sub(self.virtual_time) / mean + 1;
        own.saturating_add(others.saturating_mul(turns))
            .min(self.waiting)
    }

    /// It lines up.
    pub(super) fn push(&mut self, turn: Turn) {
        self.purge();
        let known = self.callers.entry(turn.caller).or_default();
        known.finish = turn.tag.saturating_add(turn.cost);
        self.active += u64::from(known.waiting == 0);
        known.waiting += 1;
        self.waiting += 1;
        self.cost += turn.cost;
    }

    /// It is served.
    pub(super) fn serve(&mut self, turn: Turn) {
        self.virtual_time = self.virtual_time.max(turn.tag);
        self.leave(turn);
    }

    /// It is gone without having been served. What it would have cost is forgotten where nothing of its caller came after it.
    pub(super) fn give_up(&mut self, turn: Turn) {
        if let Some(known) = self.callers.get_mut(&turn.caller)
            && known.finish == turn.tag.saturating_add(turn.cost)
        {
            known.finish = turn.tag;
        }
        self.leave(turn);
    }

    fn leave(&mut self, turn: Turn) {
        let Some(known) = self.callers.get_mut(&turn.caller) else {
            return;
        };
        known.waiting = known.waiting.saturating_sub(1);
        self.active = self.active.saturating_sub(u64::from(known.waiting == 0));
        self.waiting = self.waiting.saturating_sub(1);
        self.cost = self.cost.saturating_sub(turn.cost);
        if self.waiting == 0 {
            // Nobody is behind anybody.
            self.callers.clear();
            self.virtual_time = 0;
        }
    }

    /// Forgets callers that have no advantage to pay back. Once for as many requests as callers are told apart, so that each
    /// pays a constant part of it.
    fn purge(&mut self) {
        if self.callers.len() < MOST_CALLERS {
            return;
        }
        if self.until_purge > 0 {
            self.until_purge -= 1;
            return;
        }
        self.until_purge = MOST_CALLERS;
        let now = self.virtual_time;
        self.callers
            .retain(|_, known| known.waiting > 0 || known.finish > now);
    }
}

#[cfg(test)]
mod tests;
