//! vLLM's metrics, by its names and labels, so that whatever reads a real server's metrics can read these.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry,
    TextEncoder,
};

use crate::engine::{BLOCK_TOKENS, EngineConfig, FinishReason, Load};

/// vLLM's buckets of `time_to_first_token_seconds`.
const FIRST_TOKEN_BUCKETS: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
];
/// vLLM's buckets of `time_per_output_token_seconds`.
const PER_TOKEN_BUCKETS: &[f64] = &[
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
    40.0, 80.0,
];
/// vLLM's buckets of `e2e_request_latency_seconds`.
const REQUEST_BUCKETS: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0,
    480.0, 960.0, 1920.0, 7680.0,
];

/// The metrics of one engine.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    running: Gauge,
    waiting: Gauge,
    cache_usage: Gauge,
    prompt_tokens: IntCounter,
    generation_tokens: IntCounter,
    prefix_queries: IntCounter,
    prefix_hits: IntCounter,
    preemptions: IntCounter,
    finished: IntCounterVec,
    first_token: Histogram,
    per_token: Histogram,
    request: Histogram,
}

/// Registers a collector. Its names are constants of this file and unique, which the tests prove by rendering them all.
fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: prometheus::Result<C>,
) -> C {
    let collector = collector.expect("the metric's name and labels are valid");
    registry
        .register(Box::new(collector.clone()))
        .expect("the metric's name is unique");
    collector
}

impl Metrics {
    /// Metrics for the engine that serves `model`; all start at zero.
    pub fn new(model: &str, config: &EngineConfig) -> Self {
        let registry = Registry::new();
        let opts = |name: &str, help: &str| {
            Opts::new(format!("vllm:{name}"), help)
                .const_label("model_name", model)
                .const_label("engine", "0")
        };
        let gauge = |name, help| register(&registry, Gauge::with_opts(opts(name, help)));
        let counter = |name, help| register(&registry, IntCounter::with_opts(opts(name, help)));
        let histogram = |name, help, buckets: &[f64]| {
            let opts = HistogramOpts::from(opts(name, help)).buckets(buckets.to_vec());
            register(&registry, Histogram::with_opts(opts))
        };
        let finished = opts(
            "request_success_total",
            "Requests that ended, by the reason for it.",
        );
        let finished = register(
            &registry,
            IntCounterVec::new(finished, &["finished_reason"]),
        );
        for reason in FinishReason::ALL {
            finished.with_label_values(&[reason.as_str()]);
        }
        let geometry = opts("cache_config_info", "Geometry of the KV cache.")
            .const_label("block_size", BLOCK_TOKENS.to_string())
            .const_label("num_gpu_blocks", config.cache_blocks.to_string());
        register(&registry, Gauge::with_opts(geometry)).set(1.0);
        Self {
            running: gauge("num_requests_running", "Requests in the batch."),
            waiting: gauge(
                "num_requests_waiting",
                "Requests that wait for a place in the batch.",
            ),
            cache_usage: gauge(
                "kv_cache_usage_perc",
                "Part of the KV cache that is in use; 1 is all of it.",
            ),
            prompt_tokens: counter("prompt_tokens_total", "Prompt tokens, cached or computed."),
            generation_tokens: counter("generation_tokens_total", "Tokens generated."),
            prefix_queries: counter(
                "prefix_cache_queries_total",
                "Prompt tokens looked up in the prefix cache.",
            ),
            prefix_hits: counter(
                "prefix_cache_hits_total",
                "Prompt tokens found in the prefix cache.",
            ),
            preemptions: counter(
                "num_preemptions_total",
                "Requests that lost their place for want of KV cache.",
            ),
            first_token: histogram(
                "time_to_first_token_seconds",
                "From a request's arrival to its first token.",
                FIRST_TOKEN_BUCKETS,
            ),
            per_token: histogram(
                "time_per_output_token_seconds",
                "From one token to the next.",
                PER_TOKEN_BUCKETS,
            ),
            request: histogram(
                "e2e_request_latency_seconds",
                "From a request's arrival to its end.",
                REQUEST_BUCKETS,
            ),
            finished,
            registry,
        }
    }

    pub(crate) fn admitted(&self, prompt_tokens: usize, cached: usize) {
        self.prompt_tokens.inc_by(prompt_tokens as u64);
        self.prefix_queries.inc_by(prompt_tokens as u64);
        self.prefix_hits.inc_by(cached as u64);
    }

    pub(crate) fn first_token(&self, after: Duration) {
        self.generation_tokens.inc();
        self.first_token.observe(after.as_secs_f64());
    }

    pub(crate) fn further_token(&self, after: Duration) {
        self.generation_tokens.inc();
        self.per_token.observe(after.as_secs_f64());
    }

    pub(crate) fn preempted(&self) {
        self.preemptions.inc();
    }

    pub(crate) fn finished(&self, reason: FinishReason, after: Duration) {
        self.finished.with_label_values(&[reason.as_str()]).inc();
        self.request.observe(after.as_secs_f64());
    }

    /// The Prometheus text format, with the gauges of this moment.
    ///
    /// # Errors
    /// Where a metric cannot be written, which takes a bug in this file.
    pub fn render(&self, load: Load) -> prometheus::Result<Vec<u8>> {
        self.running.set(load.running as f64);
        self.waiting.set(load.waiting as f64);
        self.cache_usage.set(load.cache_usage);
        let mut text = Vec::with_capacity(8 << 10);
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

#[cfg(test)]
impl Metrics {
    pub(crate) fn finished_count(&self, reason: FinishReason) -> u64 {
        self.finished.with_label_values(&[reason.as_str()]).get()
    }

    pub(crate) fn prefix_queries(&self) -> u64 {
        self.prefix_queries.get()
    }

    pub(crate) fn prefix_hits(&self) -> u64 {
        self.prefix_hits.get()
    }

    pub(crate) fn preemptions(&self) -> u64 {
        self.preemptions.get()
    }
}
