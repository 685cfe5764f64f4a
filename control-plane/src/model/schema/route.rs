//! The table of `Route`.

use serde_json::{Map, Value};

use super::balancing::SESSION;
use super::checks;
use super::common::{HOSTS, LABELS, METHODS, PORT, RETRY, TIMEOUT, WEIGHT_MAX};
use super::continuation::CONTINUATION;
use super::fallback::FALLBACKS;
use super::filters::{self, FILTERS};
use super::hedge::HEDGE;
use super::paths::{grpc_match, header_match, model_match, path_match, query_param_match};
use super::report::Report;
use super::shape::{Field, List, Object, Shape};

static PARENTS: List = List {
    item: Shape::Object(&PARENT),
    min: 1,
    max: 32,
    unique: &[""],
};
static PARENT: Object = Object::new(&[
    Field::optional("kind", Shape::OneOf(&["Service"])),
    Field::required("name", Shape::Text(checks::name)),
    Field::optional("namespace", Shape::Text(checks::name)),
    Field::optional("port", PORT),
]);

pub(super) static MATCHES: List = List {
    item: Shape::Object(&MATCH),
    min: 0,
    max: 64,
    unique: &[""],
};
static MATCH: Object = Object::with_rule(
    &[
        Field::optional("path", Shape::Object(&PATH)),
        Field::optional("method", METHODS),
        Field::optional("headers", Shape::List(&HEADERS)),
        Field::optional("queryParams", Shape::List(&QUERY_PARAMS)),
        Field::optional("grpc", Shape::Object(&GRPC)),
        Field::optional("model", Shape::Object(&MODEL)),
    ],
    grpc_stands_alone,
);
static PATH: Object = Object::with_rule(
    &[
        Field::optional(
            "type",
            Shape::OneOf(&["Exact", "PathPrefix", "RegularExpression"]),
        ),
        Field::optional("value", Shape::Text(checks::anything)),
    ],
    path_match,
);
pub(super) static HEADERS: List = List {
    item: Shape::Object(&HEADER),
    min: 0,
    max: 16,
    unique: &["name"],
};
static HEADER: Object = Object::with_rule(
    &[
        Field::optional("type", Shape::OneOf(&["Exact", "RegularExpression"])),
        Field::required("name", Shape::Text(checks::header_name)),
        Field::required("value", Shape::Text(checks::anything)),
    ],
    header_match,
);

static QUERY_PARAMS: List = List {
    item: Shape::Object(&QUERY_PARAM),
    min: 0,
    max: 16,
    unique: &["name"],
};
static QUERY_PARAM: Object = Object::with_rule(
    &[
        Field::optional("type", Shape::OneOf(&["Exact", "RegularExpression"])),
        Field::required("name", Shape::Text(checks::anything)),
        Field::required("value", Shape::Text(checks::anything)),
    ],
    query_param_match,
);
static GRPC: Object = Object::with_rule(
    &[
        Field::optional("type", Shape::OneOf(&["Exact", "RegularExpression"])),
        Field::optional("service", Shape::Text(checks::anything)),
        Field::optional("method", Shape::Text(checks::anything)),
    ],
    grpc_match,
);

static MODEL: Object = Object::with_rule(
    &[
        Field::optional("type", Shape::OneOf(&["Exact", "Glob"])),
        Field::required("value", Shape::Text(checks::model_pattern)),
    ],
    model_match,
);

/// A call's path and HTTP method are given by its service and method; it has no query.
fn grpc_stands_alone(members: &Map<String, Value>, report: &mut Report) {
    let set = |field: &str| members.get(field).is_some_and(|value| !value.is_null());
    if !set("grpc") {
        return;
    }
    for field in ["path", "method", "queryParams"] {
        if set(field) {
            report.problem_at(
                field,
                "cannot stand beside grpc, which names a call by service and method; leave it out, or make a match of its own",
            );
        }
    }
}

static BACKENDS: List = List {
    item: Shape::Object(&BACKEND),
    min: 0,
    max: 32,
    unique: &[""],
};
static BACKEND: Object = Object::new(&[
    Field::required("name", Shape::Text(checks::name)),
    Field::optional("namespace", Shape::Text(checks::name)),
    Field::optional("port", PORT),
    Field::optional("weight", Shape::Integer(0, WEIGHT_MAX)),
    Field::optional("subset", Shape::Labels(&LABELS)),
]);

static TIMEOUTS: Object = Object::new(&[
    Field::optional("request", TIMEOUT),
    Field::optional("backendRequest", TIMEOUT),
    Field::optional("responseHeaders", TIMEOUT),
    Field::optional("firstByte", TIMEOUT),
    Field::optional("streamIdle", TIMEOUT),
    Field::optional("streamLifetime", TIMEOUT),
]);

static RULES: List = List {
    item: Shape::Object(&RULE),
    min: 1,
    max: 256,
    unique: &["name"],
};
static RULE: Object = Object::with_rule(
    &[
        Field::optional("name", Shape::Text(checks::name)),
        Field::optional("matches", Shape::List(&MATCHES)),
        Field::optional("filters", Shape::List(&FILTERS)),
        Field::optional("backendRefs", Shape::List(&BACKENDS)),
        Field::optional("timeouts", Shape::Object(&TIMEOUTS)),
        Field::optional("retry", Shape::Object(&RETRY)),
        Field::optional("hedge", Shape::Object(&HEDGE)),
        Field::optional("fallbacks", Shape::List(&FALLBACKS)),
        Field::optional("continuation", Shape::Object(&CONTINUATION)),
        Field::optional("exposeAttempts", Shape::Bool),
        Field::optional("sessionPersistence", Shape::Object(&SESSION)),
    ],
    check_rule,
);

fn check_rule(members: &Map<String, Value>, report: &mut Report) {
    some_backend_has_weight(members, report);
    filters::of_rule(members, report);
}

/// Otherwise no request that the rule matches could go anywhere.
fn some_backend_has_weight(members: &Map<String, Value>, report: &mut Report) {
    let Some(Value::Array(backends)) = members.get("backendRefs") else {
        return;
    };
    let weightless = |backend: &Value| backend.get("weight").and_then(Value::as_u64) == Some(0);
    if !backends.is_empty() && backends.iter().all(weightless) {
        report.problem_at(
            "backendRefs",
            "every weight is 0; at least one must be greater",
        );
    }
}

pub(super) static SPEC: Object = Object::new(&[
    Field::required("parentRefs", Shape::List(&PARENTS)),
    Field::optional("hostnames", Shape::List(&HOSTS)),
    Field::required("rules", Shape::List(&RULES)),
]);
