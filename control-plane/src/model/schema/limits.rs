//! The table of `Service.spec.limits`.

use serde_json::{Map, Value};

use super::checks;
use super::report::Report;
use super::shape::{Field, List, Object, Shape};
use crate::model::{AdaptiveLimit, Duration};

/// More than a sidecar could ever have open.
const MAX: u64 = 1_000_000;
const LIMIT: Shape = Shape::Integer(1, MAX);
const PRIORITY: Shape = Shape::OneOf(&["critical", "default", "sheddable"]);

static ENDPOINT: Object = Object::new(&[
    Field::optional("connections", LIMIT),
    Field::optional("requests", LIMIT),
]);

static THROTTLING: Object = Object::new(&[
    // Below 100 a service that accepts everything would not get it.
    Field::optional("ratioPercent", Shape::Integer(100, 10_000)),
    Field::optional(
        "window",
        Shape::Duration(Duration::from_secs(1), Duration::from_secs(3600)),
    ),
]);

static ADAPTIVE: Object = Object::with_rule(
    &[
        Field::optional("algorithm", Shape::OneOf(&["gradient2"])),
        Field::optional("minLimit", LIMIT),
        Field::optional("maxLimit", LIMIT),
        Field::optional("tolerancePercent", Shape::Integer(100, 1000)),
    ],
    check_bounds,
);

fn check_bounds(members: &Map<String, Value>, report: &mut Report) {
    let read = |name| members.get(name).and_then(Value::as_u64);
    // A bound that is left out gives way to the other one.
    if let (Some(min), Some(max)) = (read("minLimit"), read("maxLimit"))
        && max < min
    {
        let message = format!("{max} is less than minLimit, which is {min}");
        report.problem_at("maxLimit", message);
    }
}

const WAIT: Shape = Shape::Duration(Duration::from_millis(1), Duration::from_secs(600));
static QUEUE: Object = Object::with_rule(
    &[
        Field::optional("maxLength", Shape::Integer(1, 100_000)),
        Field::optional("maxWait", WAIT),
        Field::optional("target", WAIT),
        Field::optional("interval", WAIT),
    ],
    check_target,
);

fn check_target(members: &Map<String, Value>, report: &mut Report) {
    let read = |name, default| match members.get(name) {
        None | Some(Value::Null) => Some(default),
        Some(value) => value.as_str()?.parse::<Duration>().ok(),
    };
    let defaults = crate::model::Queue::default();
    if let (Some(target), Some(interval)) = (
        read("target", defaults.target()),
        read("interval", defaults.interval()),
    ) && interval < target
    {
        let field = if members.contains_key("target") {
            "target"
        } else {
            "interval"
        };
        let message = format!("the target, {target}, is longer than the interval, {interval}");
        report.problem_at(field, message);
    }
}

static IDENTITIES: List = List {
    item: Shape::Text(checks::spiffe_pattern),
    min: 0,
    max: 64,
    unique: &[""],
};
static CALLER: Object = Object::with_rule(
    &[
        Field::optional("identities", Shape::List(&IDENTITIES)),
        Field::required("priority", PRIORITY),
        Field::optional("highest", PRIORITY),
    ],
    check_highest,
);
static CALLERS: List = List {
    item: Shape::Object(&CALLER),
    min: 0,
    max: 64,
    unique: &[],
};

fn check_highest(members: &Map<String, Value>, report: &mut Report) {
    let rank = |name| {
        let word = members.get(name)?.as_str()?;
        ["critical", "default", "sheddable"]
            .iter()
            .position(|each| *each == word)
    };
    if let (Some(own), Some(highest)) = (rank("priority"), rank("highest"))
        && highest > own
    {
        report.problem_at(
            "highest",
            "is lower than priority, which a request has that asks for nothing",
        );
    }
}

static PRIORITIES: Object = Object::new(&[
    Field::optional("header", Shape::Text(checks::header_name)),
    Field::optional("reservedPercent", Shape::Integer(0, 90)),
    Field::optional("callers", Shape::List(&CALLERS)),
]);

pub(super) static LIMITS: Object = Object::with_rule(
    &[
        Field::optional("connections", LIMIT),
        Field::optional("pending", LIMIT),
        Field::optional("requests", LIMIT),
        Field::optional("retries", Shape::Integer(0, MAX)),
        Field::optional("endpoint", Shape::Object(&ENDPOINT)),
        Field::optional("throttling", Shape::Object(&THROTTLING)),
        Field::optional("concurrency", LIMIT),
        Field::optional("adaptive", Shape::Object(&ADAPTIVE)),
        Field::optional("queue", Shape::Object(&QUEUE)),
        Field::optional("priorities", Shape::Object(&PRIORITIES)),
    ],
    check_concurrency,
);

/// A queue and priorities are for what is above a concurrency, and there is one of it.
fn check_concurrency(members: &Map<String, Value>, report: &mut Report) {
    let has = |name| members.get(name).is_some_and(|value| !value.is_null());
    if has("concurrency") && has("adaptive") {
        report.problem_at(
            "adaptive",
            "cannot stand beside concurrency: the limit is fixed or found out; remove one of the two",
        );
    }
    if has("concurrency") || has("adaptive") {
        return;
    }
    for name in ["queue", "priorities"] {
        if has(name) {
            let example = AdaptiveLimit::MAX_LIMIT;
            report.problem_at(
                name,
                format!("does nothing without a limit of the concurrency; add for example concurrency: {example}, or adaptive: {{}}"),
            );
        }
    }
}
