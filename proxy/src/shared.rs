//! What all threads of the sidecar share. Workers only read it; each field is an atomic, an `ArcSwap` or a channel.

use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};

use crate::control::lookup::Lookups;
use crate::drain::Drain;
use crate::policy::Snapshot;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::Metrics;
use crate::tls::TlsState;

#[derive(Debug)]
pub struct Shared {
    /// The configuration in effect. Load it once for each request.
    pub snapshot: ArcSwap<Snapshot>,
    /// TLS configurations made from the identity in use; `None` until the first certificate is there.
    pub tls: ArcSwapOption<TlsState>,
    /// Asks the control plane for hosts and services met for the first time.
    pub lookups: Lookups,
    pub metrics: Arc<Metrics>,
    pub access_log: AccessLog,
    pub drain: Drain,
}
