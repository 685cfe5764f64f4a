//! What comes in: option values, and files of resources.

mod files;
mod resources;
pub mod value;

pub use resources::{Input, keys, load, print};
