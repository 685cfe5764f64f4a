//! Golden figures per edge, reported to the control plane every ten seconds.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use outrigger_proto::telemetry::v1 as proto;
use outrigger_proto::telemetry::v1::telemetry_service_client::TelemetryServiceClient;
use tokio::time::{Instant, MissedTickBehavior};
use tonic::transport::Channel;

mod health;

use super::Direction;
use super::metrics::{Metrics, RequestMetrics};
use crate::shared::Shared;

/// Between two reports.
pub const INTERVAL: Duration = Duration::from_secs(10);

/// Most edges in a report; the busiest are kept.
pub const MAX_EDGES: usize = 1000;

/// A report that takes longer is given up: the next one is due.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Reports until the task is dropped. A report that fails is lost: that costs a gap in a graph and nothing else.
pub async fn run(shared: Arc<Shared>, instance: String, channel: Channel) {
    let mut client = TelemetryServiceClient::new(channel);
    let mut reporter = Reporter::new(instance, &shared.metrics);
    let mut was_unwell = false;
    let mut ticks = tokio::time::interval_at(Instant::now() + INTERVAL, INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let own_id = shared.tls.load().as_ref().map(|tls| tls.id.to_string());
        let mut report = reporter.collect(&shared.metrics, &own_id.unwrap_or_default());
        report.endpoints = health::endpoints(&shared.snapshot.load());
        let unwell = !report.endpoints.is_empty();
        // Once more when all is well again: the last word must not be the opposite.
        if report.edges.is_empty() && !unwell && !std::mem::replace(&mut was_unwell, unwell) {
            continue;
        }
        was_unwell = unwell;
        match tokio::time::timeout(TIMEOUT, client.report(report)).await {
            Ok(Ok(_)) => {}
            Ok(Err(status)) => tracing::debug!(%status, "the control plane took no report"),
            Err(_) => tracing::debug!("the control plane did not take a report in time"),
        }
    }
}

/// Remembers what was reported, so that a report holds the difference.
#[derive(Debug)]
pub struct Reporter {
    instance: String,
    reported_at: Instant,
    before: HashMap<EdgeKey, Figures>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct EdgeKey {
    direction: Direction,
    /// Of the caller on inbound edges; empty on outbound ones, where it is this sidecar.
    source: Arc<str>,
    service: Arc<str>,
}

type Figures = super::metrics::Totals;

impl Reporter {
    /// Starts from what has been counted until now.
    pub fn new(instance: String, metrics: &Metrics) -> Reporter {
        Reporter {
            instance,
            reported_at: Instant::now(),
            before: totals(&metrics.all_requests()),
        }
    }

    /// The report for the time since the last one. `own_id`: the SPIFFE id of this sidecar.
    pub fn collect(&mut self, metrics: &Metrics, own_id: &str) -> proto::ReportRequest {
        let now = Instant::now();
        let window = now - self.reported_at;
        let totals = totals(&metrics.all_requests());
        let edges = edges(&totals, &self.before, own_id);
        self.before = totals;
        self.reported_at = now;
        proto::ReportRequest {
            instance: self.instance.clone(),
            at: Some(SystemTime::now().into()),
            window: window.try_into().ok(),
            edges,
            endpoints: Vec::new(),
        }
    }
}

/// Sums by edge: routes do not tell edges apart.
fn totals(requests: &[Arc<RequestMetrics>]) -> HashMap<EdgeKey, Figures> {
    let mut sums: HashMap<EdgeKey, Figures> = HashMap::new();
    for each in requests {
        let key = match each.direction() {
            Direction::Inbound => EdgeKey {
                direction: Direction::Inbound,
                source: each.peer().clone(),
                service: each.service().clone(),
            },
            // The service that did the work, not the one that a route split: the same name as in its own reports.
            Direction::Outbound => EdgeKey {
                direction: Direction::Outbound,
                source: Arc::default(),
                service: if each.peer().is_empty() {
                    each.service()
                } else {
                    each.peer()
                }
                .clone(),
            },
        };
        *sums.entry(key).or_default() += each.totals();
    }
    sums
}

fn edges(
    totals: &HashMap<EdgeKey, Figures>,
    before: &HashMap<EdgeKey, Figures>,
    own_id: &str,
) -> Vec<proto::Edge> {
    let mut edges: Vec<proto::Edge> = totals
        .iter()
        .filter_map(|(key, total)| {
            let figures = total.since(before.get(key).copied().unwrap_or_default());
            (figures.requests > 0 || figures.in_flight > 0).then(|| edge(key, figures, own_id))
        })
        .collect();
    edges.sort_unstable_by(|a, b| {
        (b.requests, b.in_flight)
            .cmp(&(a.requests, a.in_flight))
            .then_with(|| a.service.cmp(&b.service))
    });
    edges.truncate(MAX_EDGES);
    edges
}

fn edge(key: &EdgeKey, figures: Figures, own_id: &str) -> proto::Edge {
    let (direction, source) = match key.direction {
        Direction::Inbound => (proto::Direction::Inbound, &*key.source),
        Direction::Outbound => (proto::Direction::Outbound, own_id),
    };
    proto::Edge {
        direction: direction.into(),
        source: source.to_owned(),
        service: key.service.to_string(),
        requests: figures.requests,
        failures: figures.failures,
        duration_ms_sum: figures.duration_ms,
        request_bytes: figures.request_bytes,
        response_bytes: figures.response_bytes,
        in_flight: figures.in_flight,
    }
}

#[cfg(test)]
mod tests;
