/// The certificate authority and join tokens.
pub mod ca;
/// A client of the management API.
pub mod client;
/// Resources: what users write.
pub mod model;
/// Where resources are kept.
pub mod store;
