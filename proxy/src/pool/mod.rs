//! Upstream connections of one worker, by where they lead.
//!
//! Nothing here is shared between threads, and no borrow of the pool lives across an await.

mod connect;
pub(crate) mod http1;
mod http2;
mod warm;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path as FilePath;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::time::Instant;

use crate::address::Address;
use crate::admission::{Breaker, ConnectionHeld, Counted, Limit, Permit};
use crate::balance::{Endpoint, Load};
use crate::error::Reason;
use crate::http::interim::Interim;
use crate::identity::SpiffeId;
use crate::policy::{Backend, ConnectionPool, InboundPort, OutsideTls, Upstream};
use crate::runtime::Worker;
use crate::telemetry::Direction;
use crate::telemetry::metrics::{CloseCause, Metrics, Wire};
use crate::tls::OriginTls;

pub(crate) use connect::{Alpn, connect, dial};
pub(crate) use http1::{
    Http1Response, ResponseError, Upgraded, send as send_http1, send_for_upgrade,
};
pub(crate) use http2::{Http2Lease, send as send_http2};
pub(crate) use warm::warm;

/// How often idle connections are looked at.
pub(crate) const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// An HTTP/2 connection without streams is closed after this time. Its peer is a sidecar that keeps it open, and making it
/// anew costs a handshake; 90 s is what other clients' pools (Go, hyper-util) use.
const HTTP2_IDLE: Duration = Duration::from_secs(90);

/// A request that could not be sent, or got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) reason: Reason,
    /// The upstream has certainly not begun to process the request: any method may be sent again.
    pub(crate) unprocessed: bool,
    /// A connection that was used before broke without an answer: most likely it was closed in the same moment.
    pub(crate) stale: bool,
}

