//! An engine's KV cache: blocks of tokens, told by the hash of all that comes up to their end. A block that no request uses stays until its
//! room is needed; the one unused for longest goes first (vLLM's automatic prefix caching).

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Tokens in a block.
pub const BLOCK: u32 = 16;

const NONE: u32 = u32::MAX;

/// Keys are hashes already.
#[derive(Clone, Copy, Debug, Default)]
pub struct Same(u64);

impl Hasher for Same {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 << 8) | u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

/// A map by hashes.
pub type ByHash<V> = HashMap<u64, V, BuildHasherDefault<Same>>;

#[derive(Debug)]
struct Block {
    hash: u64,
    users: u32,
    /// Among the unused ones, from the oldest on.
    before: u32,
    after: u32,
}

/// The cache of one replica.
#[derive(Debug)]
pub struct Cache {
    by_hash: ByHash<u32>,
    blocks: Vec<Block>,
    capacity: usize,
    oldest: u32,
    newest: u32,
    unused: usize,
}

impl Cache {
    /// Room for so many tokens.
    pub fn new(tokens: u32) -> Cache {
        Cache {
            by_hash: ByHash::default(),
            blocks: Vec::new(),
            capacity: (tokens / BLOCK) as usize,
            oldest: NONE,
            newest: NONE,
            unused: 0,
        }
    }

    /// How many of the blocks, from the first one on, are here.
    pub fn matched(&self, chain: &[u64]) -> usize {
        chain
            .iter()
            .take_while(|hash| self.by_hash.contains_key(hash))
            .count()
    }

    /// Blocks that can be had.
    pub fn room(&self) -> usize {
        self.capacity - self.blocks.len() + self.unused
    }

    /// Part of the blocks that requests use.
    pub fn usage(&self) -> f64 {
        1.0 - self.room() as f64 / self.capacity as f64
    }

    /// Whether the block is here and no request uses it: to take it takes room.
    pub fn is_unused(&self, hash: u64) -> bool {
        let index = self.by_hash.get(&hash);
        index.is_some_and(|index| self.blocks[*index as usize].users == 0)
    }

    /// Uses a block, made if it is not here. `None`: all are in use.
    pub fn take(&mut self, hash: u64) -> Option<u32> {
        if let Some(index) = self.by_hash.get(&hash).copied() {
            if self.blocks[index as usize].users == 0 {
                self.unlink(index);
            }
            self.blocks[index as usize].users += 1;
            return Some(index);
        }
        let block = Block {
            hash,
            users: 1,
            before: NONE,
            after: NONE,
        };
        let index = if self.blocks.len() < self.capacity {
            self.blocks.push(block);
            (self.blocks.len() - 1) as u32
        } else {
            let index = self.oldest;
            if index == NONE {
                return None;
            }
            self.unlink(index);
            self.by_hash.remove(&self.blocks[index as usize].hash);
            self.blocks[index as usize] = block;
            index
        };
        self.by_hash.insert(hash, index);
        Some(index)
    }

    /// Gives a request's blocks back: its last one is the first to go.
    pub fn give_back(&mut self, blocks: &[u32]) {
        for index in blocks.iter().rev().copied() {
            self.blocks[index as usize].users -= 1;
            if self.blocks[index as usize].users == 0 {
                self.link(index);
            }
        }
    }

    fn link(&mut self, index: u32) {
        let newest = self.newest;
        self.blocks[index as usize].before = newest;
        self.blocks[index as usize].after = NONE;
        match newest {
            NONE => self.oldest = index,
            newest => self.blocks[newest as usize].after = index,
        }
        self.newest = index;
        self.unused += 1;
    }

    fn unlink(&mut self, index: u32) {
        let (before, after) = {
            let block = &self.blocks[index as usize];
            (block.before, block.after)
        };
        match before {
            NONE => self.oldest = after,
            before => self.blocks[before as usize].after = after,
        }
        match after {
            NONE => self.newest = before,
            after => self.blocks[after as usize].before = before,
        }
        self.unused -= 1;
    }
}

#[cfg(test)]
mod tests;
