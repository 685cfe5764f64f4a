//! The table of `RateLimit`.

use serde_json::{Map, Value};

use super::checks;
use super::report::{Report, quote};
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
        // A token that nobody has verified is the client's word.
        None if text.starts_with("claim") => Err(format!(
            "{} cannot be part of a key: sidecars verify no JWT, so a claim is the client's word and no proof; use identity, which the mesh \
             proves, or header:<name> set by a gateway that has verified the token",
            quote(text)
        )),
        None => Err(format!(
            "{} is no part of a key; allowed are identity, namespace, path, method, model, tenant and header:<name>",
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
/// More tokens than all models of the world make in a day; sums of it stay far from overflow.
const MOST_TOKENS: u64 = 1_000_000_000_000;
static LIMIT: Object = Object::with_rule(
    &[
        Field::required("name", Shape::Text(checks::name)),
        Field::optional("matches", Shape::List(&MATCHES)),
        Field::optional("key", Shape::List(&KEY)),
        Field::optional("requests", Shape::Integer(1, 10_000_000)),
        Field::optional("tokens", Shape::Integer(1, MOST_TOKENS)),
        Field::required(
            "per",
            Shape::Duration(Duration::from_secs(1), Duration::from_secs(86_400)),
        ),
        Field::optional("burst", Shape::Integer(1, 10_000_000)),
        // 16 bytes each, in every sidecar of the service.
        Field::optional("maxKeys", Shape::Integer(1, 1_000_000)),
        Field::optional("count", Shape::OneOf(&["input", "output", "total"])),
        Field::optional("scope", Shape::OneOf(&["mesh", "sidecar"])),
        Field::optional("hardLimit", Shape::Bool),
        Field::optional("defaultMaxTokens", Shape::Integer(1, 10_000_000)),
        Field::optional("advance", Shape::Integer(0, MOST_TOKENS)),
    ],
    check_limit,
);

/// A limit is of requests or of tokens, and each has fields of its own.
fn check_limit(members: &Map<String, Value>, report: &mut Report) {
    let has = |name: &str| members.get(name).is_some_and(|value| !value.is_null());
    let number = |name: &str| members.get(name).and_then(Value::as_u64);
    match (has("requests"), has("tokens")) {
        (false, false) => {
            return report.problem(
                "limits nothing; add requests: <number>, or tokens: <number> for requests to models".to_owned(),
            );
        }
        (true, true) => {
            return report.problem_at(
                "tokens",
                "cannot stand beside requests; make a limit of its own of it: all that match apply",
            );
        }
        (true, false) => {
            for name in ["count", "scope", "hardLimit", "defaultMaxTokens", "advance"] {
                if has(name) {
                    report.problem_at(name, "is for tokens; this is a limit of requests");
                }
            }
            return;
        }
        (false, true) => {}
    }
    if has("burst") {
        report.problem_at(
            "burst",
            "is for requests; tokens of a window may be used at once",
        );
    }
    let text = |name: &str| members.get(name).and_then(Value::as_str);
    let per = text("per").and_then(|text| text.parse::<Duration>().ok());
    if per.is_some_and(|per| per < SHORTEST_WINDOW) {
        report.problem_at(
            "per",
            format!("is too short for tokens, which are shared out for a window; allowed are {SHORTEST_WINDOW} to 24h"),
        );
    }
    if has("advance") && text("scope") == Some("sidecar") {
        report.problem_at(
            "advance",
            "does nothing with scope: sidecar; what is not shared is not waited for",
        );
    }
    let tokens = number("tokens").unwrap_or(u64::MAX);
    for name in ["defaultMaxTokens", "advance"] {
        if let Some(found) = number(name).filter(|found| *found > tokens) {
            report.problem_at(
                name,
                format!("{found} is more than tokens, which is {tokens}"),
            );
        }
    }
}

/// Shares of a shorter window would be under way for a good part of it.
const SHORTEST_WINDOW: Duration = Duration::from_secs(10);

pub(super) static SPEC: Object = Object::new(&[
    Field::required("targetRefs", Shape::List(&TARGETS)),
    Field::required("limits", Shape::List(&LIMITS)),
    Field::optional("report", Shape::OneOf(&["refused", "always"])),
]);