impl Failure {
    /// No connection.
    pub(crate) fn before(reason: Reason) -> Failure {
        Failure {
            reason,
            unprocessed: true,
            stale: false,
        }
    }
}

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
    fn of(address: &'a Address) -> Destination<'a> {
        match address {
            Address::Ip(address) => Destination::Ip(*address),
            Address::Unix(path) => Destination::Unix(path),
        }
    }

    fn to_address(self) -> Address {
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

/// How a request is sent.
#[derive(Clone, Copy)]
pub(crate) struct Path<'a> {
    pub(crate) worker: &'a Rc<Worker>,
    pub(crate) direction: Direction,
    pub(crate) target: &'a Target<'a>,
    /// Where responses before the response go. `None`: nowhere.
    pub(crate) interim: Option<&'a Arc<Interim>>,
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
    fn wait(&self) -> Result<Option<Permit>, Failure> {
        let enter = |limits: &Arc<Breaker>| {
            let permit = limits.enter(Counted::Pending);
            permit.ok_or(Failure::before(Reason::CircuitOpen))
        };
        self.limits.map(enter).transpose()
    }

    /// What a new connection takes of the service's limits. `Ok(None)`: it has none.
    fn hold_connection(&self) -> Result<Option<ConnectionHeld>, Failure> {
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

    fn detach(self) -> OwnedTarget {
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
struct OwnedTarget {
    address: Address,
    connect_timeout: Duration,
    pool: Arc<ConnectionPool>,
    peer: Option<OwnedPeer>,
    outside: Option<OutsideTls>,
    /// Only where there are limits.
    load: Option<Arc<Load>>,
    limits: Option<Arc<Breaker>>,
}

struct OwnedPeer {
    server_name: ServerName<'static>,
    upstream: Arc<Upstream>,
    identity: Option<SpiffeId>,
}

impl OwnedTarget {
    fn as_target(&self) -> Target<'_> {
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

/// All upstream connections of a worker.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    places: RefCell<HashMap<Address, Vec<Rc<Place>>>>,
    /// Requests on connections that were open already, since the last sweep: by direction, HTTP/1.1 and HTTP/2.
    reused: [[Cell<u64>; 2]; Direction::ALL.len()],
}

/// Connections to one address, for one name.
#[derive(Debug)]
struct Place {
    server_name: Option<ServerName<'static>>,
    /// What a server outside the mesh was verified with. `None`: it is within, or plaintext.
    origin: Option<Arc<OriginTls>>,
    /// Gone when neither the configuration nor a request names the endpoint any more. `None`: the application.
    load: RefCell<Option<Weak<Load>>>,
    /// As the last request's configuration has it.
    pool: RefCell<Arc<ConnectionPool>>,
    /// When a connection may be opened ahead of need.
    warm_after: Cell<Option<Instant>>,
    http1: RefCell<http1::Idle>,
    http2: RefCell<http2::Shared>,
    used_at: Cell<Instant>,
    /// No longer in the pool: what comes back is closed.
    closed: Cell<bool>,
}

impl Pool {
    /// The connections for a target.
    fn place(&self, target: &Target<'_>) -> Rc<Place> {
        let mut places = self.places.borrow_mut();
        let at_address = places.entry(target.address.to_address()).or_default();
        let name = target
            .peer
            .map(|peer| peer.server_name)
            .or(target.outside.map(|outside| &outside.server_name));
        let origin = target.outside.map(|outside| &outside.origin);
        let known = at_address
            .iter()
            .find(|place| place.server_name.as_ref() == name && place.is_from(origin));
        if let Some(place) = known {
            if place.is_orphan() {
                // Another endpoint has taken the address.
                *place.load.borrow_mut() = target.load.map(Arc::downgrade);
            }
            place.follow(target.pool);
            return Rc::clone(place);
        }
        let place = Rc::new(Place {
            server_name: name.cloned(),
            origin: origin.cloned(),
            load: RefCell::new(target.load.map(Arc::downgrade)),
            pool: RefCell::new(Arc::clone(target.pool)),
            warm_after: Cell::new(None),
            http1: RefCell::default(),
            http2: RefCell::default(),
            used_at: Cell::new(Instant::now()),
            closed: Cell::new(false),
        });
        at_address.push(Rc::clone(&place));
        place
    }

    /// Closes what was idle for too long, and what leads to endpoints that are gone. Requests under way keep their
    /// connections.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        let mut places = self.places.borrow_mut();
        for at_address in places.values_mut() {
            at_address.retain(|place| {
                let stays = place.sweep(now);
                if !stays {
                    place.close(match place.is_orphan() {
                        true => CloseCause::Endpoint,
                        false => CloseCause::Idle,
                    });
                }
                stays
            });
        }
        places.retain(|_, at_address| !at_address.is_empty());
        if places.is_empty() {
            places.shrink_to_fit();
        }
    }

    /// A request goes to a connection that was used before.
    fn reused(&self, direction: Direction, wire: Wire) {
        let count = &self.reused[direction as usize][usize::from(wire == Wire::Http2)];
        count.set(count.get() + 1);
    }

    /// Adds up what was counted here: the path of a request has no atomics for it.
    pub(crate) fn report(&self, metrics: &Metrics) {
        for direction in Direction::ALL {
            for (wire, count) in [Wire::Http1, Wire::Http2]
                .into_iter()
                .zip(&self.reused[direction as usize])
            {
                let count = count.take();
                if count > 0 {
                    metrics.protocols.reused(direction, wire, count);
                }
            }
        }
    }

    /// Closes everything that is idle.
    pub(crate) fn close_idle(&self) {
        for place in self.places.borrow().values().flatten() {
            place.http1.borrow_mut().clear(CloseCause::Idle);
        }
    }
}

impl Place {
    /// Whether its connections were verified with these settings: what was made with others is not for this target.
    fn is_from(&self, origin: Option<&Arc<OriginTls>>) -> bool {
        match (&self.origin, origin) {
            (None, None) => true,
            (Some(own), Some(other)) => Arc::ptr_eq(own, other),
            _ => false,
        }
    }

    /// Whether its endpoint is gone.
    fn is_orphan(&self) -> bool {
        let load = self.load.borrow();
        load.as_ref().is_some_and(|load| load.strong_count() == 0)
    }

    /// Whether it stays in the pool.
    fn sweep(&self, now: Instant) -> bool {
        if self.is_orphan() {
            return self.http2.borrow().is_connecting();
        }
        let mut http1 = self.http1.borrow_mut();
        http1.sweep(now, &self.pool.borrow());
        let mut http2 = self.http2.borrow_mut();
        http2.sweep(now, &self.pool.borrow());
        !http1.is_empty()
            || !http2.is_empty()
            || now.duration_since(self.used_at.get()) < HTTP2_IDLE
    }

    fn close(&self, cause: CloseCause) {
        self.closed.set(true);
        self.http1.borrow_mut().clear(cause);
        self.http2.borrow_mut().close(cause);
    }

    /// Goes by this configuration from now on.
    fn follow(&self, pool: &Arc<ConnectionPool>) {
        let mut own = self.pool.borrow_mut();
        if !Arc::ptr_eq(&own, pool) {
            *own = Arc::clone(pool);
        }
    }
}
