//! The sidecar's own listeners: no request may come back to it by way of a name.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

/// Where this sidecar listens, all ports of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct OwnListeners(Arc<[SocketAddr]>);

impl OwnListeners {
    pub(crate) fn new(listeners: Vec<SocketAddr>) -> OwnListeners {
        OwnListeners(listeners.into())
    }

    /// Whether a connection to this address would be one to this sidecar.
    pub(crate) fn contain(&self, address: SocketAddr) -> bool {
        self.0.iter().any(|own| {
            crate::listener::reaches(address, *own)
                || (own.port() == address.port() && own.ip().is_unspecified() && is_local(address))
        })
    }
}

/// Whether the address is one of this machine's: nothing can be bound to another's.
fn is_local(address: SocketAddr) -> bool {
    UdpSocket::bind((address.ip(), 0)).is_ok()
}
