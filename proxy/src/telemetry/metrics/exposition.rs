//! Gathers all figures and writes them out.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

use prometheus::TextEncoder;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

use super::catalog::{self, Family};
use super::connection::{Side, Wire};
use super::engine;
use super::histogram::{self, BOUNDS_MS};
use super::process::Process;
use super::request::RequestMetrics;
use super::{Metrics, admission};
use crate::balance::EndpointState;
use crate::policy::Snapshot;
use crate::shared::Shared;
use crate::telemetry::Direction;
use crate::telemetry::trace::Fate;

/// The media type of what [`render`] returns.
pub(crate) const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

pub(super) fn render(metrics: &Metrics, shared: &Shared) -> String {
    let mut page = Page::default();
    requests(&mut page, metrics);
    metrics.filters.render(&mut page);
    balancing(&mut page, metrics);
    connections(&mut page, metrics);
    protocols(&mut page, metrics);
    control(&mut page, metrics);
    metrics.admission.write(&mut page);
    metrics.models.render(&mut page, &metrics.all_requests());
    metrics.salts.write(&mut page);
    metrics.load_reports.write(&mut page);
    engine::write_snapshot(&mut page, &shared.snapshot.load());
    shared_state(&mut page, shared);
    metrics.dns.write(&mut page, &shared.snapshot.load());
    process(&mut page, Process::read());
    page.write()
}

fn requests(page: &mut Page, metrics: &Metrics) {
    let kinds = metrics.all_requests();
    let mut latencies = BTreeMap::new();
    let mut services = BTreeMap::new();
    let mut retries = BTreeMap::new();
    for kind in &kinds {
        let labels = &kind.labels;
        let (direction, service, route) = (labels.direction, &*labels.service, &*labels.route);
        kind.each_count(|code, reason, count| {
            let values = [
                direction.as_str(),
                service,
                route,
                &labels.peer,
                code,
                reason,
            ];
            page.add(catalog::REQUESTS, &values, count as f64);
        });
        latencies.insert((direction, service, route), &kind.latency);
        let sum: &mut super::Totals = services.entry((direction, service)).or_default();
        *sum += kind.totals();
        add_retries(&mut retries, kind);
    }
    for ((direction, service, route), latency) in latencies {
        let labels = [direction.as_str(), service, route];
        page.add_histogram(catalog::REQUEST_DURATION, &labels, &latency.duration);
        page.add_histogram(catalog::FIRST_BYTE, &labels, &latency.first_byte);
    }
    for ((direction, service), totals) in services {
        let labels = [direction.as_str(), service];
        page.add(catalog::REQUEST_BYTES, &labels, totals.request_bytes as f64);
        page.add(
            catalog::RESPONSE_BYTES,
            &labels,
            totals.response_bytes as f64,
        );
        page.add(catalog::IN_FLIGHT, &labels, totals.in_flight as f64);
    }
    for ((name, service, route, word), count) in retries {
        let families = [catalog::RETRIES, catalog::RETRIES_REFUSED, catalog::HEDGES];
        let family = families.into_iter().find(|family| family.name == name);
        if let Some(family) = family {
            page.add(family, &[service, route, word], count as f64);
        }
    }
    metrics
        .continuations
        .each_count(|service, by, result, count| {
            let values = [service, by.as_str(), result.as_str()];
            page.add(catalog::CONTINUATIONS, &values, count as f64);
        });
    metrics.fallbacks.each_count(|labels, cause, count| {
        let values = [
            &*labels.service,
            &*labels.route,
            cause.as_str(),
            &*labels.to,
            &*labels.model,
        ];
        page.add(catalog::FALLBACKS, &values, count as f64);
    });
}

type RetryLabels<'a> = (&'static str, &'a str, &'a str, &'static str);

/// Retries have no label for the backend: summed over them.
fn add_retries<'a>(sums: &mut BTreeMap<RetryLabels<'a>, u64>, kind: &'a RequestMetrics) {
    let (service, route) = (&*kind.labels.service, &*kind.labels.route);
    let made = kind
        .retries
        .read_made()
        .map(|(cause, n)| (catalog::RETRIES.name, cause.as_str(), n));
    let refused = kind
        .retries
        .read_refused()
        .map(|(why, n)| (catalog::RETRIES_REFUSED.name, why.as_str(), n));
    let hedges = kind
        .retries
        .hedges
        .read()
        .map(|(result, n)| (catalog::HEDGES.name, result.as_str(), n));
    let all = made.chain(refused).chain(hedges);
    for (name, word, count) in all.filter(|(_, _, count)| *count > 0) {
        *sums.entry((name, service, route, word)).or_default() += count;
    }
}

