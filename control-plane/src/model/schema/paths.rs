//! What a match of a path, a header, a query parameter or a gRPC call may hold: that depends on its `type`.

use serde_json::{Map, Value};

use super::checks;
use super::report::{Report, quote};

/// Length of a path, bytes: the Gateway API's limit.
const MAX_PATH: usize = 1024;
/// Length of a header's value, bytes: the Gateway API's limit.
const MAX_HEADER: usize = 4096;
/// Length of a query parameter's value, bytes: the Gateway API's limit.
const MAX_PARAM: usize = 1024;
/// Length of a query parameter's name, bytes: the Gateway API's limit.
const MAX_PARAM_NAME: usize = 256;
/// Length of the name of a gRPC service or method, bytes: the Gateway API's limit.
const MAX_GRPC: usize = 1024;

/// Of `matches[].path`.
pub(super) fn path_match(members: &Map<String, Value>, report: &mut Report) {
    let Some(value) = members.get("value").and_then(Value::as_str) else {
        return;
    };
    let result = match members.get("type") {
        None | Some(Value::Null) => path(value),
        Some(Value::String(kind)) if kind == "PathPrefix" || kind == "Exact" => path(value),
        Some(Value::String(kind)) if kind == "RegularExpression" => checks::regex(value),
        // The type is wrong, and reported as such.
        Some(_) => Ok(()),
    };
    if let Err(message) = result {
        report.problem_at("value", message);
    }
}

/// Of `matches[].headers[]`.
pub(super) fn header_match(members: &Map<String, Value>, report: &mut Report) {
    let Some(value) = members.get("value").and_then(Value::as_str) else {
        return;
    };
    let result = match kind(members) {
        Some(Kind::Exact) => header_value(value),
        Some(Kind::Regex) => checks::regex(value),
        None => Ok(()),
    };
    if let Err(message) = result {
        report.problem_at("value", message);
    }
}

/// Of `matches[].queryParams[]`.
pub(super) fn query_param_match(members: &Map<String, Value>, report: &mut Report) {
    let bounded = |text: &str, what: &str, max: usize| {
        if (1..=max).contains(&text.len()) {
            return Ok(());
        }
        let found = text.len();
        Err(format!(
            "the parameter's {what} has {found} bytes; allowed are 1 to {max}"
        ))
    };
    if let Some(name) = members.get("name").and_then(Value::as_str)
        && let Err(message) = bounded(name, "name", MAX_PARAM_NAME)
    {
        report.problem_at("name", message);
    }
    let Some(value) = members.get("value").and_then(Value::as_str) else {
        return;
    };
    let result = match kind(members) {
        Some(Kind::Exact) => bounded(value, "value", MAX_PARAM),
        Some(Kind::Regex) => checks::regex(value),
        None => Ok(()),
    };
    if let Err(message) = result {
        report.problem_at("value", message);
    }
}

/// Of `matches[].grpc`.
pub(super) fn grpc_match(members: &Map<String, Value>, report: &mut Report) {
    let mut any = false;
    for field in ["service", "method"] {
        let Some(value) = members.get(field).filter(|value| !value.is_null()) else {
            continue;
        };
        any = true;
        let Some(text) = value.as_str() else { continue };
        let result = match kind(members) {
            Some(Kind::Exact) => grpc_name(text, field),
            Some(Kind::Regex) => checks::regex(text),
            None => Ok(()),
        };
        if let Err(message) = result {
            report.problem_at(field, message);
        }
    }
    if !any {
        report.problem("names no call; it needs service, method or both");
    }
}

/// The Gateway API's patterns: a protobuf name, for services with its package.
fn grpc_name(text: &str, field: &str) -> Result<(), String> {
    let word = |word: &str| {
        word.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && word
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let valid = match field {
        "service" => text.split('.').all(word),
        _ => word(text),
    };
    if valid && text.len() <= MAX_GRPC {
        return Ok(());
    }
    let example = match field {
        "service" => "a service with its package, for example inference.GRPCInferenceService",
        _ => "a method, for example ModelInfer",
    };
    let found = quote(text);
    Err(format!(
        "{found} is not the {field} of a gRPC call; allowed is {example}"
    ))
}

/// The name of a model, or a pattern of such; the characters are checked with the field.
pub(super) fn model_match(members: &Map<String, Value>, report: &mut Report) {
    let is_glob = members.get("type").and_then(Value::as_str) == Some("Glob");
    let value = members.get("value").and_then(Value::as_str);
    if !is_glob && value.is_some_and(|value| value.contains('*')) {
        report.problem_at(
            "value",
            "has a \"*\", which stands for itself here; for a pattern add type: Glob",
        );
    }
}

enum Kind {
    Exact,
    Regex,
}

/// `None`: it is neither, which is reported where it stands.
fn kind(members: &Map<String, Value>) -> Option<Kind> {
    match members.get("type") {
        None | Some(Value::Null) => Some(Kind::Exact),
        Some(Value::String(kind)) if kind == "Exact" => Some(Kind::Exact),
        Some(Value::String(kind)) if kind == "RegularExpression" => Some(Kind::Regex),
        Some(_) => None,
    }
}

pub(super) fn path(text: &str) -> Result<(), String> {
    let found = quote(text);
    if !text.starts_with('/') {
        return Err(format!("{found} is not a path; it must begin with \"/\""));
    }
    if text.len() > MAX_PATH {
        return Err(format!(
            "the path has {} bytes; at most {MAX_PATH} are allowed",
            text.len()
        ));
    }
    if text.contains(['?', '#']) {
        return Err(format!(
            "{found} is not a path; paths are compared without query and fragment, leave them out"
        ));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!(
            "{found} is not a path; write spaces and characters beyond ASCII as %XX"
        ));
    }
    if text.contains("//")
        || text
            .split('/')
            .any(|segment| segment == "." || segment == "..")
    {
        return Err(format!(
            "{found} can never match: \"//\", \"/./\" and \"/../\" are not allowed"
        ));
    }
    Ok(())
}

pub(super) fn header_value(text: &str) -> Result<(), String> {
    if text.is_empty() || text.len() > MAX_HEADER {
        return Err(format!(
            "the header's value has {} bytes; allowed are 1 to {MAX_HEADER}",
            text.len()
        ));
    }
    if http::HeaderValue::from_str(text).is_err() || text.trim() != text {
        return Err(format!(
            "{} is not a header's value; allowed are visible ASCII characters, with spaces in between",
            quote(text)
        ));
    }
    Ok(())
}
