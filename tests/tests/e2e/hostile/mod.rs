//! Clients that mean harm: what they send is refused or bounded, costs little, and nobody else notices.

mod frames;
mod http2;
mod slow;
mod smuggling;

use std::time::Duration;

use outrigger_tests::Sidecar;

/// Memory that a sidecar may have gained after an attack, KiB. What an attacker can make it hold is bounded by windows and
/// head sizes for each connection; this is far above it and far below what a leak of the attack's volume would be.
const GAIN_KIB: u64 = 64 * 1024;

/// What a sidecar had before an attack.
struct Before {
    rss_kib: u64,
    cpu: Duration,
}

impl Before {
    fn of(sidecar: &mut Sidecar) -> Self {
        let process = sidecar.process();
        Self {
            rss_kib: process.rss_kib(),
            cpu: process.cpu(),
        }
    }

    /// The attack took `cpu` at most and left no more memory than [`GAIN_KIB`].
    fn assert_bounded(&self, sidecar: &mut Sidecar, cpu: Duration) {
        let process = sidecar.process();
        let (rss_kib, spent) = (process.rss_kib(), process.cpu() - self.cpu);
        let gain = rss_kib.saturating_sub(self.rss_kib);
        assert!(gain < GAIN_KIB, "the attack left {gain} KiB");
        assert!(spent < cpu, "the attack took {spent:?} of CPU");
    }
}
