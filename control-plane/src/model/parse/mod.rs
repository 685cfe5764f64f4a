//! Reads files of resources, and says where in the file what is wrong.
//!
//! A file is YAML with any number of documents, or JSON. A document is a resource, a list of resources, or a mapping with
//! the kind `List` and its resources under `items`. Documents are read one by one, so that one that is not even YAML
//! does not hide the problems of the others.

mod find;
mod located;
mod split;
mod tree;

use std::sync::Arc;

use serde_json::Value;

pub use self::located::{Location, SourceProblem};
use self::split::Chunk;
use super::{Problem, Resource, decode};

/// A file may have so many bytes.
pub const MAX_FILE: usize = 16 * 1024 * 1024;
/// One document may have so many bytes.
pub const MAX_DOCUMENT: usize = 1024 * 1024;
/// A file may have so many documents.
pub const MAX_DOCUMENTS: usize = 10_000;

/// What a file holds.
#[derive(Debug, Default)]
pub struct Parsed {
    /// The resources without problems, in the order of the file.
    pub documents: Vec<Document>,
    /// Everything that is wrong with the others, in the order of the file.
    pub problems: Vec<SourceProblem>,
}

/// A resource and where it was written.
#[derive(Clone, Debug)]
pub struct Document {
    /// Checked by itself, not against others.
    pub resource: Resource,
    origin: Origin,
}

/// Where a resource was written.
#[derive(Clone, Debug)]
struct Origin {
    source: Arc<str>,
    chunk: Arc<Chunk>,
    /// Number of the document, from 1; `None` where it is the file's only one.
    number: Option<usize>,
    /// Path of the resource in the document; empty, `[2]` or `items[2]`.
    base: String,
    /// Its key, as far as it has one.
    name: Option<String>,
}

impl Document {
    /// Says where in the file a problem is that was found later, e.g. by the server.
    pub fn locate(&self, problem: Problem) -> SourceProblem {
        self.origin.locate(problem, 0)
    }

    /// Name of the file.
    pub fn source(&self) -> &str {
        &self.origin.source
    }
}

/// Reads a file. `source` is its name, for messages; if it ends in `.json` the file must be JSON.
pub fn parse(source: &str, bytes: &[u8]) -> Parsed {
    let mut parsed = Parsed::default();
    let whole = |message: String, line: Option<usize>| SourceProblem {
        source: source.to_owned(),
        location: line.map(|line| Location { line, column: 1 }),
        document: None,
        resource: None,
        problem: Problem::new("", message),
    };
    if bytes.len() > MAX_FILE {
        let message = format!(
            "the file has {} bytes; at most {MAX_FILE} are allowed",
            bytes.len()
        );
        parsed.problems.push(whole(message, None));
        return parsed;
    }
    let text = match str::from_utf8(bytes) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(error) => {
            let line = 1 + bytes[..error.valid_up_to()]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count();
            parsed.problems.push(whole(
                "the file is not text in UTF-8".to_owned(),
                Some(line),
            ));
            return parsed;
        }
    };
    let chunks = split::split(source, text);
    if chunks.len() > MAX_DOCUMENTS {
        let message = format!(
            "the file has {} documents; at most {MAX_DOCUMENTS} are allowed",
            chunks.len()
        );
        parsed.problems.push(whole(message, None));
        return parsed;
    }
    let several = chunks.len() > 1;
    let source: Arc<str> = source.into();
    for (index, chunk) in chunks.into_iter().enumerate() {
        let origin = Origin {
            source: Arc::clone(&source),
            chunk: Arc::new(chunk),
            number: several.then_some(index + 1),
            base: String::new(),
            name: None,
        };
        read_document(origin, &mut parsed);
    }
    parsed
}

fn read_document(origin: Origin, parsed: &mut Parsed) {
    let tree = match origin.chunk.read() {
        Ok(tree) => tree,
        Err(failure) => return parsed.problems.push(origin.unreadable(failure)),
    };
    // A key that is given twice: it is not clear what was meant.
    let unclear = !tree.problems.is_empty();
    let named = Origin {
        name: located::name_of(&tree.value),
        ..origin.clone()
    };
    let mut problems: Vec<SourceProblem> = tree
        .problems
        .into_iter()
        .map(|found| named.locate(found.problem, found.occurrence))
        .collect();
    for (base, value) in resources(tree.value) {
        let name = located::name_of(&value);
        let origin = Origin {
            base,
            name,
            ..origin.clone()
        };
        match decode(value) {
            Ok(_) if unclear => {}
            Ok(resource) => parsed.documents.push(Document { resource, origin }),
            Err(found) => {
                problems.extend(found.into_iter().map(|problem| origin.locate(problem, 0)))
            }
        }
    }
    problems.sort_by_key(|problem| problem.location);
    parsed.problems.extend(problems);
}

/// The resources of a document with their paths in it.
fn resources(document: Value) -> Vec<(String, Value)> {
    let numbered = |prefix: &str, items: Vec<Value>| {
        let name = |index| format!("{prefix}[{index}]");
        items
            .into_iter()
            .enumerate()
            .map(|(index, item)| (name(index), item))
            .collect()
    };
    match document {
        Value::Null => Vec::new(),
        Value::Array(items) => numbered("", items),
        Value::Object(mut members)
            if members.get("kind").and_then(Value::as_str) == Some("List") =>
        {
            match members.remove("items") {
                Some(Value::Array(items)) => numbered("items", items),
                _ => vec![(String::new(), Value::Object(members))],
            }
        }
        document => vec![(String::new(), document)],
    }
}

#[cfg(test)]
mod tests;
