//! Which of several backends takes a request.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// The turns of a rule. Shared by all workers, and carried over when the rule changes: shares are right from the first request
/// on, however often endpoints or weights change.
#[derive(Debug, Default)]
pub struct Turns(AtomicU64);

impl Turns {
    pub(super) fn take(&self) -> u64 {
        self.0.fetch_add(1, Relaxed)
    }
}

/// The index whose turn it is. In each run of as many turns as the sum of the weights, wherever it begins, every index comes
/// exactly as often as its weight says, and evenly spread: 9 and 1 give the second one every tenth turn.
///
/// It needs no table and no state but the number of the turn: the first index takes those turns at which `turn × weight / sum`
/// passes a whole number (Bresenham's line), and the others share what is left in the same way.
///
/// `None`: the weights are all 0.
pub(super) fn at(turn: u64, sum: u32, weights: impl Iterator<Item = u32>) -> Option<usize> {
    let mut left = u64::from(sum);
    let mut turn = turn.checked_rem(left)?;
    for (index, weight) in weights.enumerate() {
        let weight = u64::from(weight);
        // Both factors are below 2³²: the turn is below what is left.
        let before = (turn * weight).div_ceil(left);
        if ((turn + 1) * weight).div_ceil(left) > before {
            return Some(index);
        }
        turn -= before;
        left -= weight;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::at;

    fn turns(weights: &[u32], from: u64, count: usize) -> Vec<usize> {
        let sum = weights.iter().sum();
        (from..)
            .take(count)
            .filter_map(|turn| at(turn, sum, weights.iter().copied()))
            .collect()
    }

    #[test]
    fn small_weights_in_full() {
        assert_eq!(turns(&[9, 1], 0, 10), [0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(turns(&[1, 9], 0, 10), [0, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
        assert_eq!(turns(&[1, 1], 0, 4), [0, 1, 0, 1]);
        assert_eq!(turns(&[2, 3], 0, 5), [0, 1, 0, 1, 1]);
        assert_eq!(turns(&[5, 3, 2], 0, 10), [0, 1, 0, 1, 0, 2, 0, 1, 0, 2]);
        assert_eq!(turns(&[0, 4, 0], 0, 3), [1, 1, 1]);
        assert!(turns(&[0, 0], 0, 3).is_empty());
        assert!(turns(&[], 0, 3).is_empty());
    }

    #[test]
    fn the_largest_weights_fit() {
        let weights = [u32::MAX - 1, 1];
        assert_eq!(at(u64::MAX, u32::MAX, weights.into_iter()), Some(0));
        let last = u64::from(u32::MAX) - 1;
        assert_eq!(at(last, u32::MAX, weights.into_iter()), Some(1));
    }

    proptest! {
        #[test]
        fn shares_are_exact_wherever_one_begins(
            weights in prop::collection::vec(0_u32..40, 1..6),
            from in 0_u64..1_000_000,
        ) {
            let sum: u32 = weights.iter().sum();
            let mut counts = vec![0_u32; weights.len()];
            for index in turns(&weights, from, sum as usize) {
                counts[index] += 1;
            }
            prop_assert_eq!(counts, weights);
        }

        /// A part of a round never strays far from the shares: less than one request for each backend before it.
        #[test]
        fn shares_converge(
            weights in prop::collection::vec(1_u32..1000, 2..5),
            from in 0_u64..1_000_000,
            count in 1_usize..2000,
        ) {
            let sum: u32 = weights.iter().sum();
            let taken = turns(&weights, from, count);
            prop_assert_eq!(taken.len(), count);
            for (index, weight) in weights.iter().enumerate() {
                let is = taken.iter().filter(|taken| **taken == index).count() as f64;
                let share = count as f64 * f64::from(*weight) / f64::from(sum);
                prop_assert!((is - share).abs() <= 1.0 + index as f64 + 1.0, "{} {} {}", index, is, share);
            }
        }
    }
}
