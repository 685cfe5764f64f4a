//! How long to wait before the control plane is tried again, and how often to complain meanwhile.

use std::time::Duration;

use tokio::time::Instant;

/// First pause after a failure.
const FIRST: Duration = Duration::from_millis(100);
/// Longest pause: a control plane that comes back has its sidecars back within this time.
const LONGEST: Duration = Duration::from_secs(5);
/// The same trouble is logged once in this time.
const COMPLAIN_EVERY: Duration = Duration::from_secs(30);

/// Exponential pauses with jitter: half of each pause is random, so that a thousand sidecars that lost their control plane
/// at the same moment do not come back at the same moment.
#[derive(Debug, Default)]
pub(crate) struct Pauses {
    failures: u32,
}

impl Pauses {
    /// The pause after one more failure.
    pub(crate) fn next(&mut self) -> Duration {
        let full = LONGEST.min(FIRST.saturating_mul(1 << self.failures.min(16)));
        self.failures = self.failures.saturating_add(1);
        full.mul_f64(rand::random_range(0.5..=1.0))
    }

    /// It worked.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Lets the first complaint through, and then one every 30 seconds.
#[derive(Debug, Default)]
pub(crate) struct Complaints {
    last: Option<Instant>,
}

impl Complaints {
    /// Whether to log now.
    pub(crate) fn due(&mut self) -> bool {
        let now = Instant::now();
        let due = self.last.is_none_or(|last| now - last >= COMPLAIN_EVERY);
        if due {
            self.last = Some(now);
        }
        due
    }

    /// It worked; whether there were complaints to take back.
    pub(crate) fn clear(&mut self) -> bool {
        self.last.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::{Complaints, Duration, LONGEST, Pauses};

    #[test]
    fn pauses_grow_to_a_limit_and_start_over() {
        let mut pauses = Pauses::default();
        let first = pauses.next();
        assert!(first >= Duration::from_millis(50) && first <= Duration::from_millis(100));
        let later: Vec<_> = (0..100).map(|_| pauses.next()).collect();
        assert!(later.iter().all(|pause| *pause <= LONGEST));
        assert!(later.iter().skip(10).all(|pause| *pause >= LONGEST / 2));
        pauses.reset();
        assert!(pauses.next() <= Duration::from_millis(100));
    }

    #[tokio::test(start_paused = true)]
    async fn complaints_are_spaced() {
        let mut complaints = Complaints::default();
        assert!(complaints.due());
        assert!(!complaints.due());
        tokio::time::advance(Duration::from_secs(29)).await;
        assert!(!complaints.due());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(complaints.due());
        assert!(complaints.clear());
        assert!(!complaints.clear());
        assert!(complaints.due());
    }
}
