//! Collects problems, and words them.

use serde_json::Value;

use crate::model::Problem;
use crate::model::field_path::{FieldPath, Segment};

/// More problems than this in one document are counted only: nobody reads them.
const MAX_PROBLEMS: usize = 100;
/// What is found is quoted up to this many characters.
const MAX_QUOTED: usize = 80;

/// The problems found so far, and where the check is.
#[derive(Debug, Default)]
pub(super) struct Report {
    path: FieldPath,
    problems: Vec<Problem>,
    left_out: usize,
}

impl Report {
    /// Something is wrong with the field the check is at.
    pub(super) fn problem(&mut self, message: impl Into<String>) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems
                .push(Problem::new(self.path.to_string(), message));
        } else {
            self.left_out += 1;
        }
    }

    /// Something is wrong with a field of the mapping the check is at.
    pub(super) fn problem_at(&mut self, field: &str, message: impl Into<String>) {
        self.within(field, |report| report.problem(message));
    }

    /// Goes into a field.
    pub(super) fn within(&mut self, field: &str, check: impl FnOnce(&mut Self)) {
        self.enter(Segment::Field(field.to_owned()), check);
    }

    /// Goes into an item of a list.
    pub(super) fn within_item(&mut self, index: usize, check: impl FnOnce(&mut Self)) {
        self.enter(Segment::Item(index), check);
    }

    fn enter(&mut self, segment: Segment, check: impl FnOnce(&mut Self)) {
        self.path.0.push(segment);
        check(self);
        self.path.0.pop();
    }

    /// The path of the field the check is at.
    pub(super) fn path(&self) -> String {
        self.path.to_string()
    }

    pub(super) fn into_problems(mut self) -> Vec<Problem> {
        if self.left_out > 0 {
            let message = format!("{} more problems are not shown", self.left_out);
            self.problems.push(Problem::new("", message));
        }
        self.problems
    }
}

/// A text in quotes, shortened.
pub(super) fn quote(text: &str) -> String {
    match text.char_indices().nth(MAX_QUOTED) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// What a value is, for people.
pub(super) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(found) => found.to_string(),
        Value::Number(found) => format!("the number {found}"),
        Value::String(found) => quote(found),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a mapping".to_owned(),
    }
}

/// `a, b and c`.
pub(super) fn enumerate(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

/// The word that was probably meant.
pub(super) fn suggest<'a>(found: &str, known: &[&'a str]) -> Option<&'a str> {
    let found = found.to_lowercase();
    let distance = |word: &&&str| strsim::damerau_levenshtein(&found, &word.to_lowercase());
    let nearest = known.iter().min_by_key(distance)?;
    if distance(&nearest) <= nearest.len().max(3) / 3 {
        return Some(nearest);
    }
    // `prefix` for `PathPrefix`.
    known
        .iter()
        .find(|word| found.len() >= 3 && word.to_lowercase().contains(&found))
        .copied()
}
