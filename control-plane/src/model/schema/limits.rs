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

static LEARN: Object = Object::with_rule(
    &[
        Field::optional("start", LIMIT),
        Field::optional("max", LIMIT),
    ],
    check_start,
);

fn check_start(members: &Map<String, Value>, report: &mut Report) {
    let read = |name| members.get(name).and_then(Value::as_u64);
    if let (Some(start), Some(max)) = (read("start"), read("max"))
        && max < start
    {
        let message = format!("{max} is less than start, which is {start}");
        report.problem_at("max", message);
    }
}

static BATCH: Object = Object::with_rule(
    &[
        Field::optional("size", LIMIT),
        Field::optional("learn", Shape::Object(&LEARN)),
        // More than the batch once more is a queue that nobody orders.
        Field::optional("headRoomPercent", Shape::Integer(1, 100)),
    ],
    check_batch,
);

fn check_batch(members: &Map<String, Value>, report: &mut Report) {
    let has = |name| members.get(name).is_some_and(|value| !value.is_null());
    match (has("size"), has("learn")) {
        (true, true) => report.problem_at(
            "learn",
            "cannot stand beside size: the batch is declared or learnt; remove one of the two",
        ),
        (false, false) => {
            report.problem("has neither size nor learn; add for example size: 32, or learn: {}")
        }
        _ => {}
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
        Field::optional("batch", Shape::Object(&BATCH)),
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
    if has("batch") {
        if has("concurrency") || has("adaptive") {
            let message =
                "cannot stand beside concurrency or adaptive: there is one limit; keep one of them";
            report.problem_at("batch", message);
        }
        let queue = members.get("queue").and_then(Value::as_object);
        for name in ["target", "interval"] {
            if queue.is_some_and(|queue| queue.get(name).is_some_and(|value| !value.is_null())) {
                let message = "plays no part with batch, where waits are bounded before they begin; remove it, and set maxWait";
                report.within("queue", |report| report.problem_at(name, message));
            }
        }
        return;
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

/// A batch is a model server's. Of the whole spec.
pub(super) fn check_batch_has_model(members: &Map<String, Value>, report: &mut Report) {
    let has = |members: &Map<String, Value>, name: &str| {
        members.get(name).is_some_and(|value| !value.is_null())
    };
    let limits = members.get("limits").and_then(Value::as_object);
    if limits.is_some_and(|limits| has(limits, "batch")) && !has(members, "inference") {
        let message = "is for model servers, and this service has no inference; add for example inference: {engine: {}}, or use concurrency";
        report.within("limits", |report| report.problem_at("batch", message));
    }
}
