//! The control plane's metrics.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{
    Encoder as _, Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

/// All metrics, with handles for those who count.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Sidecars with an open stream.
    pub sidecars: IntGauge,
    /// Deltas sent.
    pub pushes: IntCounter,
    /// Deltas acknowledged.
    pub acks: IntCounter,
    /// Deltas refused, in whole or in part.
    pub nacks: IntCounter,
    /// From sending a delta to its answer.
    pub push: Histogram,
    /// Certificates issued, by `reason`: join, renewal.
    pub certificates: IntCounterVec,
    /// Attempts to join by token, by `result`.
    pub joins: IntCounterVec,
    /// TLS handshakes, by `port` and `result`.
    pub handshakes: IntCounterVec,
    /// Telemetry reports taken in.
    pub reports: IntCounter,
    /// Requests for leases of budgets that were answered.
    pub leases: IntCounter,
    /// Calls to the management port without a right to, by `reason`.
    pub denied: IntCounterVec,
    /// Version of the compiled configuration.
    pub config_version: IntGauge,
    /// Resources by `kind`.
    pub resources: IntGaugeVec,
    ca_expiry: Gauge,
    server_certificate_expiry: Gauge,
}

/// From half a millisecond, a sidecar on the same host, to 10 s, one that is in trouble.
const ACK_BUCKETS: [f64; 13] = [
    0.000_5, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];

const PREFIX: &str = "outrigger_control_plane";

impl Metrics {
    /// Registers all metrics.
    ///
    /// # Errors
    /// Two metrics have one name, or a name is not valid.
    pub fn new() -> Result<Metrics, prometheus::Error> {
        let registry = Registry::new_custom(Some(PREFIX.to_owned()), None)?;
        let make = Make(&registry);
        let info = make.gauges(
            "build_info",
            "Version of the control plane; always 1.",
            &["version"],
        )?;
        info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let metrics = Metrics {
            sidecars: make.gauge("sidecars_connected", "Sidecars with an open stream.")?,
            pushes: make.counter(
                "pushes_total",
                "Deltas of the configuration sent to sidecars.",
            )?,
            acks: make.counter("acks_total", "Deltas that sidecars acknowledged.")?,
            nacks: make.counter(
                "nacks_total",
                "Deltas that sidecars refused, in whole or in part.",
            )?,
            push: make.histogram(
                "push_duration_seconds",
                "Time from sending a delta to the sidecar's answer.",
            )?,
            certificates: make.counters(
                "certificates_issued_total",
                "Certificates issued to sidecars, by reason: join or renewal.",
                &["reason"],
            )?,
            joins: make.counters(
                "token_joins_total",
                "Attempts to join with a token, by result.",
                &["result"],
            )?,
            handshakes: make.counters(
                "tls_handshakes_total",
                "TLS handshakes with clients, by port and result.",
                &["port", "result"],
            )?,
            leases: make.counter(
                "budget_lease_requests_total",
                "Requests of sidecars for leases of token budgets that were answered.",
            )?,
            reports: make.counter(
                "telemetry_reports_total",
                "Reports of golden figures from sidecars.",
            )?,
            denied: make.counters(
                "management_denied_total",
                "Calls of the management API that were refused for who made them, by reason.",
                &["reason"],
            )?,
            config_version: make
                .gauge("config_version", "Version of the compiled configuration.")?,
            resources: make.gauges("resources", "Stored resources by kind.", &["kind"])?,
            ca_expiry: make.float(
                "ca_expiry_timestamp_seconds",
                "When the CA's certificate ends, in seconds since the epoch.",
            )?,
            server_certificate_expiry: make.float(
                "server_certificate_expiry_timestamp_seconds",
                "When the control plane's own certificate ends, in seconds since the epoch.",
            )?,
            registry,
        };
        Ok(metrics)
    }

    /// When the CA's certificate and the control plane's own end.
    pub fn set_expiries(&self, ca: SystemTime, server: SystemTime) {
        let seconds = |at: SystemTime| {
            at.duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs_f64()
        };
        self.ca_expiry.set(seconds(ca));
        self.server_certificate_expiry.set(seconds(server));
    }

    /// Prometheus' text format.
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        // Writing to memory does not fail.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        String::from_utf8(text).unwrap_or_default()
    }
}

struct Make<'a>(&'a Registry);

impl Make<'_> {
    fn register<C: prometheus::core::Collector + Clone + 'static>(
        &self,
        collector: C,
    ) -> Result<C, prometheus::Error> {
        self.0.register(Box::new(collector.clone()))?;
        Ok(collector)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.register(IntCounter::new(name, help)?)
    }

    fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        self.register(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.register(IntGauge::new(name, help)?)
    }

    fn gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntGaugeVec, prometheus::Error> {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    fn float(&self, name: &str, help: &str) -> Result<Gauge, prometheus::Error> {
        self.register(Gauge::new(name, help)?)
    }

    fn histogram(&self, name: &str, help: &str) -> Result<Histogram, prometheus::Error> {
        let options = HistogramOpts::new(name, help).buckets(ACK_BUCKETS.to_vec());
        self.register(Histogram::with_opts(options)?)
    }
}
