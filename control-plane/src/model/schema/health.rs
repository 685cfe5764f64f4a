//! Tables of outlier detection and active checks.

use serde_json::{Map, Value};

use super::checks;
use super::common::PORT;
use super::report::{Report, quote};
use super::shape::{Field, List, Object, Shape};
use crate::model::{Duration, Protocol, ServicePort};

const COUNT: Shape = Shape::Integer(0, 1_000_000);
const INTERVAL: Shape = Shape::Duration(Duration::from_millis(100), Duration::from_secs(3600));
const EJECTION: Shape = Shape::Duration(Duration::from_millis(100), Duration::from_secs(86_400));

static SUCCESS_RATE: Object = Object::new(&[
    Field::optional("minimumHosts", COUNT),
    Field::optional("requestVolume", Shape::Integer(1, 1_000_000)),
    Field::optional("stdevFactor", Shape::Decimal(0, 100)),
]);

pub(super) static OUTLIER_DETECTION: Object = Object::with_rule(
    &[
        Field::optional("enabled", Shape::Bool),
        Field::optional("consecutive5xx", COUNT),
        Field::optional("consecutiveGatewayFailures", COUNT),
        Field::optional("consecutiveConnectFailures", COUNT),
        Field::optional("interval", INTERVAL),
        Field::optional("baseEjectionTime", EJECTION),
        Field::optional("maxEjectionTime", EJECTION),
        Field::optional("maxEjectionPercent", Shape::Integer(1, 100)),
        Field::optional("minHealthyPercent", Shape::Integer(0, 100)),
        Field::optional("successRate", Shape::Object(&SUCCESS_RATE)),
    ],
    check_ejection_times,
);

fn check_ejection_times(members: &Map<String, Value>, report: &mut Report) {
    let read = |name| {
        let text = members.get(name).and_then(Value::as_str)?;
        text.parse::<Duration>().ok()
    };
    let base = read("baseEjectionTime").unwrap_or(Duration::from_secs(30));
    if let Some(longest) = read("maxEjectionTime")
        && longest < base
    {
        report.problem_at(
            "maxEjectionTime",
            format!("{longest} is shorter than baseEjectionTime, which is {base}"),
        );
    }
}

pub(super) static HEALTH_CHECKS: List = List {
    item: Shape::Object(&HEALTH_CHECK),
    min: 0,
    // Each asks every endpoint; the sidecars' limit.
    max: 4,
    unique: &[],
};

/// Kinds of checks.
const KINDS: [&str; 3] = ["http", "grpc", "tcp"];

static HEALTH_CHECK: Object = Object::with_rule(
    &[
        Field::optional("http", Shape::Object(&HTTP)),
        Field::optional("grpc", Shape::Object(&GRPC)),
        Field::optional("tcp", Shape::Object(&TCP)),
        Field::optional("port", PORT),
        Field::optional("interval", INTERVAL),
        Field::optional(
            "timeout",
            Shape::Duration(Duration::from_millis(10), Duration::from_secs(60)),
        ),
        Field::optional("unhealthyThreshold", Shape::Integer(1, 100)),
        Field::optional("healthyThreshold", Shape::Integer(1, 100)),
    ],
    check_one_kind,
);

static HTTP: Object = Object::new(&[
    Field::required("path", Shape::Text(path)),
    Field::optional("host", Shape::Text(checks::dns_name)),
    Field::optional("expectedStatuses", Shape::List(&STATUSES)),
]);
static STATUSES: List = List {
    item: Shape::Text(statuses),
    min: 0,
    max: 16,
    unique: &[""],
};
static GRPC: Object = Object::new(&[
    Field::optional("service", Shape::Text(grpc_service)),
    Field::optional("host", Shape::Text(checks::dns_name)),
]);
static TCP: Object = Object::new(&[]);

fn check_one_kind(members: &Map<String, Value>, report: &mut Report) {
    let given = KINDS
        .iter()
        .filter(|kind| members.get(**kind).is_some_and(|value| !value.is_null()))
        .count();
    if given != 1 {
        report.problem(format!(
            "{given} of http, grpc and tcp are given; a check is exactly one of them (tcp: {{}} needs nothing)"
        ));
    }
}

/// Checks ask ports that the service has, in a way that they understand.
pub(super) fn check_ports(members: &Map<String, Value>, report: &mut Report) {
    let ports: Vec<ServicePort> = members
        .get("ports")
        .and_then(|ports| serde_json::from_value(ports.clone()).ok())
        .unwrap_or_default();
    let Some(Value::Array(checks)) = members.get("healthChecks") else {
        return;
    };
    if ports.is_empty() {
        // Its own problem.
        return;
    }
    report.within("healthChecks", |report| {
        for (index, check) in checks.iter().enumerate() {
            report.within_item(index, |report| check_port(check, &ports, report));
        }
    });
}

fn check_port(check: &Value, ports: &[ServicePort], report: &mut Report) {
    let number = check.get("port").and_then(Value::as_u64);
    let Some(number) = number else {
        let http = ports.iter().any(|port| port.protocol.is_http());
        if !http && check.get("tcp").is_none() {
            report.problem("the service has no port that speaks HTTP; only tcp checks can ask it");
        }
        return;
    };
    match ports.iter().find(|port| u64::from(port.port) == number) {
        None => report.problem_at("port", format!("{number} is not a port of this service")),
        Some(port) if port.protocol == Protocol::Tcp && check.get("tcp").is_none() => report
            .problem_at(
                "port",
                format!("{number} speaks tcp; only a tcp check can ask it"),
            ),
        Some(_) => {}
    }
}

fn path(text: &str) -> Result<(), String> {
    let valid = text.starts_with('/')
        && text.len() <= 1024
        && !text.contains('#')
        && text.parse::<http::uri::PathAndQuery>().is_ok();
    if valid {
        return Ok(());
    }
    Err(format!(
        "{} is not a path; allowed are up to 1024 characters that begin with \"/\", for example /health",
        quote(text)
    ))
}

fn statuses(text: &str) -> Result<(), String> {
    if crate::model::health::statuses(text).is_some() {
        return Ok(());
    }
    Err(format!(
        "{} is not a status or a range of them; allowed are for example \"204\" and \"200-299\", within 100 to 599",
        quote(text)
    ))
}

fn grpc_service(text: &str) -> Result<(), String> {
    let allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'/');
    if text.len() <= 253 && text.bytes().all(allowed) {
        return Ok(());
    }
    Err(format!(
        "{} is not the name of a gRPC service; allowed are up to 253 letters, digits and ._-/",
        quote(text)
    ))
}
