//! Cross-origin requests.

use serde_json::Value;

use crate::model::schema::checks;
use crate::model::schema::report::quote;
use crate::model::schema::shape::{Field, List, Object, Shape};

pub(super) static CORS: Object = Object::with_rule(
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
