//! Outlier detection and active checks.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use http::uri::Authority;
use outrigger_proto::dataplane::v1 as wire;
use wire::health_check::Check;

use super::{Reason, port, timeout};
use crate::policy::ServicePort;
use crate::policy::health::{CheckKind, HealthCheck};
use crate::resilience::outlier::{Policy, SuccessRate};

/// Checks of a service. More would each ask every endpoint.
const MAX_CHECKS: usize = 4;

pub(super) fn outlier_detection(
    wire: Option<&wire::OutlierDetection>,
) -> Result<Option<Arc<Policy>>, Reason> {
    wire.map(|wire| {
        policy(wire)
            .map(Arc::new)
            .map_err(|problem| format!("outlier_detection.{problem}"))
    })
    .transpose()
}

fn policy(wire: &wire::OutlierDetection) -> Result<Policy, Reason> {
    let percent = |field: &str, least: u32, found: u32| {
        if (least..=100).contains(&found) {
            Ok(found)
        } else {
            Err(format!("{field}: {found} is not within {least} to 100"))
        }
    };
    let success_rate = wire.success_rate.as_ref().map(|rate| SuccessRate {
        minimum_hosts: rate.minimum_hosts,
        request_volume: rate.request_volume,
        stdev_factor: f64::from(rate.stdev_factor_thousandths) / 1e3,
    });
    Ok(Policy {
        consecutive: [
            wire.consecutive_5xx,
            wire.consecutive_gateway_failures,
            wire.consecutive_connect_failures,
        ],
        interval: required("interval", wire.interval)?,
        base_ejection_time: required("base_ejection_time", wire.base_ejection_time)?,
        max_ejection_time: required("max_ejection_time", wire.max_ejection_time)?,
        max_ejection_percent: percent("max_ejection_percent", 1, wire.max_ejection_percent)?,
        min_healthy_percent: percent("min_healthy_percent", 0, wire.min_healthy_percent)?,
        success_rate,
    })
}

fn required(field: &str, wire: Option<prost_types::Duration>) -> Result<Duration, Reason> {
    timeout(field, wire)?.ok_or_else(|| format!("{field}: unset"))
}

pub(super) fn checks(
    checks: &[wire::HealthCheck],
    ports: &[ServicePort],
) -> Result<Vec<HealthCheck>, Reason> {
    if checks.len() > MAX_CHECKS {
        return Err(format!(
            "health_checks: {} of them, at most {MAX_CHECKS} are allowed",
            checks.len()
        ));
    }
    super::list("health_checks", checks, |wire| check(wire, ports))
}

fn check(wire: &wire::HealthCheck, ports: &[ServicePort]) -> Result<HealthCheck, Reason> {
    let kind = match &wire.check {
        Some(Check::Http(http)) => CheckKind::Http {
            path: Some(&http.path)
                .filter(|path| path.starts_with('/'))
                .and_then(|path| path.parse().ok())
                .ok_or_else(|| format!("http.path: {:?} is not a path", http.path))?,
            host: host("http.host", &http.host)?,
            expected: expected(&http.expected_statuses)?,
        },
        Some(Check::Grpc(grpc)) => CheckKind::Grpc {
            service: grpc.service.clone(),
            host: host("grpc.host", &grpc.host)?,
        },
        Some(Check::Tcp(_)) => CheckKind::Tcp,
        None => return Err("check: neither http nor grpc nor tcp".into()),
    };
    let port = port("port", wire.port)?;
    if !ports.iter().any(|known| known.port == port) {
        return Err(format!("port: {port} is not one of the service's"));
    }
    let threshold = |field: &str, found: u32| match found {
        0 => Err(format!("{field}: 0 is not above 0")),
        found => Ok(found),
    };
    Ok(HealthCheck {
        kind,
        port,
        interval: required("interval", wire.interval)?,
        timeout: required("timeout", wire.timeout)?,
        unhealthy_threshold: threshold("unhealthy_threshold", wire.unhealthy_threshold)?,
        healthy_threshold: threshold("healthy_threshold", wire.healthy_threshold)?,
    })
}

fn host(field: &str, text: &str) -> Result<Authority, Reason> {
    text.parse()
        .map_err(|_| format!("{field}: {text:?} is not an authority"))
}

fn expected(ranges: &[wire::StatusRange]) -> Result<Vec<RangeInclusive<u16>>, Reason> {
    if ranges.is_empty() {
        return Err("http.expected_statuses: empty, no answer would do".into());
    }
    super::list("http.expected_statuses", ranges, |range| {
        let status = |number: u32| {
            u16::try_from(number)
                .ok()
                .filter(|n| (100..600).contains(n))
        };
        match (status(range.first), status(range.last)) {
            (Some(first), Some(last)) if first <= last => Ok(first..=last),
            _ => Err(format!(
                ": {} to {} is not a range of statuses (100 to 599)",
                range.first, range.last
            )),
        }
    })
}

#[cfg(test)]
mod tests;
