//! Splits a file into documents, and reads one of them.

use std::borrow::Cow;

use serde::de::{DeserializeSeed, IgnoredAny};

use super::tree::{Tree, TreeSeed};
use super::{Location, MAX_DOCUMENT, find};
use crate::model::field_path::FieldPath;

/// The text of one document.
#[derive(Debug)]
pub(super) struct Chunk {
    format: Format,
    text: String,
    /// Lines of the file before it.
    lines_before: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Json,
    Yaml,
}

/// Why a document cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) location: Option<Location>,
    pub(super) message: String,
}

/// Splits a file. Documents without content are left out.
pub(super) fn split(source: &str, text: &str) -> Vec<Chunk> {
    if is_json(source, text) {
        return vec![Chunk {
            format: Format::Json,
            text: text.to_owned(),
            lines_before: 0,
        }];
    }
    let mut chunks = Vec::new();
    let mut current = String::new();
    let mut begins_at = 0;
    let (mut begun, mut has_content) = (false, false);
    let mut finish = |text: &mut String, lines_before: usize| {
        let text = std::mem::take(text);
        chunks.push(Chunk {
            format: Format::Yaml,
            text,
            lines_before,
        });
    };
    for (number, line) in text.split_inclusive('\n').enumerate() {
        // YAML 1.2, section 9.1.2: at the beginning of a line these mark documents, wherever they occur.
        let begins = is_marker(line, "---");
        if begins && has_content {
            finish(&mut current, begins_at);
            (begins_at, has_content) = (number, false);
        } else if begins && begun {
            // The document before it is empty.
            current.clear();
            begins_at = number;
        }
        begun |= begins;
        current.push_str(line);
        has_content |= if begins {
            !is_blank(&line[3..])
        } else {
            !is_blank(line)
        };
        if is_marker(line, "...") {
            if has_content {
                finish(&mut current, begins_at);
            } else {
                current.clear();
            }
            (begins_at, begun, has_content) = (number + 1, false, false);
        }
    }
    if has_content {
        finish(&mut current, begins_at);
    }
    chunks
}

/// A file that is not named as one or the other is JSON if it can be read as such.
fn is_json(source: &str, text: &str) -> bool {
    let named = |extension: &str| source.to_lowercase().ends_with(extension);
    named(".json")
        || !named(".yaml")
            && !named(".yml")
            && text.trim_start().starts_with(['{', '['])
            && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

/// Nothing, a comment, a directive or a marker.
fn is_blank(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with(['#', '%']) || line == "..."
}

impl Chunk {
    /// Reads the document.
    pub(super) fn read(&self) -> Result<Tree, Failure> {
        if self.text.len() > MAX_DOCUMENT {
            return Err(Failure {
                location: Some(Location {
                    line: self.lines_before + 1,
                    column: 1,
                }),
                message: format!(
                    "the document has {} bytes; at most {MAX_DOCUMENT} are allowed",
                    self.text.len()
                ),
            });
        }
        let mut tree = Tree::default();
        tree.value = self.deserialize(TreeSeed::new(&mut tree))?;
        Ok(tree)
    }

    /// The place of a field; of the nearest thing around it, where the field is missing.
    pub(super) fn find(&self, path: &FieldPath, occurrence: usize) -> Option<Location> {
        let mut segments = &path.0[..];
        loop {
            // To find something is reported as an error: only those carry places.
            if let Err(found) = self.deserialize(find::Find {
                path: segments,
                occurrence,
            }) {
                return found.location;
            }
            segments = segments.split_last()?.1;
        }
    }

    fn deserialize<'a, S: DeserializeSeed<'a>>(&'a self, seed: S) -> Result<S::Value, Failure> {
        match self.format {
            Format::Json => {
                let mut deserializer = serde_json::Deserializer::from_str(&self.text);
                let result = seed.deserialize(&mut deserializer);
                result
                    .and_then(|value| deserializer.end().map(|()| value))
                    .map_err(json_failure)
            }
            Format::Yaml => {
                let mut documents = serde_yaml::Deserializer::from_str(&self.text);
                let failure = |message: &str| Failure {
                    location: None,
                    message: message.to_owned(),
                };
                let document = documents
                    .next()
                    .ok_or_else(|| failure("the document is empty"))?;
                let value = seed
                    .deserialize(document)
                    .map_err(|error| self.yaml_failure(&error))?;
                // It would be ignored. The markers were taken out, but YAML knows more line breaks than we do.
                if documents.next().is_some() {
                    return Err(failure(
                        "there is another document in it; separate them by lines with \"---\"",
                    ));
                }
                Ok(value)
            }
        }
    }

    fn yaml_failure(&self, error: &serde_yaml::Error) -> Failure {
        let location = error.location().map(|place| Location {
            line: place.line() + self.lines_before,
            column: place.column(),
        });
        // The library adds places, counted from the beginning of the document, and paths: both are ours to say.
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default();
        let message: Cow<'_, str> = match message {
            // The latter is what `[*.example]` gets.
            "unknown anchor" | "did not find expected alphabetic or numeric character" => {
                "\"*\" begins an alias of YAML, and nothing has that name; put hosts like \"*.example\" in quotes".into()
            }
            "recursion limit exceeded" => super::tree::TOO_DEEP.into(),
            "repetition limit exceeded" => super::tree::TOO_LARGE.into(),
            other => match other.split_once(find::OURS) {
                Some((_, ours)) => ours.into(),
                None => format!("this is not valid YAML: {other}").into(),
            },
        };
        Failure {
            location,
            message: message.into_owned(),
        }
    }
}

fn json_failure(error: serde_json::Error) -> Failure {
    let location = Location {
        line: error.line(),
        column: error.column().max(1),
    };
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or_default();
    let message = match message.split_once(find::OURS) {
        Some((_, ours)) => ours.to_owned(),
        None if message == "recursion limit exceeded" => super::tree::TOO_DEEP.to_owned(),
        None => format!("this is not valid JSON: {message}"),
    };
    Failure {
        location: (location.line > 0).then_some(location),
        message,
    }
}
