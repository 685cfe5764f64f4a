//! The table of a rule's filters, and what must hold between them.

use serde_json::{Map, Value};

use super::checks;
use super::common::{GRPC_CODE, LABELS, PORT};
use super::paths::{header_value, path};
use super::report::{Report, enumerate, quote};
use super::route::HEADERS;
use super::shape::{Field, List, Object, Shape};
use crate::model::Duration;

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

static HEADER_MODIFIER: Object = Object::with_rule(
    &[
        Field::optional("set", Shape::List(&SET_HEADERS)),
        Field::optional("add", Shape::List(&SET_HEADERS)),
        Field::optional("remove", Shape::List(&REMOVE_HEADERS)),
    ],
    |members, report| {
        let lists = ["set", "add", "remove"];
        if !lists.iter().any(|list| is_set(members, list)) {
            report.problem("changes nothing; it needs set, add or remove");
        }
    },
);
static SET_HEADERS: List = List {
    item: Shape::Object(&HEADER),
    min: 0,
    max: 16,
    unique: &["name"],
};
static HEADER: Object = Object::new(&[
    Field::required("name", Shape::Text(modifiable_header)),
    Field::required("value", Shape::Text(header_value)),
]);
static REMOVE_HEADERS: List = List {
    item: Shape::Text(modifiable_header),
    min: 0,
    max: 16,
    unique: &[""],
};

