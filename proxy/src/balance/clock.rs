//! Time as a number, so that it fits into an atomic.

use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::Instant;

/// Nanoseconds of the monotonic clock since some point before the first call.
pub(crate) fn now() -> u64 {
    static BASE: OnceLock<Instant> = OnceLock::new();
    let now = Instant::now();
    // A little before the first call: another thread may have read the clock earlier and come here later.
    let base = BASE.get_or_init(|| now.checked_sub(Duration::from_secs(1)).unwrap_or(now));
    nanos(now.saturating_duration_since(*base))
}

/// A span as nanoseconds: 584 years fit.
pub(crate) fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
