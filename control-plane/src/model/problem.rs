//! What is wrong with a resource.

use std::fmt;

/// One thing that is wrong, in one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path of the field, for example `spec.rules[0].timeouts.request`. Empty: the resource as a whole.
    pub field: String,
    /// What was found and what is allowed, in one line.
    pub message: String,
}

impl Problem {
    /// A problem with a field.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.field, self.message)
        }
    }
}

/// A problem of one of several resources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexedProblem {
    /// Which of the resources.
    pub index: usize,
    /// What is wrong with it.
    pub problem: Problem,
}

impl IndexedProblem {
    /// A problem of the resource at `index`.
    pub fn new(index: usize, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            index,
            problem: Problem::new(field, message),
        }
    }
}
