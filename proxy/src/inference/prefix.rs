//! Hashes of a prompt's beginning. All sidecars of a mesh must agree on them, in all versions: a change moves every prompt.
//!
//! The bytes are those of the JSON text: two requests of one client that begin alike are written alike. That is an
//! approximation of equal tokens, which only the model's tokenizer knows.

use crate::balance::hash::mix;

/// The hash of each block, chained with those before it. A last block that is not full has none.
#[derive(Debug)]
pub struct Prefixes<'a> {
    pieces: [&'a [u8]; 3],
    block: usize,
    hash: u64,
}

impl<'a> Prefixes<'a> {
    pub(super) fn new(model: &str, pieces: [&'a [u8]; 3], block: usize) -> Prefixes<'a> {
        Prefixes {
            pieces,
            block: block.max(1),
            hash: absorb(0x6f75_7472_6967_6765, model.as_bytes()),
        }
    }
}

impl Iterator for Prefixes<'_> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let left: usize = self.pieces.iter().map(|piece| piece.len()).sum();
        if left < self.block {
            return None;
        }
        let mut wanted = self.block;
        for piece in &mut self.pieces {
            let (now, rest) = piece.split_at(wanted.min(piece.len()));
            self.hash = absorb(self.hash, now);
            *piece = rest;
            wanted -= now.len();
        }
        Some(self.hash)
    }
}

/// Eight bytes at a time.
fn absorb(mut hash: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        hash = mix(hash.rotate_left(23) ^ u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    // The length tells `a` and `a\0` apart.
    mix(hash.rotate_left(23) ^ u64::from_le_bytes(last)).wrapping_add(bytes.len() as u64)
}

#[cfg(test)]
mod tests;
