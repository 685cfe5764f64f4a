//! Upstream connections of one worker, by where they lead.
//!
//! Nothing here is shared between threads, and no borrow of the pool lives across an await.

mod connect;
pub(crate) mod http1;
mod http2;
mod place;
mod target;
mod warm;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::address::Address;
use crate::admission::Counted;
use crate::error::Reason;
use crate::http::interim::Interim;
use crate::runtime::Worker;
use crate::telemetry::Direction;
use crate::telemetry::metrics::{CloseCause, Metrics, Wire};

pub(crate) use connect::{Alpn, connect, dial};
pub(crate) use http1::{
    Http1Response, NewConnection, ResponseError, Upgraded, send as send_http1, send_for_upgrade,
};
pub(crate) use http2::{Http2Lease, send as send_http2};
pub(crate) use target::{Destination, Peer, Target};
pub(crate) use warm::warm;

use place::Place;
use target::OwnedTarget;

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

/// How a request is sent.
#[derive(Clone, Copy)]
pub(crate) struct Path<'a> {
    pub(crate) worker: &'a Rc<Worker>,
    pub(crate) direction: Direction,
    pub(crate) target: &'a Target<'a>,
    /// Where responses before the response go. `None`: nowhere.
    pub(crate) interim: Option<&'a Arc<Interim>>,
}

/// All upstream connections of a worker.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    places: RefCell<HashMap<Address, Vec<Rc<Place>>>>,
    /// Requests on connections that were open already, since the last sweep: by direction, HTTP/1.1 and HTTP/2.
    reused: [[Cell<u64>; 2]; Direction::ALL.len()],
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
            place.follow(target);
            return Rc::clone(place);
        }
        let place = Rc::new(Place {
            server_name: name.cloned(),
            origin: origin.cloned(),
            load: RefCell::new(target.load.map(Arc::downgrade)),
            pool: RefCell::new(Arc::clone(target.pool)),
            usage: RefCell::new(target.usage()),
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

    /// Closes the idle connection that is most likely of no use, to make room for one to the target: of those that lead there,
    /// or else of the service's others.
    fn close_one_idle(&self, target: &Target<'_>) {
        let places = self.places.borrow();
        let here = places.get(&target.address.to_address());
        if here.is_some_and(|here| here.iter().any(|place| place.close_one_idle())) {
            return;
        }
        // An endpoint's own limit is not kept by closing a connection to another one.
        let Some(limits) = target.limits.filter(|it| it.is_open(Counted::Connections)) else {
            return;
        };
        let mut others = places.values().flatten();
        others.any(|place| place.is_counted_with(&limits.usage) && place.close_one_idle());
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
