//! The application that this sidecar stands in front of.

use std::time::Duration;

use crate::error::Reason;
use crate::listener::Stream;
use crate::policy::InboundPort;
use crate::pool::{self, Alpn, Target};
use crate::runtime::Worker;

/// For a connection to the application. It is on the same host: what takes longer is a full backlog, and the request is
/// better off elsewhere.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) fn target(port: &InboundPort) -> Target<'_> {
    Target::application(port, CONNECT_TIMEOUT)
}

/// A connection for bytes.
pub(super) async fn connect(worker: &Worker, port: &InboundPort) -> Result<Stream, Reason> {
    if is_own(worker, port) {
        return Err(Reason::LoopDetected);
    }
    let connecting = pool::connect(worker, target(port), Alpn::Tcp);
    match connecting.await {
        Ok(connected) => Ok(connected.stream),
        Err(failure) => Err(failure.reason),
    }
}

/// Whether the application's address is one of our own listeners: every request would come back for ever.
pub(super) fn is_own(worker: &Worker, port: &InboundPort) -> bool {
    let address = port.application.ip();
    address.is_some_and(|own| worker.is_own_outbound(own) || worker.is_own_inbound(own))
}
