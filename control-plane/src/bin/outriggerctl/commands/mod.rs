//! One file for each command.

pub mod apply;
pub mod completions;
pub mod config;
pub mod delete;
pub mod describe;
pub mod explain;
pub mod get;
pub mod status;
pub mod token;
pub mod validate;
pub mod version;
