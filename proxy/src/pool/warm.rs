//! Connections that are open before they are needed.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Place, Target, http2};
use crate::policy::{Backend, Protocol};
use crate::runtime::Worker;

/// Longest pause before an endpoint that could not be reached is tried again.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Opens what the configuration wants open, one connection for each endpoint at a time. Called once a second.
pub(crate) fn warm(worker: &Rc<Worker>) {
    let snapshot = worker.shared.snapshot.load();
    for service in snapshot.services.values() {
        let backends = service.rules.iter().flat_map(|rule| &rule.backends);
        for backend in backends.filter(|backend| backend.upstream.pool.pre_warm > 0) {
            warm_backend(worker, backend);
        }
    }
}

fn warm_backend(worker: &Rc<Worker>, backend: &Backend) {
    if !backend.protocol.has_requests() {
        return;
    }
    let plaintext_too = matches!(backend.protocol, Protocol::Http2 | Protocol::Grpc);
    for endpoint in backend.endpoints.endpoints() {
        if !(endpoint.mtls || plaintext_too) || worker.is_own_outbound(endpoint.address) {
            continue;
        }
        let target = Target::endpoint(endpoint, backend);
        let place = worker.pool.place(&target);
        if place.http2.borrow().wants_warming(target.pool) && place.may_warm() {
            http2::warm(worker, &target, &place);
        }
    }
}

impl Place {
    /// Not so soon after attempts that failed: 1 s, 2 s, 4 s and so on.
    fn may_warm(&self) -> bool {
        let now = Instant::now();
        if self.warm_after.get().is_some_and(|after| now < after) {
            return false;
        }
        let failures = self.http2.borrow().failures().min(6);
        let pause = Duration::from_secs(1 << failures).min(LONGEST_PAUSE);
        self.warm_after.set(Some(now + pause));
        true
    }
}
