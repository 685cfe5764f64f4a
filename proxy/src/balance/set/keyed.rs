//! The choice by a key, for policies that hash.

use std::sync::Arc;

use super::EndpointSet;
use crate::balance::endpoint::Endpoint;
use crate::balance::table::Table;
use crate::telemetry::metrics::HashPick;

impl EndpointSet {
    /// The key's endpoint, or the one that stands in for it.
    pub(super) fn of_key(
        &self,
        table: &Table,
        key: u64,
        eligible: impl Fn(&Endpoint) -> bool,
    ) -> Option<&Arc<Endpoint>> {
        let all = &self.all.endpoints;
        let room = self.settings.bounded_load.map(|percent| {
            let in_flight = |each: &Arc<Endpoint>| u64::from(each.load.in_flight());
            let total = all.iter().map(in_flight).sum::<u64>() + 1;
            Room {
                // Consistent Hashing with Bounded Loads (Mirrokni, Thorup, Zadimoghaddam 2016): ⌈c × m / n⌉.
                total: total * u64::from(percent),
                weight: 100 * self.all.weight(&eligible).max(1),
            }
        });
        let has_room = |endpoint: &Endpoint| room.as_ref().is_none_or(|room| room.is_in(endpoint));
        let owner = &all[table.owner(key)];
        let (chosen, how) = if eligible(owner) && has_room(owner) {
            (owner, HashPick::Owner)
        } else if all.iter().any(|each| eligible(each) && has_room(each)) {
            let next = table.next(key, |index| eligible(&all[index]) && has_room(&all[index]))?;
            (&all[next], HashPick::Moved)
        } else if eligible(owner) {
            (owner, HashPick::Owner)
        } else if all.iter().any(|each| eligible(each)) {
            let next = table.next(key, |index| eligible(&all[index]))?;
            (&all[next], HashPick::Moved)
        } else {
            return None;
        };
        self.metrics.hashed(how);
        Some(chosen)
    }
}

/// The bound of a bounded load, as a fraction of whole numbers.
struct Room {
    total: u64,
    weight: u64,
}

impl Room {
    fn is_in(&self, endpoint: &Endpoint) -> bool {
        let share = self.total * u64::from(endpoint.weight.max(1));
        u64::from(endpoint.load.in_flight()) < share.div_ceil(self.weight)
    }
}
