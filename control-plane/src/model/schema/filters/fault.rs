//! Faults that a rule injects.

use super::{PERCENT, is_set};
use crate::model::Duration;
use crate::model::schema::common::GRPC_CODE;
use crate::model::schema::route::HEADERS;
use crate::model::schema::shape::{Field, Object, Shape};

pub(super) static FAULT_INJECTION: Object = Object::with_rule(
    &[
        Field::optional("headers", Shape::List(&HEADERS)),
        Field::optional("delay", Shape::Object(&DELAY)),
        Field::optional("abort", Shape::Object(&ABORT)),
        Field::optional("truncate", Shape::Object(&TRUNCATE)),
    ],
    |members, report| {
        let faults = ["delay", "abort", "truncate"];
        if !faults.iter().any(|fault| is_set(members, fault)) {
            report.problem("injects nothing; it needs delay, abort or truncate");
        }
    },
);
static DELAY: Object = Object::new(&[
    Field::required(
        "duration",
        // Longer than any test of patience; a stream that never begins is an abort.
        Shape::Duration(Duration::from_millis(1), Duration::from_secs(600)),
    ),
    Field::optional("percent", PERCENT),
]);
static ABORT: Object = Object::with_rule(
    &[
        Field::optional("statusCode", Shape::Integer(200, 599)),
        Field::optional("grpcStatus", GRPC_CODE),
        Field::optional("percent", PERCENT),
    ],
    |members, report| match (is_set(members, "statusCode"), is_set(members, "grpcStatus")) {
        (false, false) => report.problem("has no status; it needs statusCode or grpcStatus"),
        (true, true) => report.problem_at(
            "grpcStatus",
            "cannot stand beside statusCode; give one of them, the other follows from it",
        ),
        _ => {}
    },
);
static TRUNCATE: Object = Object::new(&[
    Field::required("afterBytes", Shape::Integer(0, 1 << 40)),
    Field::optional("percent", PERCENT),
]);
