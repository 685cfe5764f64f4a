//! Problems with their places in a file.

use std::fmt;

use serde_json::Value;

use super::Origin;
use super::split::Failure;
use crate::model::field_path::FieldPath;
use crate::model::{DEFAULT_NAMESPACE, Kind, Problem, ResourceKey};

/// A place in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

/// A problem and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceProblem {
    /// Name of the file.
    pub source: String,
    /// The place of the field, or of the nearest thing that is there.
    pub location: Option<Location>,
    /// Number of the document in the file, from 1; `None` where there is only one.
    pub document: Option<usize>,
    /// Key of the resource, as far as it has one.
    pub resource: Option<String>,
    /// What is wrong.
    pub problem: Problem,
}

/// `routes.yaml:12:5: document 2, route/default/chat: spec.rules[0].timeouts.request: …`
impl fmt::Display for SourceProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)?;
        if let Some(Location { line, column }) = self.location {
            write!(f, ":{line}:{column}")?;
        }
        f.write_str(": ")?;
        match (self.document, &self.resource) {
            (Some(number), Some(resource)) => write!(f, "document {number}, {resource}: ")?,
            (Some(number), None) => write!(f, "document {number}: ")?,
            (None, Some(resource)) => write!(f, "{resource}: ")?,
            (None, None) => {}
        }
        fmt::Display::fmt(&self.problem, f)
    }
}

impl Origin {
    /// Finds the place of a problem of this resource.
    pub(super) fn locate(&self, mut problem: Problem, occurrence: usize) -> SourceProblem {
        let path = match (self.base.is_empty(), problem.field.is_empty()) {
            (true, _) => problem.field.clone(),
            (false, true) => self.base.clone(),
            (false, false) => format!("{}.{}", self.base, problem.field),
        };
        let location = self
            .chunk
            .find(&FieldPath::parse(&path).unwrap_or_default(), occurrence);
        if self.name.is_none() {
            // Nothing else says which item of the list it is.
            problem.field = path;
        }
        SourceProblem {
            source: self.source.to_string(),
            location,
            document: self.number,
            resource: self.name.clone(),
            problem,
        }
    }

    pub(super) fn unreadable(&self, failure: Failure) -> SourceProblem {
        SourceProblem {
            source: self.source.to_string(),
            location: failure.location,
            document: self.number,
            resource: None,
            problem: Problem::new("", failure.message),
        }
    }
}

/// The key of what is perhaps a resource, for messages.
pub(super) fn name_of(document: &Value) -> Option<String> {
    let metadata = document.get("metadata")?;
    let name = metadata.get("name")?.as_str()?;
    let namespace = metadata
        .get("namespace")
        .and_then(Value::as_str)
        .unwrap_or(DEFAULT_NAMESPACE);
    let kind = document.get("kind")?.as_str()?;
    Some(match kind.parse::<Kind>() {
        Ok(kind) if kind.is_namespaced() => ResourceKey::new(kind, namespace, name).to_string(),
        Ok(kind) => ResourceKey::new(kind, "", name).to_string(),
        Err(_) => name.to_owned(),
    })
}
