//! How old a connection may become.

use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use rand::Rng;
use tokio::time::{Sleep, sleep};

use crate::runtime::Worker;

/// A timer for a connection's age. Without a limit it costs nothing.
#[derive(Debug)]
pub(crate) struct AgeLimit(Option<Pin<Box<Sleep>>>);

impl AgeLimit {
    /// Whether the time is over; if not, the calling task is woken when it is.
    pub(crate) fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        match &mut self.0 {
            Some(timer) => timer.as_mut().poll(cx).is_ready(),
            None => false,
        }
    }
}

/// The age of one connection: up to a tenth less than the most, so that connections that were made together do not end
/// together.
pub(crate) fn jittered(max: Duration, rng: &mut impl Rng) -> Duration {
    max.mul_f64(1.0 - 0.1 * f64::from(rng.next_u32()) / f64::from(u32::MAX))
}

impl Worker {
    pub(crate) fn age_limit(&self, max: Option<Duration>) -> AgeLimit {
        AgeLimit(max.map(|max| Box::pin(sleep(jittered(max, &mut *self.rng.borrow_mut())))))
    }
}

#[cfg(test)]
mod tests {
    use super::jittered;
    use rand::SeedableRng;
    use std::time::Duration;

    #[test]
    fn ages_differ_and_are_never_above_the_most() {
        let mut rng = rand::rngs::SmallRng::seed_from_u64(7);
        let max = Duration::from_secs(100);
        let ages: Vec<_> = (0..100).map(|_| jittered(max, &mut rng)).collect();
        assert!(ages.iter().all(|age| *age <= max && *age >= max * 9 / 10));
        assert!(ages.iter().any(|age| *age < max * 93 / 100));
        assert!(ages.iter().any(|age| *age > max * 97 / 100));
    }
}
