//! Endpoints that succeed less often than the others.

/// When success rates are compared. The defaults are Envoy's.
#[derive(Clone, Debug, PartialEq)]
pub struct SuccessRate {
    /// Endpoints with enough requests that there must be.
    pub minimum_hosts: u32,
    /// Requests in the interval that an endpoint must have had.
    pub request_volume: u32,
    /// Out is what is below mean − factor × standard deviation.
    pub stdev_factor: f64,
}

impl Default for SuccessRate {
    fn default() -> SuccessRate {
        SuccessRate {
            minimum_hosts: 5,
            request_volume: 100,
            stdev_factor: 1.9,
        }
    }
}

impl SuccessRate {
    /// Indices of those to be taken out. `counts`: requests and successes of each endpoint.
    pub(super) fn outliers(&self, counts: &[(u32, u32)]) -> Vec<usize> {
        let rates: Vec<(usize, f64)> = counts
            .iter()
            .enumerate()
            .filter(|(_, (requests, _))| *requests >= self.request_volume.max(1))
            .map(|(index, (requests, successes))| {
                (index, f64::from(*successes) / f64::from(*requests))
            })
            .collect();
        if rates.is_empty() || rates.len() < self.minimum_hosts as usize {
            return Vec::new();
        }
        let threshold = self.threshold(&rates);
        let mut below: Vec<_> = rates
            .into_iter()
            .filter(|(_, rate)| *rate < threshold)
            .collect();
        // The worst first: the floor may not leave room for all.
        below.sort_by(|(_, a), (_, b)| a.total_cmp(b));
        below.into_iter().map(|(index, _)| index).collect()
    }

    /// Mean − factor × standard deviation, of the population as Envoy has it.
    fn threshold(&self, rates: &[(usize, f64)]) -> f64 {
        let count = rates.len() as f64;
        let mean = rates.iter().map(|(_, rate)| rate).sum::<f64>() / count;
        let variance = rates
            .iter()
            .map(|(_, rate)| (rate - mean).powi(2))
            .sum::<f64>()
            / count;
        mean - self.stdev_factor * variance.sqrt()
    }
}

#[cfg(test)]
mod tests;
