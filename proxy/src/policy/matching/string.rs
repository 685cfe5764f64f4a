//! Patterns for paths and header values.

use std::fmt;

use regex::bytes::{Regex, RegexBuilder};

/// Longest regular expression, bytes. The Gateway API's limit for header values is 4,096, for paths 1,024.
const MAX_PATTERN: usize = 4096;

/// Largest compiled expression, bytes. Enough for `[\w-]{12}` with all of Unicode (`{32}` is too large); a mesh's worth of rules must stay small.
const MAX_COMPILED: usize = 1 << 20;

/// A pattern for a whole value.
#[derive(Clone)]
pub enum StringMatch {
    Exact(Box<str>),
    /// Whole path segments, without a slash at the end: `/v1` matches `/v1`, `/v1/` and `/v1/models`, not `/v10`. Empty:
    /// everything.
    Prefix(Box<str>),
    /// Matches the whole value.
    Regex {
        pattern: Box<str>,
        compiled: Regex,
    },
}

/// Why a pattern was refused.
#[derive(Debug, thiserror::Error)]
pub enum InvalidPattern {
    #[error("the regular expression has {found} bytes; at most {MAX_PATTERN} are allowed")]
    TooLong { found: usize },
    #[error(
        "the regular expression is too large once compiled; at most {MAX_COMPILED} bytes are allowed"
    )]
    TooLarge,
    #[error(
        "{pattern:?} is no regular expression (RE2-like syntax, without look-around and back-references): {why}"
    )]
    Syntax { pattern: String, why: String },
}

impl StringMatch {
    pub fn exact(value: &str) -> StringMatch {
        StringMatch::Exact(value.into())
    }

    /// `/v1` and `/v1/` mean the same (as in the Gateway API); `/` and nothing mean everything.
    pub fn prefix(value: &str) -> StringMatch {
        StringMatch::Prefix(value.strip_suffix('/').unwrap_or(value).into())
    }

    /// Time is linear in the value's length, whatever the pattern (finite automata, no backtracking).
    pub fn regex(pattern: &str) -> Result<StringMatch, InvalidPattern> {
        if pattern.len() > MAX_PATTERN {
            return Err(InvalidPattern::TooLong {
                found: pattern.len(),
            });
        }
        // Alone first: `a)|(b` is no expression, though it would be one between parentheses.
        compile(pattern, pattern)?;
        let compiled = compile(&format!(r"\A(?:{pattern})\z"), pattern)?;
        Ok(StringMatch::Regex {
            pattern: pattern.into(),
            compiled,
        })
    }

    pub fn matches(&self, value: &[u8]) -> bool {
        match self {
            StringMatch::Exact(exact) => exact.as_bytes() == value,
            StringMatch::Prefix(prefix) => value
                .strip_prefix(prefix.as_bytes())
                .is_some_and(|rest| rest.is_empty() || prefix.is_empty() || rest[0] == b'/'),
            StringMatch::Regex { compiled, .. } => compiled.is_match(value),
        }
    }

    /// `exact`, `prefix` or `regex`.
    pub const fn kind(&self) -> &'static str {
        match self {
            StringMatch::Exact(_) => "exact",
            StringMatch::Prefix(_) => "prefix",
            StringMatch::Regex { .. } => "regex",
        }
    }

    /// As it was written (a prefix without its last slash, `/` for everything).
    pub fn value(&self) -> &str {
        match self {
            StringMatch::Prefix(value) if value.is_empty() => "/",
            StringMatch::Exact(value) | StringMatch::Prefix(value) => value,
            StringMatch::Regex { pattern, .. } => pattern,
        }
    }
}

fn compile(text: &str, pattern: &str) -> Result<Regex, InvalidPattern> {
    RegexBuilder::new(text)
        .size_limit(MAX_COMPILED)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => InvalidPattern::TooLarge,
            other => InvalidPattern::Syntax {
                pattern: pattern.to_owned(),
                // The crate draws a picture over several lines; the last one says what is wrong.
                why: other
                    .to_string()
                    .lines()
                    .last()
                    .unwrap_or_default()
                    .trim()
                    .to_owned(),
            },
        })
}

impl fmt::Debug for StringMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.kind(), self.value())
    }
}

impl PartialEq for StringMatch {
    fn eq(&self, other: &StringMatch) -> bool {
        self.kind() == other.kind() && self.value() == other.value()
    }
}

impl Eq for StringMatch {}
