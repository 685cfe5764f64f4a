//! The table of a rule's filters, and what must hold between them.

mod cors;
mod fault;
mod headers;
mod rule;

use serde_json::{Map, Value};

use super::checks;
use super::common::{LABELS, PORT};
use super::paths::{header_value, path};
use super::report::{Report, quote};
use super::shape::{Field, List, Object, Shape};

use cors::CORS;
use fault::FAULT_INJECTION;
use headers::HEADER_MODIFIER;
pub(super) use rule::of_rule;

/// Bytes of a direct response's body: it is part of the configuration of every sidecar that calls the service.
const MAX_BODY: usize = 65_536;
const PERCENT: Shape = Shape::Integer(0, 100);

/// `type` and the field that belongs to it. `true`: may be given more than once.
const TYPES: [(&str, &str, bool); 8] = [
    ("RequestHeaderModifier", "requestHeaderModifier", false),
    ("ResponseHeaderModifier", "responseHeaderModifier", false),
    ("URLRewrite", "urlRewrite", false),
    ("RequestRedirect", "requestRedirect", false),
    ("RequestMirror", "requestMirror", true),
    ("CORS", "cors", false),
    ("DirectResponse", "directResponse", false),
    ("FaultInjection", "faultInjection", true),
];

pub(super) static FILTERS: List = List {
    item: Shape::Object(&FILTER),
    min: 0,
    max: 16,
    unique: &[],
};
static FILTER: Object = Object::with_rule(
    &[
        Field::required(
            "type",
            Shape::OneOf(&[
                "RequestHeaderModifier",
                "ResponseHeaderModifier",
                "URLRewrite",
                "RequestRedirect",
                "RequestMirror",
                "CORS",
                "DirectResponse",
                "FaultInjection",
            ]),
        ),
        Field::optional("requestHeaderModifier", Shape::Object(&HEADER_MODIFIER)),
        Field::optional("responseHeaderModifier", Shape::Object(&HEADER_MODIFIER)),
        Field::optional("urlRewrite", Shape::Object(&URL_REWRITE)),
        Field::optional("requestRedirect", Shape::Object(&REDIRECT)),
        Field::optional("requestMirror", Shape::Object(&MIRROR)),
        Field::optional("cors", Shape::Object(&CORS)),
        Field::optional("directResponse", Shape::Object(&DIRECT_RESPONSE)),
        Field::optional("faultInjection", Shape::Object(&FAULT_INJECTION)),
    ],
    type_and_field_agree,
);

fn is_set(members: &Map<String, Value>, field: &str) -> bool {
    members.get(field).is_some_and(|value| !value.is_null())
}

fn type_and_field_agree(members: &Map<String, Value>, report: &mut Report) {
    let Some(found) = members.get("type").and_then(Value::as_str) else {
        return;
    };
    if !TYPES.iter().any(|(name, ..)| *name == found) {
        return;
    }
    for (name, field, _) in TYPES {
        match (name == found, is_set(members, field)) {
            (true, false) => {
                report.problem_at(
                    field,
                    format!("is missing; a filter of type {found} needs it"),
                );
            }
            (false, true) => report.problem_at(
                field,
                format!("belongs to a filter of type {name}, and this one is of type {found}"),
            ),
            _ => {}
        }
    }
}

static URL_REWRITE: Object = Object::with_rule(
    &[
        Field::optional("hostname", Shape::Text(checks::dns_name)),
        Field::optional("path", Shape::Object(&PATH_MODIFIER)),
    ],
    |members, report| {
        if !is_set(members, "hostname") && !is_set(members, "path") {
            report.problem("changes nothing; it needs hostname or path");
        }
    },
);
static PATH_MODIFIER: Object = Object::with_rule(
    &[
        Field::required(
            "type",
            Shape::OneOf(&["ReplaceFullPath", "ReplacePrefixMatch"]),
        ),
        Field::optional("replaceFullPath", Shape::Text(path_or_nothing)),
        Field::optional("replacePrefixMatch", Shape::Text(path_or_nothing)),
    ],
    |members, report| {
        let Some(found) = members.get("type").and_then(Value::as_str) else {
            return;
        };
        for (name, field) in [
            ("ReplaceFullPath", "replaceFullPath"),
            ("ReplacePrefixMatch", "replacePrefixMatch"),
        ] {
            match (name == found, is_set(members, field)) {
                (true, false) => report.problem_at(field, format!("is missing; {found} needs it")),
                (false, true) => {
                    report.problem_at(field, format!("cannot stand beside type {found}"));
                }
                _ => {}
            }
        }
    },
);

fn path_or_nothing(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Ok(());
    }
    path(text)?;
    match http::uri::PathAndQuery::try_from(text) {
        Ok(parsed) if parsed.as_str() == text => Ok(()),
        _ => Err(format!("{} is not a path", quote(text))),
    }
}

static REDIRECT: Object = Object::with_rule(
    &[
        Field::optional("scheme", Shape::OneOf(&["http", "https"])),
        Field::optional("hostname", Shape::Text(checks::dns_name)),
        Field::optional("port", PORT),
        Field::optional("path", Shape::Object(&PATH_MODIFIER)),
        Field::optional("statusCode", Shape::Integer(301, 308)),
    ],
    |members, report| {
        let status = members.get("statusCode").and_then(Value::as_u64);
        if let Some(status @ 304..=306) = status {
            report.problem_at(
                "statusCode",
                format!("{status} does not send anybody elsewhere; allowed are 301, 302, 303, 307 and 308"),
            );
        }
    },
);

static MIRROR: Object = Object::with_rule(
    &[
        Field::required("backendRef", Shape::Object(&MIRROR_BACKEND)),
        Field::optional("percent", PERCENT),
        Field::optional("fraction", Shape::Object(&FRACTION)),
    ],
    |members, report| {
        if is_set(members, "percent") && is_set(members, "fraction") {
            report.problem_at("fraction", "cannot stand beside percent; give one of them");
        }
    },
);
static MIRROR_BACKEND: Object = Object::new(&[
    Field::required("name", Shape::Text(checks::name)),
    Field::optional("namespace", Shape::Text(checks::name)),
    Field::optional("port", PORT),
    Field::optional("subset", Shape::Labels(&LABELS)),
]);
static FRACTION: Object = Object::with_rule(
    &[
        Field::required("numerator", Shape::Integer(0, 1_000_000_000)),
        Field::optional("denominator", Shape::Integer(1, 1_000_000_000)),
    ],
    |members, report| {
        let number = |field| members.get(field).and_then(Value::as_u64);
        let denominator = number("denominator").unwrap_or(100);
        if let Some(numerator) = number("numerator")
            && numerator > denominator
        {
            report.problem_at(
                "numerator",
                format!("{numerator} of {denominator} is more than all"),
            );
        }
    },
);

static DIRECT_RESPONSE: Object = Object::with_rule(
    &[
        Field::required("statusCode", Shape::Integer(200, 599)),
        Field::optional("contentType", Shape::Text(header_value)),
        Field::optional("body", Shape::Text(body)),
    ],
    |members, report| {
        let status = members.get("statusCode").and_then(Value::as_u64);
        if let Some(status @ (204 | 304)) = status
            && is_set(members, "body")
        {
            report.problem_at(
                "body",
                format!("a response with the status {status} has none; leave it out"),
            );
        }
    },
);

fn body(text: &str) -> Result<(), String> {
    if text.len() <= MAX_BODY {
        return Ok(());
    }
    Err(format!(
        "the body has {} bytes; at most {MAX_BODY} are allowed",
        text.len()
    ))
}

#[cfg(test)]
mod tests;
