#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

/// As one would write it down from the text: two passes, no shortcuts.
fn naive(rate: &SuccessRate, counts: &[(u32, u32)]) -> Vec<usize> {
    let mut eligible = Vec::new();
    for (index, (requests, successes)) in counts.iter().enumerate() {
        if *requests > 0 && *requests >= rate.request_volume {
            eligible.push((index, f64::from(*successes) / f64::from(*requests)));
        }
    }
    if eligible.is_empty() || (eligible.len() as u32) < rate.minimum_hosts {
        return Vec::new();
    }
    let mut sum = 0.0;
    for (_, rate) in &eligible {
        sum += rate;
    }
    let mean = sum / eligible.len() as f64;
    let mut squares = 0.0;
    for (_, rate) in &eligible {
        squares += (rate - mean) * (rate - mean);
    }
    let threshold = mean - rate.stdev_factor * (squares / eligible.len() as f64).sqrt();
    let mut out = Vec::new();
    for (index, rate) in eligible {
        if rate < threshold {
            out.push(index);
        }
    }
    out
}

#[test]
fn one_that_is_far_worse_is_found() {
    let rate = SuccessRate::default();
    let counts = [(100, 99), (200, 199), (100, 50), (100, 100), (150, 149)];
    assert_eq!(rate.outliers(&counts), [2]);
    // Too few requests at one of them: four are left, and five are wanted.
    let counts = [(99, 99), (200, 199), (100, 50), (100, 100), (150, 149)];
    assert!(rate.outliers(&counts).is_empty());
    // All alike, however bad.
    assert!(rate.outliers(&[(100, 3); 8]).is_empty());
    assert!(rate.outliers(&[]).is_empty());
}

#[test]
fn the_worst_comes_first() {
    let rate = SuccessRate {
        stdev_factor: 0.5,
        ..SuccessRate::default()
    };
    let mut counts = vec![(100, 100); 10];
    counts[3] = (100, 40);
    counts[7] = (100, 20);
    assert_eq!(rate.outliers(&counts), [7, 3]);
}

proptest! {
    #[test]
    fn the_maths_are_those_of_the_text(
        counts in prop::collection::vec((0_u32..400, 0_u32..=100), 0..30),
        minimum_hosts in 0_u32..8,
        request_volume in 0_u32..200,
        thousandths in 0_u32..4000,
    ) {
        let counts: Vec<_> = counts.into_iter().map(|(n, percent)| (n, n * percent / 100)).collect();
        let rate = SuccessRate { minimum_hosts, request_volume, stdev_factor: f64::from(thousandths) / 1e3 };
        let mut found = rate.outliers(&counts);
        let success = |index: &usize| f64::from(counts[*index].1) / f64::from(counts[*index].0);
        prop_assert!(found.windows(2).all(|two| success(&two[0]) <= success(&two[1])));
        found.sort_unstable();
        prop_assert_eq!(found, naive(&rate, &counts));
    }
}
