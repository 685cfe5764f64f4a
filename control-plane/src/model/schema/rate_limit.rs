//! The table of `RateLimit`.

use super::checks;
use super::report::quote;
use super::route::MATCHES;
use super::shape::{Field, List, Object, Shape};
use crate::model::{Duration, KeyPart};

static TARGETS: List = List {
    item: Shape::Object(&TARGET),
    min: 1,
    max: 32,
    unique: &["name"],
};
static TARGET: Object = Object::new(&[
    Field::optional("kind", Shape::OneOf(&["Service"])),
    Field::required("name", Shape::Text(checks::name)),
]);

static KEY: List = List {
    item: Shape::Text(key_part),
    min: 0,
    max: 8,
    unique: &[""],
};

fn key_part(text: &str) -> Result<(), String> {
    match KeyPart::parse(text) {
        Some(KeyPart::Header(name)) => checks::header_name(name),
        Some(_) => Ok(()),
        None => Err(format!(
            "{} is no part of a key; allowed are identity, namespace, path, method and header:<name>",
            quote(text)
        )),
    }
}

static LIMITS: List = List {
    item: Shape::Object(&LIMIT),
    min: 1,
    max: 16,
    unique: &["name"],
};
static LIMIT: Object = Object::new(&[
    Field::required("name", Shape::Text(checks::name)),
    Field::optional("matches", Shape::List(&MATCHES)),
    Field::optional("key", Shape::List(&KEY)),
    Field::required("requests", Shape::Integer(1, 10_000_000)),
    Field::required(
        "per",
        Shape::Duration(Duration::from_secs(1), Duration::from_secs(86_400)),
    ),
    Field::optional("burst", Shape::Integer(1, 10_000_000)),
    // 16 bytes each, in every sidecar of the service.
    Field::optional("maxKeys", Shape::Integer(1, 1_000_000)),
]);

pub(super) static SPEC: Object = Object::new(&[
    Field::required("targetRefs", Shape::List(&TARGETS)),
    Field::required("limits", Shape::List(&LIMITS)),
    Field::optional("report", Shape::OneOf(&["refused", "always"])),
]);
