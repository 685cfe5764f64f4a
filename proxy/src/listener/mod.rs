//! Sockets: binding, accepting, and the connections that a worker has open.

mod accept;
mod connections;
mod sockets;
mod stream;

pub(crate) use accept::accept;
pub(crate) use connections::{Connection, Connections};
pub(crate) use sockets::{Sockets, reaches};
pub(crate) use stream::Stream;
