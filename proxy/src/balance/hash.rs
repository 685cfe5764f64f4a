//! The hash of keys and endpoints. All sidecars of a mesh must agree on it, in all versions: a change moves every key.

/// FNV-1a, 64 bits (Fowler, Noll, Vo), to be fed piece by piece.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hasher(u64);

impl Hasher {
    pub(crate) const fn new() -> Hasher {
        Hasher(0xcbf2_9ce4_8422_2325)
    }

    #[must_use]
    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Hasher {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        self
    }

    pub(crate) fn finish(self) -> u64 {
        mix(self.0)
    }
}

/// The finalizer of MurmurHash3 (Appleby): FNV alone leaves the upper bits of short keys alike, and a ring is ordered by
/// those.
pub(crate) const fn mix(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}
