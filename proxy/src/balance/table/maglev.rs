//! Maglev's table (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, section 3.4).

use super::Member;

/// Salts for the two hashes of a member.
const OFFSET: u64 = 0x6f66_6673_6574;
const SKIP: u64 = 0x736b_6970;

#[derive(Debug)]
pub(super) struct Maglev {
    /// Never empty.
    places: Box<[u32]>,
}

impl Maglev {
    /// Each member in turn takes its next free place in its own permutation; one of a lower weight leaves turns out, as in
    /// Envoy. `size` is a prime, so that every permutation meets every place.
    pub(super) fn new(members: &[Member], size: u32) -> Maglev {
        const FREE: u32 = u32::MAX;
        let prime = u64::from(size.max(2));
        let most = members.iter().map(|member| member.weight).max();
        let most = f64::from(most.unwrap_or(1));
        let mut permutations: Vec<Permutation> = members
            .iter()
            .map(|member| Permutation {
                next: member.hash(OFFSET) % prime,
                skip: member.hash(SKIP) % (prime - 1) + 1,
                share: f64::from(member.weight) / most,
                // Each has a place, however small its weight.
                due: 1.0,
            })
            .collect();
        let mut places = vec![FREE; prime as usize];
        let mut left = places.len();
        'full: loop {
            for (index, member) in (0_u32..).zip(&mut permutations) {
                member.due += member.share;
                if member.due < 1.0 {
                    continue;
                }
                member.due -= 1.0;
                while places[member.next as usize] != FREE {
                    member.next = (member.next + member.skip) % prime;
                }
                places[member.next as usize] = index;
                left -= 1;
                if left == 0 {
                    break 'full;
                }
            }
        }
        Maglev {
            places: places.into(),
        }
    }

    pub(super) fn owner(&self, key: u64) -> u32 {
        self.places[self.place(key)]
    }

    /// The whole table, from the key on.
    pub(super) fn from(&self, key: u64) -> impl Iterator<Item = u32> {
        let (before, after) = self.places.split_at(self.place(key));
        after.iter().chain(before).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    fn place(&self, key: u64) -> usize {
        (key % self.places.len() as u64) as usize
    }
}

struct Permutation {
    next: u64,
    skip: u64,
    /// Turns that it takes of each round: its weight against the largest.
    share: f64,
    due: f64,
}
