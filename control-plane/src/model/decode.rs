//! From a document to a resource, and the check of one resource by itself.

use serde_json::{Map, Value};

use super::{Kind, Problem, Resource, schema};

/// Checks a document and makes a resource of it.
///
/// # Errors
/// Everything that is wrong with it by itself; what is wrong between resources is for [`super::validate_against`].
pub fn decode(mut document: Value) -> Result<Resource, Vec<Problem>> {
    if document.get("kind").and_then(Value::as_str) == Some(Kind::Workload.as_str()) {
        return Err(vec![not_user_written()]);
    }
    let problems = schema::check(&document);
    if !problems.is_empty() {
        return Err(problems);
    }
    drop_nulls(&mut document);
    // The schema has passed it, so this cannot fail; if it does, it is better to say so than to die.
    serde_json::from_value(document).map_err(|error| vec![Problem::new("", error.to_string())])
}

/// Everything that is wrong with a resource by itself, whoever made it.
///
/// Workloads are checked too, although [`decode`] takes none: the control plane makes them.
pub fn validate(resource: &Resource) -> Vec<Problem> {
    match serde_json::to_value(resource) {
        Ok(document) => schema::check(&document),
        Err(error) => vec![Problem::new("", error.to_string())],
    }
}

fn not_user_written() -> Problem {
    Problem::new(
        "kind",
        "a Workload cannot be written by hand; the control plane makes it from what a sidecar announces",
    )
}

/// A field that is `null` is one that was left out.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            drop_null_members(members);
            members.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn drop_null_members(members: &mut Map<String, Value>) {
    members.retain(|_, value| !value.is_null());
}
