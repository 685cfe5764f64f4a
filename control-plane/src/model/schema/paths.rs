//! What a match of a path or a header may hold: that depends on its `type`.

use serde_json::{Map, Value};

use super::checks;
use super::report::{Report, quote};

/// Length of a path, bytes: the Gateway API's limit.
const MAX_PATH: usize = 1024;
/// Length of a header's value, bytes: the Gateway API's limit.
const MAX_HEADER: usize = 4096;

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
    let result = match members.get("type") {
        None | Some(Value::Null) => header_value(value),
        Some(Value::String(kind)) if kind == "Exact" => header_value(value),
        Some(Value::String(kind)) if kind == "RegularExpression" => checks::regex(value),
        Some(_) => Ok(()),
    };
    if let Err(message) = result {
        report.problem_at("value", message);
    }
}

fn path(text: &str) -> Result<(), String> {
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

fn header_value(text: &str) -> Result<(), String> {
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
