//! What the sidecar asked for, and when it stops asking: bounded, because applications make names up.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::policy::{HostEntry, PASS_THROUGH, Service, Snapshot};

/// Most names that are subscribed to because a request named them.
pub const MAX_LOOKED_UP: usize = 4096;
/// A name that does not exist is forgotten after this time. Asking again costs one round trip.
const KEEP_ABSENT: Duration = Duration::from_secs(60);
/// The same holds for a host that is passed through and was not used.
/// A host that no request went to is forgotten after this time, with its service and endpoints.
const KEEP_UNUSED: Duration = Duration::from_secs(15 * 60);

/// Names that are subscribed to, with what is known of their use.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    /// Named by the sidecar's own configuration: never forgotten.
    pinned: HashSet<String>,
    /// Named by requests.
    looked_up: HashMap<String, Use>,
}

#[derive(Debug)]
struct Use {
    asked_at: Instant,
    used_at: Instant,
    /// Requests sent so far, as of `used_at`.
    requests: u64,
}

impl Subscriptions {
    pub(super) fn pin(&mut self, name: String) {
        self.looked_up.remove(&name);
        self.pinned.insert(name);
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.pinned.contains(name) || self.looked_up.contains_key(name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.pinned.iter().chain(self.looked_up.keys())
    }

    /// A request asks for this. Returns whether it is new.
    pub(super) fn ask(&mut self, name: &str, now: Instant) -> bool {
        if self.pinned.contains(name) {
            return false;
        }
        if let Some(known) = self.looked_up.get_mut(name) {
            known.asked_at = now;
            return false;
        }
        let use_ = Use {
            asked_at: now,
            used_at: now,
            requests: 0,
        };
        self.looked_up.insert(name.to_owned(), use_);
        true
    }

    /// Takes out what is over the bound: what does not exist first, then what was not used for the longest time.
    pub(super) fn evict(&mut self, snapshot: &Snapshot) -> Vec<String> {
        let excess = self.looked_up.len().saturating_sub(MAX_LOOKED_UP);
        if excess == 0 {
            return Vec::new();
        }
        // Some more at once: under a flood of new names the sort is paid for once in a while.
        let count = excess + MAX_LOOKED_UP / 16;
        let mut order: Vec<_> = self
            .looked_up
            .iter()
            .map(|(name, use_)| (service_of(snapshot, name).is_some(), use_.used_at, name))
            .collect();
        order.sort_unstable();
        let victims: Vec<String> = order
            .into_iter()
            .take(count)
            .map(|(_, _, name)| name.clone())
            .collect();
        for name in &victims {
            self.looked_up.remove(name);
        }
        victims
    }

    /// Takes out what was not used for long. Call it once a minute or so.
    pub(super) fn sweep(&mut self, snapshot: &Snapshot, now: Instant) -> Vec<String> {
        let mut victims = Vec::new();
        self.looked_up.retain(|name, use_| {
            let keep = match service_of(snapshot, name) {
                Some(service) => {
                    let (requests, in_flight) = requests(service);
                    if requests != use_.requests || in_flight {
                        (use_.requests, use_.used_at) = (requests, now);
                    }
                    let is_passed_through = &*service.name == PASS_THROUGH;
                    let keep = if is_passed_through {
                        KEEP_ABSENT
                    } else {
                        KEEP_UNUSED
                    };
                    now - use_.used_at < keep
                }
                None => now - use_.asked_at < KEEP_ABSENT,
            };
            if !keep {
                victims.push(name.clone());
            }
            keep
        });
        victims
    }
}

/// The service that a name leads to; none where it does not exist.
fn service_of<'a>(snapshot: &'a Snapshot, name: &str) -> Option<&'a Service> {
    match name.split_once('/')? {
        ("host", authority) => match snapshot.hosts.get(authority)? {
            HostEntry::Service { service, .. } => Some(service),
            HostEntry::Absent => None,
        },
        ("service", service) => snapshot.services.get(service).map(|service| &**service),
        _ => None,
    }
}

/// Requests that went where this service's rules lead, and whether any is under way. A request leaves no other trace
/// that costs it nothing.
fn requests(service: &Service) -> (u64, bool) {
    let backends = service.rules.iter().flat_map(|rule| rule.destinations());
    let sets = backends.map(|backend| &backend.endpoints);
    sets.chain([&service.upstream.endpoints])
        .flat_map(|set| set.endpoints())
        .fold((0, false), |(requests, in_flight), endpoint| {
            let load = &endpoint.load;
            (
                requests.wrapping_add(load.begun()),
                in_flight || load.in_flight() > 0,
            )
        })
}

#[cfg(test)]
mod tests;
