//! What all threads of the sidecar share. Workers only read it; each field is an atomic, an `ArcSwap` or a channel.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};

use crate::control::lookup::Lookups;
use crate::drain::Drain;
use crate::policy::Snapshot;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::Traces;
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
    pub traces: Traces,
    pub drain: Drain,
    /// What the control side has reached so far.
    pub status: Status,
}

impl Shared {
    /// Whether traffic may be sent here: identity and first configuration are there, and no drain has begun.
    /// `Err` says what is missing, in a few words.
    pub fn ready(&self) -> Result<(), &'static str> {
        if self.drain.is_draining() {
            return Err("draining");
        }
        if self.tls.load().is_none() {
            return Err("no identity yet");
        }
        if !self.status.has_config() {
            return Err("no configuration yet");
        }
        Ok(())
    }
}

/// Set by the control side, read by the admin and metrics ports.
#[derive(Debug, Default)]
pub struct Status {
    config: AtomicBool,
}

impl Status {
    /// Whether a first configuration is there, from the control plane or from disk.
    pub fn has_config(&self) -> bool {
        self.config.load(Ordering::Acquire)
    }

    pub(crate) fn set_config(&self) {
        self.config.store(true, Ordering::Release);
    }
}
