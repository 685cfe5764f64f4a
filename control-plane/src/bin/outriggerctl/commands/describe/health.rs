//! Outlier detection and active checks in words, and the endpoints that sidecars keep away from.

use outrigger_control_plane::model::{HealthCheck, OutlierDetection};
use serde_json::Value;

use super::sheet::Sheet;
use crate::output::table::Table;

/// The values in effect, one line for each question.
pub fn outlier_detection(policy: &OutlierDetection) -> String {
    if !policy.enabled() {
        return "off".to_owned();
    }
    let counts = [
        (policy.consecutive5xx(), "failures"),
        (policy.consecutive_gateway_failures(), "gateway failures"),
        (policy.consecutive_connect_failures(), "failed connects"),
    ];
    let counts: Vec<String> = counts
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    let mut lines = Vec::new();
    if !counts.is_empty() {
        lines.push(format!("after {} in a row", counts.join(", or ")));
    }
    let rate = policy.success_rate();
    if rate.minimum_hosts() > 0 {
        lines.push(format!(
            "success rate below mean - {} x standard deviation every {} ({} endpoints with {} requests)",
            rate.stdev_factor(),
            policy.interval(),
            rate.minimum_hosts(),
            rate.request_volume(),
        ));
    }
    lines.push(format!(
        "out for {} x times ejected, up to {}; then one request decides",
        policy.base_ejection_time(),
        policy.max_ejection_time(),
    ));
    let mut floor = format!(
        "at most {} % of the endpoints",
        policy.max_ejection_percent()
    );
    if policy.min_healthy_percent() > 0 {
        floor.push_str(&format!(", {} % stay", policy.min_healthy_percent()));
    }
    lines.push(format!(
        "{floor}; one may always be out, and the last one never"
    ));
    lines.join("\n")
}

/// One line.
pub fn check(check: &HealthCheck) -> String {
    let mut what = match (&check.http, &check.grpc) {
        (Some(http), _) => {
            let statuses: Vec<String> = http
                .expected()
                .into_iter()
                .map(|(first, last)| {
                    if first == last {
                        first.to_string()
                    } else {
                        format!("{first}-{last}")
                    }
                })
                .collect();
            let host = http
                .host
                .as_ref()
                .map_or_else(String::new, |host| format!(" of {host}"));
            format!("GET {}{host} answers {}", http.path, statuses.join(", "))
        }
        (None, Some(grpc)) => match &grpc.service {
            Some(service) => format!("grpc.health.v1 says that {service} serves"),
            None => "grpc.health.v1 says that it serves".to_owned(),
        },
        (None, None) => "a TCP connection stays open".to_owned(),
    };
    if let Some(port) = check.port {
        what.push_str(&format!(" on port {port}"));
    }
    format!(
        "{what}; every {} within {}; unhealthy after {}, healthy after {}",
        check.interval(),
        check.timeout(),
        check.unhealthy_threshold(),
        check.healthy_threshold(),
    )
}

/// What the status of a service says of endpoints; nothing where all are well.
pub fn unavailable(status: &Value, sheet: &mut Sheet) {
    let Some(endpoints) = status["unavailableEndpoints"].as_array() else {
        return;
    };
    let mut table = Table::new(vec![
        "ADDRESS",
        "EJECTED BY",
        "UNHEALTHY BY",
        "PROBING BY",
        "OF",
        "REASON",
    ]);
    for endpoint in endpoints {
        let count = |name: &str| (endpoint[name].as_f64().unwrap_or(0.0) as u64).to_string();
        let text = |name: &str| endpoint[name].as_str().unwrap_or_default();
        let detail = text("detail");
        let reason = if detail.is_empty() {
            text("reason").to_owned()
        } else {
            format!("{}: {detail}", text("reason"))
        };
        table.row(vec![
            text("address").into(),
            count("ejectedBy").into(),
            count("unhealthyBy").into(),
            count("probingBy").into(),
            count("reporting").into(),
            reason.into(),
        ]);
    }
    sheet.section("Not used by sidecars (as of their last reports)");
    sheet.table(&table);
}
