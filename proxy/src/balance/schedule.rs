//! Smooth weighted round robin, worked out once: then a turn is one atomic addition, whichever thread takes it.

use super::draw::Weights;

/// Longest schedule, unless there are more endpoints than this. Weights whose least form does not fit are rounded:
/// to a tenth of a per cent of the whole.
const LONGEST: u64 = 1024;

/// The order of turns as nginx makes it (`ngx_http_upstream_round_robin.c`): in each turn every candidate gains its weight,
/// the first of the largest is taken and loses the sum. Each index comes as often as its weight says, spread evenly.
pub(super) fn smooth(weights: &Weights) -> Box<[u32]> {
    let weights = least_form(weights);
    let sum: i64 = weights.iter().sum();
    if sum == weights.len() as i64 {
        return (0..weights.len() as u32).collect();
    }
    let mut gained = vec![0_i64; weights.len()];
    (0..sum)
        .map(|_| {
            let mut best = 0;
            for (index, weight) in weights.iter().enumerate() {
                gained[index] += weight;
                if gained[index] > gained[best] {
                    best = index;
                }
            }
            gained[best] -= sum;
            best as u32
        })
        .collect()
}

/// Divides by the greatest common divisor, and rounds where the sum is still too large.
fn least_form(weights: &Weights) -> Vec<i64> {
    let weights: Vec<u64> = (0..weights.len())
        .map(|i| u64::from(weights.get(i)))
        .collect();
    let divisor = weights
        .iter()
        .copied()
        .fold(0, greatest_common_divisor)
        .max(1);
    let sum: u64 = weights.iter().sum::<u64>() / divisor;
    let longest = LONGEST.max(weights.len() as u64);
    weights
        .iter()
        .map(|weight| {
            let weight = weight / divisor;
            let fitted = if sum <= longest {
                weight
            } else {
                // At most `longest`, which fits into an i64 by far.
                ((u128::from(weight) * u128::from(longest) + u128::from(sum) / 2) / u128::from(sum))
                    as u64
            };
            fitted.max(1) as i64
        })
        .collect()
}

pub(super) fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    match b {
        0 => a,
        _ => greatest_common_divisor(b, a % b),
    }
}