/// What a service does not use has no series.
fn balancing(page: &mut Page, metrics: &Metrics) {
    for (service, figures) in metrics.all_balancing().iter() {
        let panic_picks = figures.panic_picks();
        if panic_picks > 0 {
            page.add(
                catalog::BALANCING_PANIC_PICKS,
                &[service],
                panic_picks as f64,
            );
        }
        for (zone, count) in figures.zone_picks().into_iter().filter(|(_, n)| *n > 0) {
            page.add(
                catalog::BALANCING_ZONE_PICKS,
                &[service, zone],
                count as f64,
            );
        }
        for (how, count) in figures.hash_picks().filter(|(_, n)| *n > 0) {
            page.add(
                catalog::BALANCING_HASH_PICKS,
                &[service, how.as_str()],
                count as f64,
            );
        }
        for (outcome, count) in figures.sessions().filter(|(_, n)| *n > 0) {
            page.add(
                catalog::SESSIONS,
                &[service, outcome.as_str()],
                count as f64,
            );
        }
    }
}

fn connections(page: &mut Page, metrics: &Metrics) {
    for direction in Direction::ALL {
        for side in Side::ALL {
            let labels = [direction.as_str(), side.as_str()];
            page.add(
                catalog::CONNECTIONS_OPEN,
                &labels,
                metrics.connections.open(direction, side) as f64,
            );
            for wire in Wire::ALL {
                let labels = [direction.as_str(), side.as_str(), wire.as_str()];
                let opened = metrics.connections.opened(direction, side, wire);
                page.add(catalog::CONNECTIONS, &labels, opened as f64);
            }
        }
        for (result, count) in metrics.handshakes.read(direction) {
            page.add(
                catalog::HANDSHAKES,
                &[direction.as_str(), result],
                count as f64,
            );
        }
    }
}

fn protocols(page: &mut Page, metrics: &Metrics) {
    let figures = &metrics.protocols;
    figures.each_reused(|labels, n| page.add(catalog::POOL_REUSED, &labels, n as f64));
    figures.each_closed(|labels, n| page.add(catalog::POOL_CLOSED, &labels, n as f64));
    for direction in Direction::ALL {
        let waiting = figures.waiting(direction);
        page.add(catalog::POOL_WAITING, &[direction.as_str()], waiting as f64);
    }
    figures.each_detection(|labels, n| page.add(catalog::DETECTIONS, &labels, n as f64));
    figures.each_passthrough(|labels, n| page.add(catalog::TLS_PASSTHROUGH, &labels, n as f64));
    figures.each_proxy_refusal(|labels, n| {
        page.add(catalog::PROXY_HEADERS_REFUSED, &labels, n as f64);
    });
}

fn control(page: &mut Page, metrics: &Metrics) {
    page.add(
        catalog::CONFIG_UPDATES,
        &[],
        metrics.config_updates.load(Relaxed) as f64,
    );
    for (kind, count) in metrics.rejections.read() {
        page.add(catalog::CONFIG_REJECTIONS, &[kind], count as f64);
    }
    let connected = metrics.control_plane_connected.load(Relaxed);
    page.add(catalog::CONNECTED, &[], f64::from(u8::from(connected)));
    for (result, count) in ["ok", "failed"].into_iter().zip(&metrics.renewals) {
        page.add(catalog::RENEWALS, &[result], count.load(Relaxed) as f64);
    }
    page.add(catalog::BUILD, &[env!("CARGO_PKG_VERSION")], 1.0);
}

fn shared_state(page: &mut Page, shared: &Shared) {
    let snapshot = shared.snapshot.load();
    page.add(catalog::CONFIG_VERSION, &[], snapshot.version as f64);
    endpoints(page, &snapshot);
    admission::write_snapshot(page, &snapshot);
    if shared.traces.is_used() {
        for fate in Fate::ALL {
            let count = shared.traces.count(fate);
            page.add(catalog::TRACE_SPANS, &[fate.as_str()], count as f64);
        }
    }
    if let Some(tls) = shared.tls.load().as_ref() {
        let since_1970 = tls
            .not_after
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        page.add(
            catalog::CERTIFICATE_EXPIRY,
            &[],
            since_1970.as_secs() as f64,
        );
    }
    page.add(
        catalog::LOG_DROPPED,
        &[],
        shared.access_log.dropped() as f64,
    );
}

