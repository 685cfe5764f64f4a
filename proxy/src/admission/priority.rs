//! How much a request matters.

use http::{HeaderMap, HeaderName};

use crate::identity::{SpiffeId, SpiffePattern};

/// How much a request matters. Lower sorts first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Priority {
    /// Served first, and from a share of its own.
    Critical,
    #[default]
    Default,
    /// Served when nobody else waits; goes first when something must go.
    Sheddable,
}

impl Priority {
    pub const ALL: [Priority; 3] = [Priority::Critical, Priority::Default, Priority::Sheddable];

    pub const fn as_str(self) -> &'static str {
        match self {
            Priority::Critical => "critical",
            Priority::Default => "default",
            Priority::Sheddable => "sheddable",
        }
    }
}

/// Who has which priority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Priorities {
    /// A request may ask for its priority here.
    pub header: HeaderName,
    /// Percent of the concurrency that only critical requests get.
    pub reserved: u32,
    /// The first that names the caller applies.
    pub callers: Vec<CallerPriority>,
}

/// The priority of some callers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerPriority {
    /// Empty: everybody.
    pub identities: Vec<SpiffePattern>,
    /// Of a request that asks for none.
    pub priority: Priority,
    /// The highest that a request may ask for.
    pub highest: Priority,
}

impl Priorities {
    /// A request's priority. What it asks for counts as far as its caller's identity goes. `None`: it has none.
    pub fn of(&self, identity: Option<&SpiffeId>, headers: &HeaderMap) -> Priority {
        let is_meant = |caller: &&CallerPriority| {
            caller.identities.is_empty()
                || identity.is_some_and(|id| caller.identities.iter().any(|each| each.matches(id)))
        };
        let caller = self.callers.iter().find(is_meant);
        let (own, highest) = caller.map_or((Priority::Default, Priority::Default), |caller| {
            (caller.priority, caller.highest)
        });
        let asked = headers.get(&self.header).and_then(|value| {
            Priority::ALL
                .into_iter()
                .find(|priority| value == priority.as_str())
        });
        asked.map_or(own, |asked| asked.max(highest))
    }
}

#[cfg(test)]
mod tests;
