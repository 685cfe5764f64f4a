//! Sockets: binding, accepting, and the connections that a worker has open.

mod accept;
mod age;
mod connections;
mod gather;
pub mod proxy_protocol;
mod sockets;
mod stream;

pub(crate) use accept::accept;
pub(crate) use age::jittered;
pub(crate) use connections::{Connection, Connections};
pub(crate) use gather::{Gathered, Gathering, Moment, Traffic, gather};
pub(crate) use sockets::{Sockets, reaches};
pub(crate) use stream::Stream;
