//! Outlier detection and active checks, from what users write to what sidecars read.

use outrigger_proto::dataplane::v1 as wire;
use wire::health_check::Check;

use super::policy::duration;
use crate::model::{HealthCheck, MeshSpec, OutlierDetection, ServiceSpec};

/// The service's, or the mesh's. `None`: off.
pub(super) fn outlier_detection(
    service: &ServiceSpec,
    mesh: &MeshSpec,
) -> Option<wire::OutlierDetection> {
    let policy: OutlierDetection = service.outlier_detection.or(mesh.outlier_detection)?;
    let rate = policy.success_rate();
    let success_rate = (rate.minimum_hosts() > 0).then(|| wire::SuccessRate {
        minimum_hosts: rate.minimum_hosts(),
        request_volume: rate.request_volume(),
        stdev_factor_thousandths: rate.stdev_factor().0,
    });
    policy.enabled().then(|| wire::OutlierDetection {
        consecutive_5xx: policy.consecutive5xx(),
        consecutive_gateway_failures: policy.consecutive_gateway_failures(),
        consecutive_connect_failures: policy.consecutive_connect_failures(),
        interval: duration(policy.interval()),
        base_ejection_time: duration(policy.base_ejection_time()),
        max_ejection_time: duration(policy.max_ejection_time()),
        max_ejection_percent: policy.max_ejection_percent(),
        min_healthy_percent: policy.min_healthy_percent(),
        success_rate,
    })
}

/// `own`: the service's own host, `<name>.<namespace>`.
pub(super) fn health_checks(service: &ServiceSpec, own: &str) -> Vec<wire::HealthCheck> {
    let host = |given: &Option<String>| given.clone().unwrap_or_else(|| own.to_owned());
    let compile = |check: &HealthCheck| {
        let asked = match (&check.http, &check.grpc) {
            (Some(http), _) => {
                let expected = http.expected().into_iter();
                Check::Http(wire::HttpCheck {
                    path: http.path.clone(),
                    host: host(&http.host),
                    expected_statuses: expected
                        .map(|(first, last)| wire::StatusRange {
                            first: first.into(),
                            last: last.into(),
                        })
                        .collect(),
                })
            }
            (None, Some(grpc)) => Check::Grpc(wire::GrpcCheck {
                service: grpc.service.clone().unwrap_or_default(),
                host: host(&grpc.host),
            }),
            (None, None) => Check::Tcp(wire::TcpCheck {}),
        };
        let http = !matches!(asked, Check::Tcp(_));
        Some(wire::HealthCheck {
            check: Some(asked),
            port: port(service, check, http)?.into(),
            interval: duration(check.interval()),
            timeout: duration(check.timeout()),
            unhealthy_threshold: check.unhealthy_threshold(),
            healthy_threshold: check.healthy_threshold(),
        })
    };
    service.health_checks.iter().filter_map(compile).collect()
}

/// The port that is asked: the one that is meant where none is named, as long as it understands the question.
fn port(service: &ServiceSpec, check: &HealthCheck, http: bool) -> Option<u16> {
    if let Some(port) = check.port {
        return Some(port);
    }
    let default = service.default_port()?;
    let speaks = || service.ports.iter().find(|port| port.protocol.is_http());
    let port = if http && !default.protocol.is_http() {
        speaks()?
    } else {
        default
    };
    Some(port.port)
}