fn endpoints(page: &mut Page, snapshot: &Snapshot) {
    for upstream in snapshot.upstreams() {
        let outliers = &upstream.health.outliers;
        if !upstream.health.checks.is_empty() {
            for (result, count) in outliers.checks() {
                let labels = [&*upstream.service, result];
                page.add(catalog::HEALTH_CHECKS, &labels, count as f64);
            }
        }
        let watched = outliers.policy().is_some();
        for (cause, count) in outliers.ejections() {
            // From 0 on, where they can happen: a rate needs the first one, too.
            if watched || count > 0 {
                let labels = [&*upstream.service, cause.as_str()];
                page.add(catalog::EJECTIONS, &labels, count as f64);
            }
        }
        let stats = upstream.endpoints.stats();
        let panic = f64::from(u8::from(upstream.endpoints.is_panic()));
        page.add(catalog::BALANCING_PANIC, &[&upstream.service], panic);
        for state in EndpointState::ALL {
            let count = stats
                .iter()
                .filter(|endpoint| endpoint.state == state)
                .count();
            page.add(
                catalog::ENDPOINTS,
                &[&upstream.service, state.as_str()],
                count as f64,
            );
        }
    }
}

fn process(page: &mut Page, process: Process) {
    let figures = [
        (catalog::CPU, process.cpu_seconds),
        (catalog::RESIDENT, process.resident_bytes),
        (catalog::VIRTUAL, process.virtual_bytes),
        (catalog::OPEN_FDS, process.open_fds),
        (catalog::MAX_FDS, process.max_fds),
        (catalog::THREADS, process.threads),
        (catalog::START_TIME, process.start_seconds),
    ];
    for (family, value) in figures {
        if let Some(value) = value {
            page.add(family, &[], value);
        }
    }
}

/// The families of one scrape, by name.
#[derive(Default)]
pub(super) struct Page {
    families: BTreeMap<&'static str, (Family, Vec<Metric>)>,
}

impl Page {
    pub(super) fn add(&mut self, family: Family, values: &[&str], value: f64) {
        let mut metric = metric(family, values);
        if family.kind == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.push(family, metric);
    }

    pub(super) fn add_histogram(
        &mut self,
        family: Family,
        values: &[&str],
        figures: &histogram::Histogram,
    ) {
        let (counts, sum) = figures.read();
        let bounds = BOUNDS_MS.map(|bound| bound as f64 / 1e3);
        self.add_buckets(family, values, &bounds, &counts, sum);
    }

    /// `counts`: not cumulative; the last one is for everything above.
    pub(super) fn add_buckets(
        &mut self,
        family: Family,
        values: &[&str],
        bounds: &[f64],
        counts: &[u64],
        sum: f64,
    ) {
        let mut total = 0;
        let mut buckets = Vec::with_capacity(bounds.len());
        for (bound, count) in bounds.iter().zip(counts) {
            total += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(total);
            buckets.push(bucket);
        }
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(counts.iter().sum());
        histogram.set_sample_sum(sum);
        let mut metric = metric(family, values);
        metric.set_histogram(histogram);
        self.push(family, metric);
    }

    fn push(&mut self, family: Family, metric: Metric) {
        self.families
            .entry(family.name)
            .or_insert_with(|| (family, Vec::new()))
            .1
            .push(metric);
    }

    fn write(self) -> String {
        let families: Vec<MetricFamily> = self
            .families
            .into_values()
            .map(|(family, metrics)| {
                let mut written = MetricFamily::default();
                written.set_name(family.name.to_owned());
                written.set_help(family.help.to_owned());
                written.set_field_type(family.kind);
                written.set_metric(metrics);
                written
            })
            .collect();
        let mut text = String::with_capacity(64 << 10);
        if let Err(error) = TextEncoder::new().encode_utf8(&families, &mut text) {
            // It refuses families without a name or without figures; there is none of either here.
            tracing::error!(%error, "the metrics could not be written");
        }
        text
    }
}

fn metric(family: Family, values: &[&str]) -> Metric {
    debug_assert_eq!(family.labels.len(), values.len(), "{}", family.name);
    let pairs = family.labels.iter().zip(values).map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    Metric::from_label(pairs.collect())
}
