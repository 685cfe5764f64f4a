//! Weighted draws without allocation.

use rand::Rng;

/// A uniform number below `n`, which is above 0. Multiply-shift (Lemire): biased by less than n/2^64.
pub(crate) fn below(rng: &mut impl Rng, n: u64) -> u64 {
    ((u128::from(rng.next_u64()) * u128::from(n)) >> 64) as u64
}

/// Weights by index, ready to draw from.
#[derive(Debug)]
pub(super) enum Weights {
    /// All alike: a draw is one multiplication.
    Equal { count: usize, weight: u32 },
    /// Ends of each index's share of the sum.
    Ends(Box<[u64]>),
}

impl Weights {
    /// Each weight at least 1.
    pub(super) fn new(weights: impl Iterator<Item = u32> + Clone) -> Weights {
        let first = weights.clone().next().unwrap_or(1);
        if weights.clone().all(|weight| weight == first) {
            return Weights::Equal {
                count: weights.count(),
                weight: first,
            };
        }
        let ends = weights.scan(0_u64, |end, weight| {
            *end += u64::from(weight);
            Some(*end)
        });
        Weights::Ends(ends.collect())
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Weights::Equal { count, .. } => *count,
            Weights::Ends(ends) => ends.len(),
        }
    }

    pub(super) fn get(&self, index: usize) -> u32 {
        match self {
            Weights::Equal { weight, .. } => *weight,
            // The difference is one of the `u32`s that it was made from.
            Weights::Ends(ends) => (ends[index] - start(ends, index)) as u32,
        }
    }

    /// An index by weight. There must be one.
    pub(super) fn draw(&self, rng: &mut impl Rng) -> usize {
        match self {
            Weights::Equal { count, .. } => below(rng, *count as u64) as usize,
            Weights::Ends(ends) => {
                let point = below(rng, ends[ends.len() - 1]);
                ends.partition_point(|end| *end <= point)
            }
        }
    }

    /// Another index by weight: the share of `first` is cut out of the line. There must be two.
    pub(super) fn draw_other(&self, rng: &mut impl Rng, first: usize) -> usize {
        match self {
            Weights::Equal { count, .. } => {
                let drawn = below(rng, *count as u64 - 1) as usize;
                drawn + usize::from(drawn >= first)
            }
            Weights::Ends(ends) => {
                let (start, end) = (start(ends, first), ends[first]);
                let share = end - start;
                let mut point = below(rng, ends[ends.len() - 1] - share);
                if point >= start {
                    point += share;
                }
                ends.partition_point(|end| *end <= point)
            }
        }
    }

    /// An index by weight among those allowed. Walks the whole set: for second tries.
    pub(super) fn draw_where(
        &self,
        rng: &mut impl Rng,
        allowed: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        self.draw_by(rng, |index, weight| match allowed(index) {
            true => u64::from(weight),
            false => 0,
        })
    }

    /// An index by the weight that `weigh` makes of its own; 0: never. Walks the whole set twice.
    pub(super) fn draw_by(
        &self,
        rng: &mut impl Rng,
        weigh: impl Fn(usize, u32) -> u64,
    ) -> Option<usize> {
        let weight = |index: usize| weigh(index, self.get(index));
        let sum: u64 = (0..self.len()).map(weight).sum();
        if sum == 0 {
            return None;
        }
        let mut point = below(rng, sum);
        let mut last = None;
        for index in 0..self.len() {
            let weight = weight(index);
            if point < weight {
                return Some(index);
            }
            point -= weight;
            if weight > 0 {
                last = Some(index);
            }
        }
        // Weights have changed between the two walks: another thread saw to that.
        last
    }
}

fn start(ends: &[u64], index: usize) -> u64 {
    match index {
        0 => 0,
        _ => ends[index - 1],
    }
}
