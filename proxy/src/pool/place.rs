//! The connections to one address.

use std::cell::{Cell, RefCell};
use std::sync::{Arc, Weak};

use rustls_pki_types::ServerName;
use tokio::time::Instant;

use super::{HTTP2_IDLE, Target, http1, http2};
use crate::admission::Usage;
use crate::balance::Load;
use crate::policy::ConnectionPool;
use crate::telemetry::metrics::CloseCause;
use crate::tls::OriginTls;

/// Connections to one address, for one name.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) server_name: Option<ServerName<'static>>,
    /// What a server outside the mesh was verified with. `None`: it is within, or plaintext.
    pub(super) origin: Option<Arc<OriginTls>>,
    /// Gone when neither the configuration nor a request names the endpoint any more. `None`: the application.
    pub(super) load: RefCell<Option<Weak<Load>>>,
    /// As the last request's configuration has it.
    pub(super) pool: RefCell<Arc<ConnectionPool>>,
    /// What its connections are counted with, where there are limits.
    pub(super) usage: RefCell<Option<Weak<Usage>>>,
    /// When a connection may be opened ahead of need.
    pub(super) warm_after: Cell<Option<Instant>>,
    pub(super) http1: RefCell<http1::Idle>,
    pub(super) http2: RefCell<http2::Shared>,
    pub(super) used_at: Cell<Instant>,
    /// No longer in the pool: what comes back is closed.
    pub(super) closed: Cell<bool>,
}

impl Place {
    /// Whether its connections were verified with these settings: what was made with others is not for this target.
    pub(super) fn is_from(&self, origin: Option<&Arc<OriginTls>>) -> bool {
        match (&self.origin, origin) {
            (None, None) => true,
            (Some(own), Some(other)) => Arc::ptr_eq(own, other),
            _ => false,
        }
    }

    /// Whether its endpoint is gone.
    pub(super) fn is_orphan(&self) -> bool {
        let load = self.load.borrow();
        load.as_ref().is_some_and(|load| load.strong_count() == 0)
    }

    /// Whether it stays in the pool.
    pub(super) fn sweep(&self, now: Instant) -> bool {
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
            // Or the pauses between attempts would begin with the shortest again.
            || self.warm_after.get().is_some_and(|after| now < after)
    }

    pub(super) fn close(&self, cause: CloseCause) {
        self.closed.set(true);
        self.http1.borrow_mut().clear(cause);
        self.http2.borrow_mut().close(cause);
    }

    /// Goes by this target's configuration from now on.
    pub(super) fn follow(&self, target: &Target<'_>) {
        let mut own = self.pool.borrow_mut();
        if !Arc::ptr_eq(&own, target.pool) {
            *own = Arc::clone(target.pool);
        }
        let is_same = match target.limits {
            Some(limits) => self.is_counted_with(&limits.usage),
            None => self.usage.borrow().is_none(),
        };
        if !is_same {
            *self.usage.borrow_mut() = target.usage();
        }
    }

    /// Closes the connection that was idle for the longest time. `false`: there is none.
    pub(super) fn close_one_idle(&self) -> bool {
        self.http1.borrow_mut().close_oldest()
    }

    /// Whether its connections are counted with these.
    pub(super) fn is_counted_with(&self, usage: &Arc<Usage>) -> bool {
        let own = self.usage.borrow();
        own.as_ref()
            .is_some_and(|own| own.as_ptr() == Arc::as_ptr(usage))
    }
}