/// Not those of which a message's framing or its connection consists (RFC 9110, section 7.6.1), and not the mesh's own. The
/// sidecars' list.
fn modifiable_header(text: &str) -> Result<(), String> {
    checks::header_name(text)?;
    let name = text.to_ascii_lowercase();
    let found = quote(text);
    match name.as_str() {
        "host" => Err(format!(
            "{found} cannot be changed here; use a filter of type URLRewrite with a hostname"
        )),
        "connection"
        | "content-length"
        | "expect"
        | "http2-settings"
        | "keep-alive"
        | "proxy-authenticate"
        | "proxy-authorization"
        | "proxy-connection"
        | "te"
        | "trailer"
        | "transfer-encoding"
        | "upgrade" => Err(format!(
            "{found} cannot be changed: it concerns the connection or the message's framing"
        )),
        "x-forwarded-client-cert" | "x-request-id" => {
            Err(format!("{found} cannot be changed: the sidecars set it"))
        }
        _ if name.starts_with("x-outrigger-") => Err(format!(
            "{found} cannot be changed: headers that begin with x-outrigger- are the sidecars'"
        )),
        _ => Ok(()),
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

static CORS: Object = Object::with_rule(
    &[
        Field::required("allowOrigins", Shape::List(&ORIGINS)),
        Field::optional("allowCredentials", Shape::Bool),
        Field::optional("allowMethods", Shape::List(&CORS_METHODS)),
        Field::optional("allowHeaders", Shape::List(&CORS_HEADERS)),
        Field::optional("exposeHeaders", Shape::List(&CORS_HEADERS)),
        // A day is the most that a browser takes.
        Field::optional("maxAge", Shape::Integer(1, 86_400)),
    ],
    |members, report| {
        let credentials = members.get("allowCredentials").and_then(Value::as_bool);
        let any = |field: &str| {
            let list = members.get(field).and_then(Value::as_array);
            list.is_some_and(|list| list.iter().any(|word| word == "*"))
        };
        if credentials == Some(true) && any("exposeHeaders") {
            report.problem_at(
                "exposeHeaders",
                "\"*\" means nothing to browsers where credentials are allowed; name the headers",
            );
        }
    },
);
static ORIGINS: List = List {
    item: Shape::Text(origin),
    min: 1,
    max: 64,
    unique: &[""],
};
static CORS_METHODS: List = List {
    item: Shape::OneOf(&[
        "*", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE",
    ]),
    min: 0,
    max: 9,
    unique: &[""],
};
static CORS_HEADERS: List = List {
    // The asterisk is a name, too.
    item: Shape::Text(checks::header_name),
    min: 0,
    max: 64,
    unique: &[""],
};

fn origin(text: &str) -> Result<(), String> {
    if text == "*" {
        return Ok(());
    }
    let host_of = |rest: &str| {
        let host = match rest.rsplit_once(':') {
            Some((host, port)) => port
                .parse::<u16>()
                .ok()
                .filter(|port| *port > 0)
                .map(|_| host)?,
            None => rest,
        };
        let name = host.strip_prefix("*.").unwrap_or(host);
        (checks::dns_name(name).is_ok()).then_some(())
    };
    let valid = ["http://", "https://"]
        .iter()
        .any(|scheme| text.strip_prefix(scheme).and_then(host_of).is_some());
    if valid {
        return Ok(());
    }
    let hint = if text.ends_with('/') {
        "; leave the slash at the end out"
    } else {
        ""
    };
    Err(format!(
        "{} is not an origin; allowed are *, https://chat.example, http://localhost:3000 and https://*.example{hint}",
        quote(text)
    ))
}

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

static FAULT_INJECTION: Object = Object::with_rule(
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

/// What must hold between the filters of a rule, and between them and its other fields: the Gateway API's rules, and that nothing
/// is written that can have no effect.
pub(super) fn of_rule(rule: &Map<String, Value>, report: &mut Report) {
    let Some(Value::Array(filters)) = rule.get("filters") else {
        return;
    };
    let kind = |filter: &Value| {
        filter
            .get("type")
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let kinds: Vec<Option<String>> = filters.iter().map(kind).collect();
    let at = |wanted: &str| {
        kinds
            .iter()
            .position(|kind| kind.as_deref() == Some(wanted))
    };
    report.within("filters", |report| {
        for (name, _, repeatable) in TYPES {
            let second = kinds
                .iter()
                .enumerate()
                .filter(|(_, kind)| kind.as_deref() == Some(name))
                .nth(1);
            if let (false, Some((index, _))) = (repeatable, second) {
                report.within_item(index, |report| {
                    report.problem_at("type", format!("a rule can have one {name}; join the two"));
                });
            }
        }
    });
    let answers: Vec<&str> = ["RequestRedirect", "DirectResponse"]
        .into_iter()
        .filter(|name| at(name).is_some())
        .collect();
    if let Some(answer) = answers.first() {
        let conflict = |report: &mut Report, field: &str| {
            report.problem_at(
                field,
                format!("have no effect beside {answer}, which answers every request; leave one of them out"),
            );
        };
        if matches!(rule.get("backendRefs"), Some(Value::Array(refs)) if !refs.is_empty()) {
            conflict(report, "backendRefs");
        }
        if answers.len() > 1 || at("URLRewrite").is_some() {
            let names = [answers.as_slice(), &["URLRewrite"]].concat();
            let names: Vec<&str> = names
                .into_iter()
                .filter(|name| at(name).is_some())
                .collect();
            report.problem_at(
                "filters",
                format!("{} cannot stand in one rule", enumerate(&names)),
            );
        }
    }
    if filters.iter().any(replaces_prefix) && !only_prefixes(rule) {
        report.problem_at(
            "filters",
            "ReplacePrefixMatch needs a prefix to replace: every match of the rule must have a path of type PathPrefix",
        );
    }
}

fn replaces_prefix(filter: &Value) -> bool {
    ["urlRewrite", "requestRedirect"].iter().any(|field| {
        filter
            .get(field)
            .and_then(|policy| policy.get("path")?.get("type"))
            .is_some_and(|kind| kind == "ReplacePrefixMatch")
    })
}

/// A match without a path has the prefix `/`.
fn only_prefixes(rule: &Map<String, Value>) -> bool {
    let Some(Value::Array(matches)) = rule.get("matches") else {
        return true;
    };
    matches.iter().all(|each| {
        each.get("grpc").is_none_or(Value::is_null)
            && each
                .get("path")
                .and_then(|path| path.get("type"))
                .is_none_or(|kind| kind.is_null() || kind == "PathPrefix")
    })
}

#[cfg(test)]
mod tests;
