//! How things look: tables and words for people, YAML and JSON for programs.

pub mod age;
pub mod document;
pub mod json;
pub mod style;
pub mod table;
