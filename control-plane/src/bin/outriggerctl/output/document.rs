//! Documents for programs.

use std::io::{self, Write};

use serde_json::Value;

/// The formats for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Document {
    Yaml,
    Json,
}

impl Document {
    /// Writes one document.
    pub fn write(self, value: &Value, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Json => {
                serde_json::to_writer_pretty(&mut *out, value)?;
                writeln!(out)
            }
            Self::Yaml => {
                let text = serde_yaml::to_string(value).map_err(io::Error::other)?;
                out.write_all(text.as_bytes())
            }
        }
    }

    /// Writes one of a series of documents: a line of JSON, or YAML after `---`.
    pub fn write_next(self, value: &Value, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Json => {
                serde_json::to_writer(&mut *out, value)?;
                writeln!(out)
            }
            Self::Yaml => {
                writeln!(out, "---")?;
                self.write(value, out)
            }
        }
    }
}
