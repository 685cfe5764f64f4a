//! What happens to a token stream that breaks.

use serde::{Deserialize, Serialize};

/// A token stream that broke goes on at another endpoint, and the caller sees one stream. Paid for with the retry budget. For
/// services with `inference`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Continuation {
    /// Default auto.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<ContinuationMode>,
    /// Requests after the first. Default 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// Bytes of an answer that are kept for it: its text, and four for each token id. A longer one is not continued. Default
    /// 256 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u32>,
}

/// By what the next replica is told where the answer was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContinuationMode {
    /// By token ids where the model server gives them, else by text.
    #[default]
    Auto,
    /// By token ids, or not at all.
    Tokens,
    /// By text.
    Text,
}

impl Continuation {
    /// The value in effect.
    pub fn mode(&self) -> ContinuationMode {
        self.mode.unwrap_or_default()
    }

    /// The value in effect.
    pub fn max_attempts(&self) -> u32 {
        self.max_attempts.unwrap_or(2)
    }

    /// The value in effect.
    pub fn max_bytes(&self) -> u32 {
        self.max_bytes.unwrap_or(256 << 10)
    }
}
