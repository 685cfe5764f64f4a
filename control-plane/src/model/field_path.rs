//! Paths of fields, as in `spec.rules[0].timeouts.request`.

use std::fmt;

/// One step of a [`FieldPath`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    /// A field of a mapping.
    Field(String),
    /// An item of a list.
    Item(usize),
}

/// The path of a field within a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FieldPath(pub(crate) Vec<Segment>);

impl FieldPath {
    /// Reads what [`fmt::Display`] writes. `None` where it did not write that.
    pub(crate) fn parse(mut text: &str) -> Option<Self> {
        let mut path = Vec::new();
        while !text.is_empty() {
            if let Some(rest) = text.strip_prefix("[\"") {
                let end = closing_quote(rest)?;
                let name: String = serde_json::from_str(&text[1..=end + 2]).ok()?;
                path.push(Segment::Field(name));
                text = rest[end + 1..].strip_prefix(']')?;
            } else if let Some(rest) = text.strip_prefix('[') {
                let (index, rest) = rest.split_once(']')?;
                path.push(Segment::Item(index.parse().ok()?));
                text = rest;
            } else {
                let rest = if path.is_empty() {
                    text
                } else {
                    text.strip_prefix('.')?
                };
                let end = rest.find(|c: char| !is_plain(c)).unwrap_or(rest.len());
                if end == 0 {
                    return None;
                }
                path.push(Segment::Field(rest[..end].to_owned()));
                text = &rest[end..];
            }
        }
        Some(Self(path))
    }
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (position, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(position),
            _ => {}
        }
    }
    None
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Item(index) => write!(f, "[{index}]")?,
                Segment::Field(name) if !name.is_empty() && name.chars().all(is_plain) => {
                    let dot = if position == 0 { "" } else { "." };
                    write!(f, "{dot}{name}")?;
                }
                Segment::Field(name) => {
                    let quoted = serde_json::to_string(name).map_err(|_| fmt::Error)?;
                    write!(f, "[{quoted}]")?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
