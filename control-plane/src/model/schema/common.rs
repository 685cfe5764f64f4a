//! Tables that several kinds share.

use serde_json::{Map, Value};

use super::checks;
use super::report::Report;
use super::shape::{Field, Labels, List, Object, Shape};
use crate::model::Duration;

pub(super) const PORT: Shape = Shape::Integer(1, 65_535);
/// Weights are relative; their sum over a list must fit 32 bits.
pub(super) const WEIGHT_MAX: u64 = 1_000_000;

/// Methods of RFC 9110 and PATCH, without CONNECT: tunnels are not requests that can be routed.
pub(super) const METHODS: Shape = Shape::OneOf(&[
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE",
]);

/// 30 days: longer than any stream, short enough for every clock.
const MAX_TIMEOUT: Duration = Duration::from_secs(30 * 86_400);
pub(super) const TIMEOUT: Shape = Shape::Duration(Duration::from_millis(1), MAX_TIMEOUT);
const PAUSE: Shape = Shape::Duration(Duration::from_millis(1), Duration::from_secs(60));

pub(super) static LABELS: Labels = Labels {
    key: checks::label_key,
    value: checks::label_value,
    max: 64,
};
static ANNOTATIONS: Labels = Labels {
    key: checks::label_key,
    value: checks::note,
    max: 64,
};

pub(super) static METADATA: Object = Object::new(&[
    Field::required("name", Shape::Text(checks::name)),
    Field::optional("namespace", Shape::Text(checks::name)),
    Field::optional("labels", Shape::Labels(&LABELS)),
    Field::optional("annotations", Shape::Labels(&ANNOTATIONS)),
    Field::optional("resourceVersion", Shape::Text(resource_version)),
    Field::optional("generation", Shape::Integer(0, u64::MAX)),
    Field::optional("creationTimestamp", Shape::Text(timestamp)),
    Field::optional("uid", Shape::Text(checks::anything)),
]);

fn resource_version(text: &str) -> Result<(), String> {
    match text.parse::<u64>() {
        Ok(_) => Ok(()),
        Err(_) => Err(format!(
            "{text:?} is not a resourceVersion; take it from the stored resource, or leave it out"
        )),
    }
}

fn timestamp(text: &str) -> Result<(), String> {
    match text.parse::<jiff::Timestamp>() {
        Ok(_) => Ok(()),
        Err(_) => Err(format!(
            "{text:?} is not a time; allowed are times of RFC 3339, or leave it out"
        )),
    }
}

pub(super) static HOSTS: List = List {
    item: Shape::Text(checks::host),
    min: 0,
    max: 256,
    unique: &[""],
};

static CODES: List = List {
    item: Shape::Integer(400, 599),
    min: 0,
    max: 64,
    unique: &[""],
};
pub(super) const GRPC_CODE: Shape = Shape::OneOf(&[
    "cancelled",
    "unknown",
    "invalid-argument",
    "deadline-exceeded",
    "not-found",
    "already-exists",
    "permission-denied",
    "resource-exhausted",
    "failed-precondition",
    "aborted",
    "out-of-range",
    "unimplemented",
    "internal",
    "unavailable",
    "data-loss",
    "unauthenticated",
]);
static GRPC_CODES: List = List {
    item: GRPC_CODE,
    min: 0,
    max: 16,
    unique: &[""],
};
pub(super) static RETRY_METHODS: List = List {
    item: METHODS,
    min: 0,
    max: 8,
    unique: &[""],
};

// The contract writes "the default" as 0 for these three: 0 itself cannot be asked for.
static BUDGET: Object = Object::new(&[
    Field::optional("percent", Shape::Integer(1, 1000)),
    Field::optional("minPerSecond", Shape::Integer(1, 100_000)),
]);
// Sidecars hold such bodies in memory until the response begins.
const MAX_BODY: Shape = Shape::Integer(1, 16 * 1024 * 1024);

pub(super) static RETRY: Object = Object::with_rule(
    &[
        Field::optional("attempts", Shape::Integer(0, 10)),
        Field::optional("codes", Shape::List(&CODES)),
        Field::optional("grpcCodes", Shape::List(&GRPC_CODES)),
        Field::optional("methods", Shape::List(&RETRY_METHODS)),
        Field::optional("onReset", Shape::Bool),
        Field::optional("onTimeout", Shape::Bool),
        Field::optional("backoff", PAUSE),
        Field::optional("maxBackoff", PAUSE),
        Field::optional("maxBodyBytes", MAX_BODY),
        Field::optional("budget", Shape::Object(&BUDGET)),
    ],
    check_backoff,
);

fn check_backoff(members: &Map<String, Value>, report: &mut Report) {
    let read = |name| {
        members
            .get(name)
            .and_then(Value::as_str)
            .and_then(|text| text.parse::<Duration>().ok())
    };
    let default = Duration::from_millis(25);
    if let Some(longest) = read("maxBackoff")
        && let Some(first) = members
            .get("backoff")
            .map_or(Some(default), |_| read("backoff"))
        && longest < first
    {
        report.problem_at(
            "maxBackoff",
            format!("{longest} is shorter than backoff, which is {first}"),
        );
    }
}
