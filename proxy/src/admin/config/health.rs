//! How the health of a service's endpoints is watched.

use serde_json::{Value, json};

use super::millis;
use crate::policy::health::{Check, CheckKind, ServiceHealth};
use crate::resilience::outlier::Policy;

pub(super) fn describe(health: &ServiceHealth) -> Value {
    json!({
        "outlier_detection": health.outliers.policy().map(|policy| outliers(&policy)),
        "checks": health.checks.iter().map(check).collect::<Vec<_>>(),
    })
}

fn outliers(policy: &Policy) -> Value {
    let [server, gateway, connect] = policy.consecutive;
    json!({
        "consecutive_5xx": server,
        "consecutive_gateway_failures": gateway,
        "consecutive_connect_failures": connect,
        "interval_ms": millis(policy.interval),
        "base_ejection_time_ms": millis(policy.base_ejection_time),
        "max_ejection_time_ms": millis(policy.max_ejection_time),
        "max_ejection_percent": policy.max_ejection_percent,
        "min_healthy_percent": policy.min_healthy_percent,
        "success_rate": policy.success_rate.as_ref().map(|rate| json!({
            "minimum_hosts": rate.minimum_hosts,
            "request_volume": rate.request_volume,
            "stdev_factor": rate.stdev_factor,
        })),
    })
}

fn check(check: &Check) -> Value {
    let what = &check.what;
    let (host, path, service) = match &what.kind {
        CheckKind::Http { host, path, .. } => (Some(host.as_str()), Some(path.as_str()), None),
        CheckKind::Grpc { host, service } => (Some(host.as_str()), None, Some(service.as_str())),
        CheckKind::Tcp => (None, None, None),
    };
    let statuses = match &what.kind {
        CheckKind::Http { expected, .. } => {
            let range = |range: &std::ops::RangeInclusive<u16>| [*range.start(), *range.end()];
            Some(expected.iter().map(range).collect::<Vec<_>>())
        }
        _ => None,
    };
    json!({
        "type": what.kind.as_str(),
        "port": what.port,
        "host": host,
        "path": path,
        "service": service,
        "expected_statuses": statuses,
        "interval_ms": millis(what.interval),
        "timeout_ms": millis(what.timeout),
        "unhealthy_threshold": what.unhealthy_threshold,
        "healthy_threshold": what.healthy_threshold,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::policy::Protocol;
    use crate::policy::health::HealthCheck;

    #[test]
    fn what_is_watched_is_shown() {
        let off = json!({ "outlier_detection": null, "checks": [] });
        assert_eq!(describe(&ServiceHealth::default()), off);
        let check = |kind| Check {
            what: HealthCheck {
                kind,
                port: 80,
                interval: Duration::from_secs(10),
                timeout: Duration::from_secs(1),
                unhealthy_threshold: 3,
                healthy_threshold: 2,
            },
            protocol: Protocol::Http,
            server_name: "chat".try_into().unwrap(),
        };
        let health = ServiceHealth {
            outliers: Arc::default(),
            checks: [
                check(CheckKind::Http {
                    path: "/health".parse().unwrap(),
                    host: "chat".parse().unwrap(),
                    expected: vec![200..=299, 404..=404],
                }),
                check(CheckKind::Grpc {
                    service: "x.Y".into(),
                    host: "chat".parse().unwrap(),
                }),
                check(CheckKind::Tcp),
            ]
            .into(),
        };
        let policy = Arc::new(Policy::default());
        health.outliers.update(Some(&policy), &[], &[]);
        let shown = describe(&health);
        assert_eq!(
            shown["outlier_detection"],
            json!({
                "consecutive_5xx": 5, "consecutive_gateway_failures": 5, "consecutive_connect_failures": 5,
                "interval_ms": 10_000, "base_ejection_time_ms": 30_000, "max_ejection_time_ms": 300_000,
                "max_ejection_percent": 10, "min_healthy_percent": 0,
                "success_rate": { "minimum_hosts": 5, "request_volume": 100, "stdev_factor": 1.9 },
            })
        );
        let checks = shown["checks"].as_array().unwrap();
        assert_eq!(
            checks[0],
            json!({
                "type": "http", "port": 80, "host": "chat", "path": "/health", "service": null,
                "expected_statuses": [[200, 299], [404, 404]],
                "interval_ms": 10_000, "timeout_ms": 1000, "unhealthy_threshold": 3, "healthy_threshold": 2,
            })
        );
        assert_eq!(
            (&checks[1]["type"], &checks[1]["service"]),
            (&json!("grpc"), &json!("x.Y"))
        );
        assert_eq!(checks[2]["type"], "tcp");
    }
}
