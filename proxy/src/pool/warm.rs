//! Connections that are open before they are needed.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Place, Target, http1, http2};
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
    let protocol = backend.protocol;
    for endpoint in backend.endpoints.endpoints() {
        if worker.is_own_outbound(endpoint.address) {
            continue;
        }
        let target = Target::endpoint(endpoint, backend);
        let place = worker.pool.place(&target);
        if endpoint.mtls || matches!(protocol, Protocol::Http2 | Protocol::Grpc) {
            let wanted = place.http2.borrow().wants_warming(target.pool);
            let failures = place.http2.borrow().failures();
            if wanted && place.may_warm(&target, failures) {
                http2::warm(worker, &target, &place);
            }
        } else if protocol == Protocol::Http {
            // Of other protocols it is not known what the server speaks.
            let wanted = place.http1.borrow().wants_warming(target.pool);
            let failures = place.http1.borrow().failures();
            if wanted && place.may_warm(&target, failures) {
                http1::warm(worker, &target, &place);
            }
        }
    }
}

impl Place {
    /// Not where limits leave no place, and not so soon after attempts that failed: 1 s, 2 s, 4 s and so on.
    fn may_warm(&self, target: &Target<'_>, failures: u32) -> bool {
        let now = Instant::now();
        if target.has_no_room() || self.warm_after.get().is_some_and(|after| now < after) {
            return false;
        }
        let pause = Duration::from_secs(1 << failures.min(6)).min(LONGEST_PAUSE);
        self.warm_after.set(Some(now + pause));
        true
    }
}
