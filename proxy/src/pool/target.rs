//! Where connections lead, and what limits them.

use std::net::SocketAddr;
use std::path::Path as FilePath;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rustls_pki_types::ServerName;

use super::Failure;
use crate::address::Address;
use crate::admission::{Breaker, ConnectionHeld, Counted, Limit, Permit, Usage};
use crate::balance::{Endpoint, Load};
use crate::error::Reason;
use crate::identity::SpiffeId;
use crate::policy::{Backend, ConnectionPool, InboundPort, OutsideTls, Upstream};

/// Where a connection leads.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) address: Destination<'a>,
    pub(crate) connect_timeout: Duration,
    pub(crate) pool: &'a Arc<ConnectionPool>,
    /// `None`: plaintext.
    pub(crate) peer: Option<Peer<'a>>,
    /// TLS towards a server outside the mesh, in place of `peer`.
    pub(crate) outside: Option<&'a OutsideTls>,
    /// The endpoint that it belongs to; `None` for the application.
    pub(crate) load: Option<&'a Arc<Load>>,
    /// Limits of the service. `None`: there are none.
    pub(crate) limits: Option<&'a Arc<Breaker>>,
}

/// An [`Address`] that is somebody else's.
#[derive(Clone, Copy)]
pub(crate) enum Destination<'a> {
    Ip(SocketAddr),
    Unix(&'a Arc<FilePath>),
}

impl<'a> Destination<'a> {
    pub(super) fn of(address: &'a Address) -> Destination<'a> {
        match address {
            Address::Ip(address) => Destination::Ip(*address),
            Address::Unix(path) => Destination::Unix(path),
        }
    }

    pub(super) fn to_address(self) -> Address {
        match self {
            Destination::Ip(address) => Address::Ip(address),
            Destination::Unix(path) => Address::Unix(Arc::clone(path)),
        }
    }
}

/// A sidecar, and what it must prove.
#[derive(Clone, Copy)]
pub(crate) struct Peer<'a> {
    pub(crate) server_name: &'a ServerName<'static>,
    pub(crate) upstream: &'a Arc<Upstream>,
    pub(crate) identity: Option<&'a SpiffeId>,
}

impl<'a> Target<'a> {
    pub(crate) fn endpoint(endpoint: &'a Endpoint, backend: &'a Backend) -> Target<'a> {
        Target::of(endpoint, &backend.upstream, &backend.server_name)
    }

    pub(crate) fn of(
        endpoint: &'a Endpoint,
        upstream: &'a Arc<Upstream>,
        server_name: &'a ServerName<'static>,
    ) -> Target<'a> {
        Target {
            address: Destination::Ip(endpoint.address),
            connect_timeout: upstream.connect_timeout,
            pool: &upstream.pool,
            peer: endpoint.mtls.then_some(Peer {
                server_name,
                upstream,
                identity: endpoint.identity.as_ref(),
            }),
            outside: endpoint.outside.as_ref().and_then(|it| it.tls.as_ref()),
            load: Some(&endpoint.load),
            limits: upstream.limits.as_ref(),
        }
    }

    /// A place among the requests that wait for a connection. `Ok(None)`: the service has no limits.
    pub(super) fn wait(&self) -> Result<Option<Permit>, Failure> {
        let enter = |limits: &Arc<Breaker>| {
            let permit = limits.enter(Counted::Pending);
            permit.ok_or(Failure::before(Reason::CircuitOpen))
        };
        self.limits.map(enter).transpose()
    }

    /// What its connections are counted with.
    pub(super) fn usage(&self) -> Option<Weak<Usage>> {
        self.limits.map(|limits| Arc::downgrade(&limits.usage))
    }

    /// Whether a limit leaves no place for a new connection.
    pub(super) fn has_no_room(&self) -> bool {
        let Some(limits) = self.limits else {
            return false;
        };
        limits.is_open(Counted::Connections) || self.load.is_some_and(|load| load.is_crowded())
    }

    /// What a new connection takes of the service's limits. `Ok(None)`: it has none.
    pub(super) fn hold_connection(&self) -> Result<Option<ConnectionHeld>, Failure> {
        let Some(limits) = self.limits else {
            return Ok(None);
        };
        let full = Failure::before(Reason::CircuitOpen);
        let endpoint = match self.load {
            None => None,
            Some(load) => match load.connect() {
                Some(connecting) => Some(connecting),
                None => {
                    limits.refusals.count(Limit::EndpointConnections);
                    return Err(full);
                }
            },
        };
        let service = limits.enter(Counted::Connections).ok_or(full)?;
        Ok(Some(ConnectionHeld {
            _service: service,
            _endpoint: endpoint,
        }))
    }

    /// The application behind this sidecar.
    pub(crate) fn application(port: &'a InboundPort, connect_timeout: Duration) -> Target<'a> {
        Target {
            address: Destination::of(&port.application),
            connect_timeout,
            pool: &port.pool,
            peer: None,
            outside: None,
            load: None,
            limits: None,
        }
    }

    pub(super) fn detach(self) -> OwnedTarget {
        OwnedTarget {
            address: self.address.to_address(),
            connect_timeout: self.connect_timeout,
            pool: Arc::clone(self.pool),
            peer: self.peer.map(|peer| OwnedPeer {
                server_name: peer.server_name.clone(),
                upstream: Arc::clone(peer.upstream),
                identity: peer.identity.cloned(),
            }),
            outside: self.outside.cloned(),
            load: self.limits.and(self.load).cloned(),
            limits: self.limits.cloned(),
        }
    }
}

/// The same for a task of its own.
pub(super) struct OwnedTarget {
    address: Address,
    connect_timeout: Duration,
    pub(super) pool: Arc<ConnectionPool>,
    pub(super) peer: Option<OwnedPeer>,
    outside: Option<OutsideTls>,
    /// Only where there are limits.
    load: Option<Arc<Load>>,
    limits: Option<Arc<Breaker>>,
}

pub(super) struct OwnedPeer {
    server_name: ServerName<'static>,
    pub(super) upstream: Arc<Upstream>,
    identity: Option<SpiffeId>,
}

impl OwnedTarget {
    pub(super) fn as_target(&self) -> Target<'_> {
        Target {
            address: Destination::of(&self.address),
            connect_timeout: self.connect_timeout,
            pool: &self.pool,
            peer: self.peer.as_ref().map(|peer| Peer {
                server_name: &peer.server_name,
                upstream: &peer.upstream,
                identity: peer.identity.as_ref(),
            }),
            outside: self.outside.as_ref(),
            load: self.load.as_ref(),
            limits: self.limits.as_ref(),
        }
    }
}
