//! `outrigger.telemetry.v1.TelemetryService`: takes the sidecars' golden figures in and keeps the last window of each.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use outrigger_proto::telemetry::v1 as wire;
use tonic::{Request, Response, Status};

use crate::discovery::Registry;
use crate::metrics::Metrics;
use crate::push::service::{certificate, speaks_for};

/// The contract's limit.
const MAX_EDGES: usize = 1000;
/// Reports come every ten seconds; three missing ones make the figures old.
const KEEP: Duration = Duration::from_secs(40);
/// Reports kept, at most: one for each sidecar of a large mesh.
const MAX_REPORTS: usize = 20_000;

/// Takes reports in.
#[derive(Clone, Debug)]
pub struct Telemetry {
    registry: Arc<Registry>,
    metrics: Arc<Metrics>,
    reports: Arc<Reports>,
}

/// The last report of each sidecar.
#[derive(Debug, Default)]
pub struct Reports {
    latest: Mutex<HashMap<String, (Instant, Arc<wire::ReportRequest>)>>,
}

impl Reports {
    /// The reports of the last moments, one for each sidecar that sent one.
    pub fn latest(&self) -> Vec<Arc<wire::ReportRequest>> {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = latest.values().filter(|(at, _)| at.elapsed() < KEEP);
        fresh.map(|(_, report)| report.clone()).collect()
    }

    fn put(&self, report: wire::ReportRequest) {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.len() >= MAX_REPORTS {
            latest.retain(|_, (at, _)| at.elapsed() < KEEP);
        }
        if latest.len() < MAX_REPORTS || latest.contains_key(&report.instance) {
            latest.insert(report.instance.clone(), (Instant::now(), Arc::new(report)));
        }
    }
}

impl Telemetry {
    pub fn new(registry: Arc<Registry>, metrics: Arc<Metrics>, reports: Arc<Reports>) -> Telemetry {
        Telemetry {
            registry,
            metrics,
            reports,
        }
    }
}

#[tonic::async_trait]
impl wire::telemetry_service_server::TelemetryService for Telemetry {
    async fn report(
        &self,
        request: Request<wire::ReportRequest>,
    ) -> Result<Response<wire::ReportResponse>, Status> {
        let certificate = certificate(request.extensions())?;
        let mut report = request.into_inner();
        report.instance.make_ascii_lowercase();
        speaks_for(&self.registry, &report.instance, &certificate.identity)?;
        if report.edges.len() > MAX_EDGES {
            return Err(Status::invalid_argument(format!(
                "the report has {} edges, at most {MAX_EDGES} are allowed",
                report.edges.len()
            )));
        }
        super::endpoint_health::check(&report).map_err(Status::invalid_argument)?;
        self.metrics.reports.inc();
        self.reports.put(report);
        Ok(Response::new(wire::ReportResponse {}))
    }
}

#[cfg(test)]
mod tests;
