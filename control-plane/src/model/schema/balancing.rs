//! The tables of `loadBalancing` and `sessionPersistence`.

use serde_json::{Map, Value};

use super::checks;
use super::common::TIMEOUT;
use super::report::Report;
use super::shape::{Field, List, Object, Shape};
use crate::model::Duration;

/// Shorter: the latest answer is all there is. Longer: an endpoint that recovered is avoided for too long.
const DECAY: Shape = Shape::Duration(Duration::from_millis(100), Duration::from_secs(3600));
/// Shorter than a second is over before the first requests are; longer than an hour no cache takes to fill.
const WINDOW: Shape = Shape::Duration(Duration::from_secs(1), Duration::from_secs(3600));
const PERCENT: Shape = Shape::Integer(0, 100);
/// Largest Maglev table: the default.
const MAX_TABLE: u64 = 65_537;

pub(super) static LOAD_BALANCING: Object = Object::with_rule(
    &[
        Field::optional(
            "policy",
            Shape::OneOf(&[
                "peak-ewma",
                "least-request",
                "round-robin",
                "random",
                "ring-hash",
                "maglev",
                "model-load",
                "prefix-affinity",
            ]),
        ),
        Field::optional("ewmaDecay", DECAY),
        Field::optional("hash", Shape::List(&HASH)),
        Field::optional("ringHash", Shape::Object(&RING_HASH)),
        Field::optional("maglev", Shape::Object(&MAGLEV)),
        Field::optional("boundedLoad", Shape::Integer(101, 1000)),
        Field::optional("zone", Shape::Object(&ZONE)),
        Field::optional("slowStart", Shape::Object(&SLOW_START)),
        Field::optional("panicThreshold", PERCENT),
    ],
    fits_the_policy,
);

static HASH: List = List {
    item: Shape::Object(&HASH_INPUT),
    min: 1,
    max: 8,
    unique: &[""],
};
static HASH_INPUT: Object = Object::with_rule(
    &[
        Field::optional("header", Shape::Text(checks::header_name)),
        Field::optional("cookie", Shape::Object(&HASH_COOKIE)),
        Field::optional("sourceIdentity", Shape::Bool),
        Field::optional("path", Shape::Bool),
        Field::optional("queryParameter", Shape::Text(checks::parameter)),
        Field::optional("terminal", Shape::Bool),
    ],
    one_key,
);
static HASH_COOKIE: Object = Object::new(&[
    Field::required("name", Shape::Text(checks::header_name)),
    Field::optional("ttl", TIMEOUT),
    Field::optional("path", Shape::Text(checks::cookie_path)),
]);
static RING_HASH: Object = Object::new(&[Field::optional(
    "minimumRingSize",
    Shape::Integer(1, 65_536),
)]);
static MAGLEV: Object = Object::with_rule(
    &[Field::optional("tableSize", Shape::Integer(2, MAX_TABLE))],
    prime_table,
);
static ZONE: Object = Object::new(&[
    Field::optional("preference", Shape::OneOf(&["none", "prefer"])),
    Field::optional("overprovisioning", Shape::Integer(100, 1000)),
    Field::optional("minLocalPercent", PERCENT),
]);
static SLOW_START: Object = Object::new(&[
    Field::required("window", WINDOW),
    Field::optional("aggression", Shape::Integer(1, 10)),
    Field::optional("minPercent", Shape::Integer(1, 100)),
]);

pub(super) static SESSION: Object = Object::with_rule(
    &[
        Field::optional("sessionName", Shape::Text(checks::header_name)),
        Field::optional("type", Shape::OneOf(&["Cookie", "Header"])),
        Field::optional("absoluteTimeout", TIMEOUT),
        Field::optional("cookieConfig", Shape::Object(&COOKIE)),
    ],
    whole_session,
);
static COOKIE: Object = Object::new(&[Field::optional(
    "lifetimeType",
    Shape::OneOf(&["Session", "Permanent"]),
)]);

