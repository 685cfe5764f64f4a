//! Where requests wait for their turn: in order of priority, first come first served until the queue stands.
//!
//! A queue that is empty now and then takes up bursts. One that was not empty for a whole interval does nothing but make
//! everybody wait: it *stands*. From then on the last to come is served first, whose client is still there, and what has waited
//! longer than the target is dropped when a turn comes (B. Maurer, "Fail at Scale", ACM Queue 13(8), 2015: controlled delay
//! and adaptive LIFO; target and interval are CoDel's, RFC 8289).
//!
//! In front of a batch, callers take turns within a priority ([`Fair`]) and the queue never stands: waits are bounded before they
//! begin.

use std::collections::BTreeMap;
use std::time::Duration;

use super::fair::{Fair, Turn};
use super::priority::Priority;
use super::refusals::Limit;

/// How a queue is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueSettings {
    pub max_length: usize,
    pub max_wait: Duration,
    /// A wait that is all right while the queue stands.
    pub target: Duration,
    /// A queue that was not empty for so long stands.
    pub interval: Duration,
}

/// The same in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Discipline {
    pub(super) max_length: usize,
    pub(super) target: u64,
    pub(super) interval: u64,
}

/// Those who wait. `T`: how they are told.
#[derive(Debug)]
pub(super) struct Queue<T> {
    classes: [BTreeMap<Place, Waiter<T>>; Priority::ALL.len()],
    /// Whose turn it is in each class, where callers take turns.
    fair: Option<Box<[Fair; Priority::ALL.len()]>>,
    next: u64,
    /// When it was empty the last time.
    not_empty_since: u64,
}

#[derive(Debug)]
struct Waiter<T> {
    tell: T,
    since: u64,
    deadline: Option<u64>,
    /// `None`: first come, first served.
    turn: Option<Turn>,
}

/// What a class is ordered by: the tag of the caller's turn, and who came first.
type Place = (u64, u64);

/// A place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    priority: Priority,
    place: Place,
}

/// Who lines up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Comer {
    pub(super) priority: Priority,
    pub(super) now: u64,
    pub(super) deadline: Option<u64>,
    /// Callers take turns: whose it is, and what it costs.
    pub(super) share: Option<(u64, u32)>,
}

impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        Queue {
            classes: Default::default(),
            fair: None,
            next: 0,
            not_empty_since: 0,
        }
    }
}

impl<T> Queue<T> {
    pub(super) fn len(&self) -> usize {
        self.classes.iter().map(BTreeMap::len).sum()
    }

    /// The priority of whoever is next.
    pub(super) fn first(&self) -> Option<Priority> {
        Priority::ALL
            .into_iter()
            .find(|priority| !self.classes[*priority as usize].is_empty())
    }

    fn stands(&self, now: u64, discipline: &Discipline) -> bool {
        self.first().is_some() && now.saturating_sub(self.not_empty_since) > discipline.interval
    }

    /// Who is served before somebody who lines up now: all with a higher priority, and those of its own whose turn is before.
    pub(super) fn ahead(&self, comer: &Comer) -> u64 {
        let class = comer.priority as usize;
        let higher: usize = self.classes[..class].iter().map(BTreeMap::len).sum();
        let own = match (self.turn(comer), &self.fair) {
            (Some(turn), Some(fair)) => fair[class].ahead(turn),
            (Some(_), None) => 0,
            (None, _) => self.classes[class].len() as u64,
        };
        own.saturating_add(higher as u64)
    }

    fn turn(&self, comer: &Comer) -> Option<Turn> {
        let (caller, cost) = comer.share?;
        Some(match &self.fair {
            Some(fair) => fair[comer.priority as usize].turn(caller, cost),
            None => Fair::default().turn(caller, cost),
        })
    }

