//! Consistent hashing: which endpoint a key belongs to, and where it goes while that one cannot take it.

mod maglev;
mod ring;

use std::net::SocketAddr;
use std::sync::Arc;

use super::endpoint::Endpoint;
use super::hash::{Hasher, mix};
use super::settings::{Policy, Settings};

use maglev::Maglev;
use ring::Ring;

/// Where the keys of one set of endpoints belong.
#[derive(Debug)]
pub(super) struct Table {
    shared: Arc<Shared>,
    /// From the table's numbers to the set's.
    order: Box<[u32]>,
}

/// What does not depend on the order of the endpoints: kept while addresses and weights stay.
#[derive(Debug)]
struct Shared {
    /// Sorted, so that every sidecar builds the same table.
    members: Box<[Member]>,
    settings: (Policy, u32),
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Ring(Ring),
    Maglev(Maglev),
}

/// An endpoint as the table knows it: a server started again behind its address keeps its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Member {
    address: SocketAddr,
    weight: u32,
}

impl Member {
    /// Its hash for one of several purposes.
    fn hash(&self, salt: u64) -> u64 {
        let hasher = Hasher::new();
        let hasher = match self.address {
            SocketAddr::V4(address) => hasher.bytes(&address.ip().octets()),
            SocketAddr::V6(address) => hasher.bytes(&address.ip().octets()),
        };
        hasher
            .bytes(&self.address.port().to_be_bytes())
            .bytes(&salt.to_be_bytes())
            .finish()
    }
}

impl Table {
    /// A table for the endpoints, where the policy has one. Takes milliseconds for large ones: not for the data path.
    /// `before`: the table of the same set as it was; its content is used again if it is still right.
    pub(super) fn new(
        settings: &Settings,
        endpoints: &[Arc<Endpoint>],
        before: Option<&Table>,
    ) -> Option<Table> {
        let size = match settings.policy {
            Policy::RingHash => settings.ring_size,
            Policy::Maglev => settings.maglev_size,
            _ => return None,
        };
        if endpoints.is_empty() {
            return None;
        }
        let mut numbered: Vec<(Member, u32)> = (0_u32..)
            .zip(endpoints)
            .map(|(index, endpoint)| {
                let member = Member {
                    address: endpoint.address,
                    weight: endpoint.weight.max(1),
                };
                (member, index)
            })
            .collect();
        numbered.sort_unstable();
        let order = numbered.iter().map(|(_, index)| *index).collect();
        let members: Box<[Member]> = numbered.into_iter().map(|(member, _)| member).collect();
        let wanted = (settings.policy, size);
        let same = |shared: &&Arc<Shared>| shared.settings == wanted && shared.members == members;
        let shared = match before.map(|table| &table.shared).filter(same) {
            Some(shared) => shared.clone(),
            None => Arc::new(Shared {
                kind: match settings.policy {
                    Policy::RingHash => Kind::Ring(Ring::new(&members, size)),
                    _ => Kind::Maglev(Maglev::new(&members, size)),
                },
                settings: wanted,
                members,
            }),
        };
        Some(Table { shared, order })
    }

    /// The endpoint that the key belongs to.
    pub(super) fn owner(&self, key: u64) -> usize {
        self.order[match &self.shared.kind {
            Kind::Ring(ring) => ring.owner(key),
            Kind::Maglev(maglev) => maglev.owner(key),
        } as usize] as usize
    }

    /// The first endpoint in the key's own order of all that is `allowed`; there should be one, or the whole table is looked
    /// through. Keys of one endpoint spread over the others, and no other key moves.
    pub(super) fn next(&self, key: u64, allowed: impl Fn(usize) -> bool) -> Option<usize> {
        let known = |member: &u32| allowed(self.order[*member as usize] as usize);
        let found = match &self.shared.kind {
            Kind::Ring(ring) => ring.from(key).find(known),
            Kind::Maglev(maglev) => {
                // Hashing again spreads better than the neighbours do; those are for when luck is out.
                let tries = 4 * self.order.len() as u64;
                (1..=tries)
                    .map(|attempt| maglev.owner(mix(key ^ mix(attempt))))
                    .find(known)
                    .or_else(|| maglev.from(key).find(known))
            }
        };
        let in_table = found.map(|member| self.order[member as usize] as usize);
        // A Maglev table that is smaller than the set has no place for some.
        in_table.or_else(|| {
            let count = self.order.len();
            let first = (key % count as u64) as usize;
            let all = (0..count).map(|step| self.order[(first + step) % count] as usize);
            all.into_iter().find(|index| allowed(*index))
        })
    }

    /// Whether both are the same in memory.
    #[cfg(test)]
    pub(super) fn shares_with(&self, other: &Table) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Places.
    pub(super) fn len(&self) -> usize {
        match &self.shared.kind {
            Kind::Ring(ring) => ring.len(),
            Kind::Maglev(maglev) => maglev.len(),
        }
    }
}

#[cfg(test)]
mod tests;
