//! How well a policy chooses among replicas of a model: many sidecars, each with the balancing code of the data path, against modelled
//! engines, under virtual time. The same seed gives the same figures, on every machine.

pub mod cache;
pub mod policy;
pub mod replica;
pub mod report;
pub mod run;
pub mod traces;
pub mod workload;

/// Nanoseconds of the simulated time.
pub type Time = u64;

/// A second.
pub const SECOND: Time = 1_000_000_000;

/// From seconds.
pub fn seconds(seconds: f64) -> Time {
    (seconds * SECOND as f64) as Time
}

/// An even mix of two numbers (the finalizer of MurmurHash3).
pub fn mix(a: u64, b: u64) -> u64 {
    let mut hash = a.rotate_left(31) ^ b.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}
