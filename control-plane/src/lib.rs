
/// A client of the management API.
pub mod client;