/// A setting that does nothing is most likely a mistake.
fn fits_the_policy(members: &Map<String, Value>, report: &mut Report) {
    let policy = members.get("policy").and_then(Value::as_str);
    let policy = policy.unwrap_or("peak-ewma");
    let hashes = matches!(policy, "ring-hash" | "maglev");
    let given = |field: &str| members.get(field).is_some_and(|value| !value.is_null());
    if hashes && !given("hash") {
        report.problem_at(
            "hash",
            format!("is missing; {policy} needs to know what requests are told by, for example [{{header: x-user}}]"),
        );
    }
    let only_for = |field: &str, fits: bool, whose: &str, report: &mut Report| {
        if given(field) && !fits {
            let problem = format!("is for {whose}; the policy is {policy}");
            report.problem_at(field, problem);
        }
    };
    let has_keys = hashes || policy == "prefix-affinity";
    let keyed = "the policies ring-hash, maglev and prefix-affinity";
    only_for("hash", has_keys, keyed, report);
    only_for("boundedLoad", has_keys, keyed, report);
    only_for(
        "ringHash",
        policy == "ring-hash",
        "the policy ring-hash",
        report,
    );
    only_for("maglev", policy == "maglev", "the policy maglev", report);
    let others =
        "policies that do not hash: a key has its endpoint, wherever and however new that is";
    only_for("zone", !has_keys, others, report);
    only_for("slowStart", !has_keys, others, report);
    let cookies = members.get("hash").and_then(Value::as_array);
    let cookies = cookies.into_iter().flatten();
    if cookies.filter(|item| item.get("cookie").is_some()).count() > 1 {
        report.problem_at("hash", "more than one cookie; one is allowed");
    }
}

fn one_key(members: &Map<String, Value>, report: &mut Report) {
    let keys = [
        "header",
        "cookie",
        "sourceIdentity",
        "path",
        "queryParameter",
    ];
    let given: Vec<&str> = keys
        .into_iter()
        .filter(|key| members.get(*key).is_some_and(|value| !value.is_null()))
        .collect();
    if given.len() != 1 {
        report.problem(format!(
            "{} of header, cookie, sourceIdentity, path and queryParameter are given; exactly one is wanted",
            given.len()
        ));
    }
    for key in ["sourceIdentity", "path"] {
        if members.get(key) == Some(&Value::Bool(false)) {
            report.problem_at(key, "false means nothing; leave the item out");
        }
    }
}

fn prime_table(members: &Map<String, Value>, report: &mut Report) {
    let size = members.get("tableSize").and_then(Value::as_u64);
    if let Some(size) = size.filter(|size| (2..=MAX_TABLE).contains(size) && !is_prime(*size)) {
        let fits = (2..size).rev().find(|number| is_prime(*number));
        report.problem_at(
            "tableSize",
            format!(
                "{size} is not a prime; the next one below is {}",
                fits.unwrap_or(2)
            ),
        );
    }
}

fn is_prime(number: u64) -> bool {
    (2..)
        .take_while(|divisor| divisor * divisor <= number)
        .all(|divisor| !number.is_multiple_of(divisor))
}

fn whole_session(members: &Map<String, Value>, report: &mut Report) {
    let cookie = members.get("cookieConfig").filter(|value| !value.is_null());
    let Some(cookie) = cookie else { return };
    if members.get("type").and_then(Value::as_str) == Some("Header") {
        report.problem_at("cookieConfig", "is for the type Cookie; the type is Header");
    }
    let permanent = cookie.get("lifetimeType").and_then(Value::as_str) == Some("Permanent");
    let timeout = members
        .get("absoluteTimeout")
        .filter(|value| !value.is_null());
    if permanent && timeout.is_none() {
        report.problem_at(
            "absoluteTimeout",
            "is missing; a permanent cookie lives for so long",
        );
    }
}
