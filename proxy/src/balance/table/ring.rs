//! A ring of hashes (Karger et al. 1997; ketama): each endpoint stands at many places, a key belongs to the next one.

use super::super::schedule::greatest_common_divisor;
use super::super::settings::MAX_RING_SIZE;
use super::Member;

#[derive(Debug)]
pub(super) struct Ring {
    /// By hash. Never empty.
    places: Box<[(u64, u32)]>,
}

impl Ring {
    /// `size` places for each unit of weight, fewer only where that would be more than [`MAX_RING_SIZE`] in all.
    //
    // Envoy shares a number of places among all: whenever one comes or goes, the others' places change, too, and twice as many
    // keys move as have to.
    pub(super) fn new(members: &[Member], size: u32) -> Ring {
        let divisor = members.iter().fold(0, |divisor, member| {
            greatest_common_divisor(divisor, u64::from(member.weight))
        });
        let divisor = divisor.max(1);
        let units = |member: &Member| u64::from(member.weight) / divisor;
        let sum: u64 = members.iter().map(units).sum();
        let bound = u64::from(MAX_RING_SIZE);
        let mut each = u64::from(size.max(1));
        // By halves: what is left are places that were there before.
        while each > 1 && sum * each > bound {
            each /= 2;
        }
        let places = |member: &Member| match sum > bound {
            // Not even one for each unit.
            true => (units(member) * bound / sum).max(1),
            false => units(member) * each,
        };
        let mut ring = Vec::with_capacity(members.iter().map(places).sum::<u64>() as usize);
        for (index, member) in (0_u32..).zip(members) {
            ring.extend((0..places(member)).map(|place| (member.hash(place), index)));
        }
        ring.sort_unstable();
        Ring {
            places: ring.into(),
        }
    }

    pub(super) fn owner(&self, key: u64) -> u32 {
        let place = self.place(key);
        self.places[place].1
    }

    /// The whole ring, from the key on.
    pub(super) fn from(&self, key: u64) -> impl Iterator<Item = u32> {
        let (before, after) = self.places.split_at(self.place(key));
        after.iter().chain(before).map(|(_, member)| *member)
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    fn place(&self, key: u64) -> usize {
        let place = self.places.partition_point(|(hash, _)| *hash < key);
        // Past the last one: the first.
        if place == self.places.len() { 0 } else { place }
    }
}
