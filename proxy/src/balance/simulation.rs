//! The choice and the counting of requests in a time that the caller makes: for the simulator, `tests/sim`. Everything that decides is the
//! code of the data path.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use rand::Rng;

use super::{Asked, Endpoint, EndpointSet, InFlight, Load, LoadReport, Picked};

/// An endpoint that is there from the start.
pub fn endpoint(address: SocketAddr) -> Arc<Endpoint> {
    Arc::new(Endpoint {
        address,
        mtls: true,
        identity: None,
        ports: Box::default(),
        labels: BTreeMap::new(),
        weight: 1,
        zone: "".into(),
        instance: "".into(),
        outside: None,
        load: Arc::new(Load::new(0)),
        health: Arc::default(),
    })
}

/// As [`EndpointSet::pick_for`]. `now`: nanoseconds, above 0.
pub fn pick(set: &EndpointSet, now: u64, asked: &Asked<'_>, rng: &mut impl Rng) -> Option<Picked> {
    set.pick_for_at(now, asked, rng, &[])
}

/// As [`Endpoint::begin`], with the prompt counted.
pub fn begin(endpoint: &Endpoint, now: u64, uncached: u32) -> InFlight {
    endpoint.load.begin(now);
    let mut in_flight = endpoint.begun(now);
    in_flight.prompt(uncached);
    in_flight
}

/// The first byte of the answer, which is its first token.
pub fn first_token(in_flight: &mut InFlight, now: u64) {
    in_flight.first_byte_at(now);
    in_flight.first_token_at(now);
}

/// As [`Load::report`].
pub fn report(endpoint: &Endpoint, now: u64, report: &LoadReport) {
    endpoint.load.work().report(now, report);
}
