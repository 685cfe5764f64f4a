//! What is known of one name.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::time::Instant;

use crate::telemetry::metrics::DnsMetrics;

/// A name that a service's endpoints come from. Written by its task, read by everybody.
#[derive(Debug)]
pub struct Name {
    /// `<namespace>/<name>` of the service that it belongs to; `passthrough` for hosts that belong to none.
    pub service: Arc<str>,
    /// Lower case, without a port. May be an IP address, where a request named one.
    pub host: Arc<str>,
    pub(super) standing: ArcSwap<Standing>,
    pub(super) metrics: Arc<DnsMetrics>,
}

/// How a name stands now.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// Grows with each change of the addresses, and with the first outcome.
    pub generation: u64,
    /// Of the last good answer. Empty: there was none, or it is too old.
    pub addresses: Arc<[IpAddr]>,
    /// When the last good answer came. `None`: there was none.
    pub answered_at: Option<Instant>,
    /// What that answer's TTL was, within the bounds.
    pub ttl: Duration,
    /// Since when addresses of one family are kept from an earlier answer, because nothing could be found out of them.
    pub kept_since: Option<Instant>,
    /// Why the last lookup gave no answer, or not all of one. `None`: it gave one.
    pub trouble: Option<(Trouble, SystemTime)>,
}

/// Why there is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// NXDOMAIN, or a name without addresses.
    #[error("the name does not exist, or has no address")]
    NotFound,
    #[error("the lookup failed: {0}")]
    Failed(String),
    /// Nobody asked: only sidecars do.
    #[error("each sidecar looks it up for itself")]
    NotLookedUp,
}

/// How a lookup ended: the label `result` of `outrigger_dns_lookups_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Outcome {
    Ok,
    NotFound,
    Failed,
}

impl Outcome {
    /// In the order of the discriminants.
    pub const ALL: [Outcome; 3] = [Outcome::Ok, Outcome::NotFound, Outcome::Failed];

    pub const fn as_str(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::NotFound => "not-found",
            Outcome::Failed => "failed",
        }
    }
}

impl Trouble {
    pub(super) fn outcome(&self) -> Outcome {
        match self {
            Trouble::NotFound => Outcome::NotFound,
            Trouble::Failed(_) | Trouble::NotLookedUp => Outcome::Failed,
        }
    }
}

impl Name {
    pub(super) fn new(service: Arc<str>, host: Arc<str>, metrics: Arc<DnsMetrics>) -> Name {
        Name {
            service,
            host,
            standing: ArcSwap::default(),
            metrics,
        }
    }

    pub fn standing(&self) -> Arc<Standing> {
        self.standing.load_full()
    }

    /// Whether nothing is known yet.
    pub fn is_pending(&self) -> bool {
        self.standing.load().generation == 0
    }
}
