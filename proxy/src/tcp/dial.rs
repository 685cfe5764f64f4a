//! Connects to an endpoint of a backend, for bytes.

use std::rc::Rc;
use std::sync::Arc;

use crate::balance::{Endpoint, InFlight};
use crate::error::Reason;
use crate::listener::Stream;
use crate::outbound::verdict;
use crate::policy::Backend;
use crate::pool::{self, Alpn, Target};
use crate::runtime::Worker;
use crate::telemetry::Direction;
use crate::telemetry::metrics::{OpenConnection, RetryCause, RetryRefusal, Side, Wire};

/// Endpoints that are tried for a connection.
const TRIES: usize = 4;

/// A connection to an endpoint.
pub(crate) struct Dialed {
    pub(crate) stream: Stream,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) in_flight: InFlight,
    pub(crate) _open: OpenConnection,
}

/// Connects to one of the backend's endpoints: a failed connect is always safe to repeat elsewhere.
pub(crate) async fn dial(worker: &Rc<Worker>, backend: &Backend) -> Result<Dialed, Reason> {
    let mut tried: Vec<Arc<Endpoint>> = Vec::new();
    loop {
        let picked = backend
            .endpoints
            .pick(&mut *worker.rng.borrow_mut(), &tried);
        let Some(endpoint) = picked else {
            return Err(if backend.endpoints.is_full() {
                Reason::CircuitOpen
            } else {
                let reason = backend.upstream.why_none();
                reason.unwrap_or(Reason::NoEndpoints)
            });
        };
        if worker.is_own_outbound(endpoint.address) {
            return Err(Reason::LoopDetected);
        }
        let Some(mut in_flight) = endpoint.try_begin() else {
            continue;
        };
        let target = Target::endpoint(&endpoint, backend);
        let failure = match Box::pin(pool::connect(worker, target, Alpn::Tcp)).await {
            Ok(connected) => {
                in_flight.succeeded();
                let metrics = &worker.shared.metrics;
                return Ok(Dialed {
                    stream: connected.stream,
                    _open: metrics.connection(Direction::Outbound, Side::Upstream, Wire::Tcp),
                    endpoint,
                    in_flight,
                });
            }
            Err(failure) => failure,
        };
        if failure.reason != Reason::CircuitOpen {
            in_flight.failed();
            verdict::failure(&failure, &mut in_flight);
        }
        tried.push(endpoint);
        let others = backend
            .endpoints
            .endpoints()
            .iter()
            .any(|endpoint| !tried.iter().any(|other| other.is_same(endpoint)));
        if !others || failure.reason == Reason::NotReady {
            return Err(failure.reason);
        }
        if tried.len() >= TRIES {
            backend.metrics.retries.refused(RetryRefusal::Attempts);
            return Err(failure.reason);
        }
        backend.metrics.retries.made(match failure.reason {
            Reason::UpstreamUntrusted => RetryCause::Untrusted,
            _ => RetryCause::Connect,
        });
    }
}
