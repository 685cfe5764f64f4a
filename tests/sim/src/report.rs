//! What came of a run, for people and for programs.

use serde::Serialize;

use crate::policy::Policy;
use crate::replica::Done;
use crate::workload::Request;
use crate::{SECOND, Time};

/// Of one request. 0: it has not come to that.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    pub came: Time,
    pub first_token: Time,
    pub ended: Time,
    pub refused: bool,
}

/// Of one run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    pub policy: &'static str,
    pub requests: usize,
    pub refused: usize,
    /// From the first request to the last token.
    pub seconds: f64,
    pub output_tokens_per_second: f64,
    /// Seconds until the first token.
    pub ttft_mean: f64,
    pub ttft_p50: f64,
    pub ttft_p90: f64,
    pub ttft_p99: f64,
    /// Seconds for each further token.
    pub tpot_p50: f64,
    /// Part of the prompt tokens that were in a cache.
    pub hit_rate: f64,
    /// Time in steps of the busiest replica, as a multiple of the mean.
    pub imbalance: f64,
    /// Requests put back for want of cache.
    pub put_back: u64,
    pub adapter_loads: u64,
}

impl Figures {
    pub fn new(policy: Policy, requests: &[Request], times: &[Times], done: &[Done]) -> Figures {
        let answered = || times.iter().filter(|each| !each.refused);
        let secs = |time: Time| time as f64 / SECOND as f64;
        let first = times.iter().map(|each| each.came).min().unwrap_or(0);
        let last = times.iter().map(|each| each.ended).max().unwrap_or(0);
        let mut ttft: Vec<f64> = answered()
            .map(|each| secs(each.first_token - each.came))
            .collect();
        ttft.sort_by(f64::total_cmp);
        let mut tpot: Vec<f64> = times
            .iter()
            .zip(requests)
            .filter(|(each, request)| !each.refused && request.output_tokens > 1)
            .map(|(each, request)| {
                secs(each.ended - each.first_token) / f64::from(request.output_tokens - 1)
            })
            .collect();
        tpot.sort_by(f64::total_cmp);
        let sum = |of: fn(&Done) -> u64| done.iter().map(of).sum::<u64>();
        let busiest = done.iter().map(|done| done.busy).max().unwrap_or(0);
        let mean = sum(|done| done.busy) as f64 / done.len() as f64;
        let length = secs(last - first);
        Figures {
            policy: policy.as_str(),
            requests: requests.len(),
            refused: times.iter().filter(|each| each.refused).count(),
            seconds: length,
            output_tokens_per_second: sum(|done| done.output_tokens) as f64 / length,
            ttft_mean: ttft.iter().sum::<f64>() / ttft.len().max(1) as f64,
            ttft_p50: quantile(&ttft, 0.5),
            ttft_p90: quantile(&ttft, 0.9),
            ttft_p99: quantile(&ttft, 0.99),
            tpot_p50: quantile(&tpot, 0.5),
            hit_rate: sum(|done| done.cached_tokens) as f64
                / sum(|done| done.prompt_tokens).max(1) as f64,
            imbalance: busiest as f64 / mean,
            put_back: sum(|done| done.put_back),
            adapter_loads: sum(|done| done.adapter_loads),
        }
    }
}

/// Nearest rank. Of nothing 0.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let rank = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

/// A table in Markdown.
pub fn table(figures: &[Figures]) -> String {
    let mut lines = vec![
        format!("| {:<15} | {:>9} | {:>9} | {:>9} | {:>9} | {:>8} | {:>6} | {:>9} |", "policy", "tokens/s", "TTFT p50", "p90", "p99", "TPOT p50", "hits", "imbalance"),
        "|-----------------|----------:|----------:|----------:|----------:|---------:|-------:|----------:|".to_owned(),
    ];
    for it in figures {
        lines.push(format!(
            "| {:<15} | {:>9.0} | {:>7.2} s | {:>7.2} s | {:>7.2} s | {:>5.0} ms | {:>4.1} % | {:>9.2} |",
            it.policy,
            it.output_tokens_per_second,
            it.ttft_p50,
            it.ttft_p90,
            it.ttft_p99,
            it.tpot_p50 * 1000.0,
            it.hit_rate * 100.0,
            it.imbalance
        ));
    }
    for it in figures
        .iter()
        .filter(|it| it.refused + it.put_back as usize + it.adapter_loads as usize > 0)
    {
        lines.push(format!(
            "{}: {} refused, {} put back, {} adapters loaded",
            it.policy, it.refused, it.put_back, it.adapter_loads
        ));
    }
    lines.join("\n")
}
