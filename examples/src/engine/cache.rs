//! The KV cache: a pool of blocks of 16 tokens. Full blocks are shared by hash among sequences with the same prefix and
//! stay, least recently used first out, after the last sequence that needs them.

use std::collections::{BTreeMap, HashMap};

use crate::tokens::Context;

/// Tokens in a block, as in vLLM's default.
pub const BLOCK_TOKENS: usize = 16;

/// Hash of a full block and of all before it.
pub type BlockHash = Context;

#[derive(Debug)]
struct Shared {
    references: usize,
    /// Key in `idle` while nobody refers to the block.
    stamp: u64,
}

/// The pool. Its size is fixed; `shared + private` never exceeds it.
#[derive(Debug)]
pub struct BlockPool {
    capacity: usize,
    private: usize,
    shared: HashMap<BlockHash, Shared>,
    idle: BTreeMap<u64, BlockHash>,
    clock: u64,
}

/// The blocks of one sequence. Give it back with [`BlockPool::release`].
#[derive(Debug, Default)]
pub struct Lease {
    shared: Vec<BlockHash>,
    private: usize,
}

impl Lease {
    /// How many blocks the sequence holds.
    pub fn blocks(&self) -> usize {
        self.shared.len() + self.private
    }
}

impl BlockPool {
    /// An empty pool of `capacity` blocks.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            private: 0,
            shared: HashMap::new(),
            idle: BTreeMap::new(),
            clock: 0,
        }
    }

    /// Blocks that sequences hold, as a fraction of all. Blocks kept only for reuse count as free, as in vLLM.
    pub fn usage(&self) -> f64 {
        (self.shared.len() - self.idle.len() + self.private) as f64 / self.capacity as f64
    }

    /// Takes `blocks` blocks for a sequence whose full blocks have these hashes. Returns the lease and how many leading
    /// blocks were there already, or `None` where the pool is too full.
    pub fn allocate(&mut self, hashes: &[BlockHash], blocks: usize) -> Option<(Lease, usize)> {
        let mut lease = Lease::default();
        for hash in hashes.iter().take(blocks) {
            if !self.refer(*hash) {
                break;
            }
            lease.shared.push(*hash);
        }
        let hits = lease.shared.len();
        while lease.blocks() < blocks {
            if !self.grow(&mut lease) {
                self.release(lease);
                return None;
            }
        }
        Some((lease, hits))
    }

    /// Adds one block to a lease, evicting the block that was unused for longest. False where all are in use.
    pub fn grow(&mut self, lease: &mut Lease) -> bool {
        if self.shared.len() + self.private >= self.capacity {
            let Some((_, oldest)) = self.idle.pop_first() else {
                return false;
            };
            self.shared.remove(&oldest);
        }
        self.private += 1;
        lease.private += 1;
        true
    }

    /// Makes the lease's leading blocks, which are computed now, available to others. `hashes` are those of all its
    /// full blocks, from the first.
    pub fn publish(&mut self, lease: &mut Lease, hashes: &[BlockHash]) {
        for hash in hashes.iter().skip(lease.shared.len()) {
            debug_assert!(lease.private > 0, "more full blocks than the lease holds");
            // Another sequence may have computed the same block meanwhile: then its copy is used and ours is free.
            if !self.refer(*hash) {
                self.shared.insert(
                    *hash,
                    Shared {
                        references: 1,
                        stamp: 0,
                    },
                );
            }
            lease.shared.push(*hash);
            lease.private -= 1;
            self.private -= 1;
        }
    }

    /// Gives the blocks back. The last ones are evicted first: without the first ones they are of no use.
    pub fn release(&mut self, lease: Lease) {
        self.private -= lease.private;
        for hash in lease.shared.into_iter().rev() {
            if let Some(block) = self.shared.get_mut(&hash) {
                block.references -= 1;
                if block.references == 0 {
                    self.clock += 1;
                    block.stamp = self.clock;
                    self.idle.insert(self.clock, hash);
                }
            }
        }
    }

    fn refer(&mut self, hash: BlockHash) -> bool {
        let Some(block) = self.shared.get_mut(&hash) else {
            return false;
        };
        if block.references == 0 {
            self.idle.remove(&block.stamp);
        }
        block.references += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn hashes(seed: u64, count: u32) -> Vec<BlockHash> {
        (0..count)
            .scan(Context::seeded(seed), |hash, token| {
                *hash = hash.with(token);
                Some(*hash)
            })
            .collect()
    }

    #[test]
    fn a_prefix_is_shared_while_in_use_and_found_afterwards() {
        let mut pool = BlockPool::new(8);
        let prefix = hashes(1, 3);
        let (mut first, hits) = pool.allocate(&prefix, 4).unwrap();
        assert_eq!(hits, 0);
        pool.publish(&mut first, &prefix);
        let (second, hits) = pool.allocate(&prefix, 4).unwrap();
        assert_eq!(hits, 3);
        // Three shared blocks and one of each sequence's own.
        assert_eq!(pool.usage(), 5.0 / 8.0);
        pool.release(first);
        pool.release(second);
        assert_eq!(pool.usage(), 0.0);
        assert_eq!(pool.allocate(&prefix, 4).unwrap().1, 3);
    }

    #[test]
    fn a_full_pool_evicts_what_was_unused_for_longest_and_never_what_is_in_use() {
        let mut pool = BlockPool::new(4);
        for seed in [1, 2] {
            let blocks = hashes(seed, 2);
            let (mut lease, _) = pool.allocate(&blocks, 2).unwrap();
            pool.publish(&mut lease, &blocks);
            pool.release(lease);
        }
        let (kept, hits) = pool.allocate(&hashes(2, 2), 2).unwrap();
        assert_eq!(hits, 2);
        let (own, hits) = pool.allocate(&hashes(3, 1), 1).unwrap();
        assert_eq!(hits, 0);
        // Of the first prefix the last block went; its first is still there.
        let (again, hits) = pool.allocate(&hashes(1, 2), 1).unwrap();
        assert_eq!(hits, 1);
        assert!(
            pool.allocate(&hashes(4, 1), 1).is_none(),
            "everything is in use"
        );
        assert_eq!(pool.usage(), 1.0);
        for lease in [kept, own, again] {
            pool.release(lease);
        }
        assert_eq!(pool.usage(), 0.0);
    }

    #[test]
    fn a_block_computed_twice_is_kept_once() {
        let mut pool = BlockPool::new(4);
        let blocks = hashes(1, 2);
        let (mut first, _) = pool.allocate(&blocks, 2).unwrap();
        let (mut second, hits) = pool.allocate(&blocks, 2).unwrap();
        assert_eq!(hits, 0);
        pool.publish(&mut first, &blocks);
        pool.publish(&mut second, &blocks);
        assert_eq!(pool.usage(), 0.5);
        pool.release(first);
        assert_eq!(pool.usage(), 0.5);
        pool.release(second);
        assert_eq!(pool.usage(), 0.0);
    }
}