    /// Lines up. `dropped` gets who has to make room. `Err`: there is none.
    pub(super) fn push(
        &mut self,
        comer: &Comer,
        discipline: &Discipline,
        tell: T,
        dropped: &mut Vec<(T, Limit)>,
    ) -> Result<Ticket, (T, Limit)> {
        let Comer {
            priority,
            now,
            deadline,
            ..
        } = *comer;
        let turn = self.turn(comer);
        let stands = self.stands(now, discipline);
        if stands && priority == Priority::Sheddable {
            return Err((tell, Limit::Shed));
        }
        if self.len() >= discipline.max_length {
            let lowest = Priority::ALL
                .into_iter()
                .rev()
                .find(|each| !self.classes[*each as usize].is_empty());
            let class = match lowest {
                Some(lowest) if lowest > priority => lowest,
                // It is served last to first: the oldest has the least hope.
                Some(lowest) if lowest == priority && stands => lowest,
                // Who takes the whole queue makes room for who has none of it.
                Some(lowest) if lowest == priority && self.is_before_last(priority, turn) => lowest,
                _ => return Err((tell, Limit::QueueFull)),
            };
            let limit = if class == priority && stands {
                Limit::QueueStanding
            } else {
                Limit::Shed
            };
            let waiting = &mut self.classes[class as usize];
            let gone = if stands {
                waiting.pop_first()
            } else {
                waiting.pop_last()
            };
            if let Some((_, waiter)) = gone {
                self.give_up(class, waiter.turn);
                dropped.push((waiter.tell, limit));
            }
        }
        if self.first().is_none() {
            self.not_empty_since = now;
        }
        let number = self.next;
        self.next += 1;
        let waiter = Waiter {
            tell,
            since: now,
            deadline,
            turn,
        };
        let place = (turn.map_or(0, |turn| turn.tag), number);
        if let Some(turn) = turn {
            self.fair.get_or_insert_default()[priority as usize].push(turn);
        }
        self.classes[priority as usize].insert(place, waiter);
        Ok(Ticket { priority, place })
    }

    /// Whether somebody of this class has his turn after this one.
    fn is_before_last(&self, priority: Priority, turn: Option<Turn>) -> bool {
        let last = self.classes[priority as usize].last_key_value();
        match (turn, last) {
            (Some(turn), Some(((tag, _), _))) => turn.tag < *tag,
            _ => false,
        }
    }

    /// What is gone without having been served takes no turn.
    fn give_up(&mut self, priority: Priority, turn: Option<Turn>) {
        if let (Some(fair), Some(turn)) = (&mut self.fair, turn) {
            fair[priority as usize].give_up(turn);
        }
    }

    /// Whose turn it is, and since when it waited. `fastest`: what the application takes at least, nanoseconds; who cannot
    /// be answered before its deadline is dropped.
    pub(super) fn pop(
        &mut self,
        now: u64,
        fastest: u64,
        discipline: &Discipline,
        dropped: &mut Vec<(T, Limit)>,
    ) -> Option<(T, u64)> {
        let stands = self.stands(now, discipline);
        while let Some(priority) = self.first() {
            let class = &mut self.classes[priority as usize];
            let next = if stands {
                class.pop_last()
            } else {
                class.pop_first()
            };
            let Some((_, waiter)) = next else {
                continue;
            };
            if let Some(deadline) = waiter.deadline
                && now.saturating_add(fastest) > deadline
            {
                self.give_up(priority, waiter.turn);
                dropped.push((waiter.tell, Limit::QueueDeadline));
                continue;
            }
            if stands {
                self.drop_late(now, discipline, dropped);
            }
            if let (Some(fair), Some(turn)) = (&mut self.fair, waiter.turn) {
                fair[priority as usize].serve(turn);
            }
            return Some((waiter.tell, waiter.since));
        }
        None
    }

    /// Drops who has waited longer than the target. The last to come of each class stays: a turn must find somebody.
    fn drop_late(&mut self, now: u64, discipline: &Discipline, dropped: &mut Vec<(T, Limit)>) {
        for class in &mut self.classes {
            while class.len() > 1
                && let Some(oldest) = class.first_entry()
                && now.saturating_sub(oldest.get().since) > discipline.target
            {
                dropped.push((oldest.remove().tell, Limit::QueueStanding));
            }
        }
    }

    /// Leaves the queue. False: it had its turn, or was dropped.
    pub(super) fn remove(&mut self, ticket: Ticket) -> bool {
        let Some(waiter) = self.classes[ticket.priority as usize].remove(&ticket.place) else {
            return false;
        };
        self.give_up(ticket.priority, waiter.turn);
        true
    }

    /// Takes everybody out.
    pub(super) fn clear(&mut self, limit: Limit, dropped: &mut Vec<(T, Limit)>) {
        for class in &mut self.classes {
            let all = std::mem::take(class);
            dropped.extend(all.into_values().map(|waiter| (waiter.tell, limit)));
        }
        self.fair = None;
    }
}

#[cfg(test)]
mod tests;
