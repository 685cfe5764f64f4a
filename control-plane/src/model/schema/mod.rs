//! Which fields there are and what each may hold.
//!
//! The tables are checked against a document as a whole, so that all of its problems are found in one go; what passes
//! deserializes into the types of [`super`] (a test proves that the two agree).

mod balancing;
mod checks;
mod common;
mod connection_pool;
mod continuation;
mod egress;
mod fallback;
mod filters;
mod health;
mod hedge;
mod inference;
mod limits;
mod mesh;
mod paths;
mod rate_limit;
mod report;
mod route;
mod service;
mod shape;
mod workload;

use serde_json::Value;

use self::report::Report;
use self::shape::{Field, Object, Shape};
use super::{API_VERSION, Kind, MESH_NAME, Problem};

static ROOT: Object = Object::new(&[
    Field::required("apiVersion", Shape::OneOf(&[API_VERSION])),
    Field::required(
        "kind",
        Shape::OneOf(&["Mesh", "Service", "Route", "RateLimit", "Workload"]),
    ),
    Field::required("metadata", Shape::Object(&common::METADATA)),
    // Checked by kind.
    Field::optional("spec", Shape::Any),
    // Set by the control plane.
    Field::optional("status", Shape::Any),
]);

/// Everything that is wrong with a document by itself. Empty: it deserializes.
pub(super) fn check(document: &Value) -> Vec<Problem> {
    let mut report = Report::default();
    Shape::Object(&ROOT).check(document, &mut report);
    let Value::Object(members) = document else {
        return report.into_problems();
    };
    let kind = members
        .get("kind")
        .and_then(Value::as_str)
        .and_then(|kind| kind.parse().ok());
    if let Some(kind) = kind {
        let spec = spec_of(kind);
        report.within("spec", |report| match members.get("spec") {
            Some(Value::Null) | None if spec.needs_nothing() => {}
            Some(Value::Null) | None => report.problem(spec.missing()),
            Some(found) => Shape::Object(spec).check(found, report),
        });
        if kind == Kind::Mesh
            && let Some(Value::Object(metadata)) = members.get("metadata")
        {
            report.within("metadata", |report| check_mesh_metadata(metadata, report));
        }
    }
    report.into_problems()
}

fn spec_of(kind: Kind) -> &'static Object {
    match kind {
        Kind::Mesh => &mesh::SPEC,
        Kind::Service => &service::SPEC,
        Kind::Route => &route::SPEC,
        Kind::RateLimit => &rate_limit::SPEC,
        Kind::Workload => &workload::SPEC,
    }
}

fn check_mesh_metadata(metadata: &serde_json::Map<String, Value>, report: &mut Report) {
    if let Some(name) = metadata.get("name").and_then(Value::as_str)
        && name != MESH_NAME
    {
        let message = format!(
            "{name:?} is not the name of the mesh; there is one Mesh, named \"{MESH_NAME}\""
        );
        report.problem_at("name", message);
    }
    if let Some(Value::String(_)) = metadata.get("namespace") {
        report.problem_at("namespace", "a Mesh has no namespace; leave it out");
    }
}

#[cfg(test)]
mod tests;
