//! The table of a rule's `fallbacks`.

use serde_json::{Map, Value};

use super::checks;
use super::common::{LABELS, PORT};
use super::report::Report;
use super::shape::{Field, List, Object, Shape};

pub(super) static FALLBACKS: List = List {
    item: Shape::Object(&FALLBACK),
    min: 0,
    max: 8,
    unique: &[""],
};
static FALLBACK: Object = Object::with_rule(
    &[
        Field::optional("on", Shape::List(&CAUSES)),
        Field::optional("backendRef", Shape::Object(&BACKEND)),
        Field::optional("model", Shape::Text(checks::model_name)),
        Field::optional("directResponse", Shape::Object(&RESPONSE)),
    ],
    one_way_out,
);
static CAUSES: List = List {
    item: Shape::OneOf(&[
        "no-endpoints",
        "circuit-open",
        "overload",
        "budget",
        "connect-failed",
        "reset",
        "first-byte-timeout",
        "model-error",
        "server-error",
    ]),
    min: 1,
    max: 9,
    unique: &[""],
};
static BACKEND: Object = Object::new(&[
    Field::required("name", Shape::Text(checks::name)),
    Field::optional("namespace", Shape::Text(checks::name)),
    Field::optional("port", PORT),
    Field::optional("subset", Shape::Labels(&LABELS)),
]);
static RESPONSE: Object = Object::new(&[
    Field::required("statusCode", Shape::Integer(200, 599)),
    Field::optional("contentType", Shape::Text(content_type)),
    Field::optional("body", Shape::Text(body)),
]);

/// Bytes. Every sidecar that calls the service holds it.
const MAX_BODY: usize = 64 * 1024;

fn body(text: &str) -> Result<(), String> {
    if text.len() <= MAX_BODY {
        return Ok(());
    }
    Err(format!(
        "the body has {} bytes; at most {MAX_BODY} are allowed",
        text.len()
    ))
}

fn content_type(text: &str) -> Result<(), String> {
    let allowed = |byte: u8| (b' '..=b'~').contains(&byte);
    if text.len() <= 256 && text.contains('/') && text.bytes().all(allowed) {
        return Ok(());
    }
    Err(format!(
        "{text:?} is not a media type; allowed are those like application/json"
    ))
}

fn one_way_out(members: &Map<String, Value>, report: &mut Report) {
    let given = |name| members.get(name).is_some_and(|value| !value.is_null());
    let elsewhere = given("backendRef") || given("model");
    match (elsewhere, given("directResponse")) {
        (true, true) if given("backendRef") => report.problem_at(
            "directResponse",
            "a fallback has either backendRef or directResponse; write two fallbacks, they are tried in order",
        ),
        (true, true) => report.problem_at(
            "model",
            "a directResponse asks no model; write two fallbacks, they are tried in order",
        ),
        (false, false) => {
            report.problem("has neither backendRef nor model nor directResponse; it needs one");
        }
        _ => {}
    }
}
