//! Pools of upstream connections, detection of protocols, TLS that is passed on, and PROXY protocol headers: counted for the
//! whole sidecar.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::connection::{OpenConnection, Side, Wire};
use crate::telemetry::Direction;

/// An enum whose variants are values of a label.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            pub const ALL: &[$name] = &[$($name::$variant),*];

            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word,)* }
            }
        }
    };
}

words! {
    /// Why an upstream connection ended.
    CloseCause {
        /// The peer closed it, it broke, or a response on it was given up.
        Peer = "peer",
        /// The peer takes no new streams on it.
        GoAway = "goaway",
        /// Nothing was asked on it for a while.
        Idle = "idle",
        Age = "age",
        /// It has carried as many requests as it may.
        Requests = "requests",
        /// The peer gave no sign of life.
        KeepAlive = "keep-alive",
        /// Our certificate was replaced, or the peer may no longer serve the service.
        Identity = "identity",
        /// The endpoint is gone.
        Endpoint = "endpoint",
    }
}

words! {
    /// What a connection to a port with `auto` turned out to speak.
    DetectionResult {
        Http1 = "http1",
        Http2 = "http2",
        Tls = "tls",
        Opaque = "opaque",
        /// Nothing that tells came in time: bytes.
        Timeout = "timeout",
        /// Declared: nothing was waited for.
        ServerFirst = "server-first",
        /// Learnt from connections before: nothing was waited for.
        Learnt = "learnt",
        /// The client closed it before it was clear.
        Closed = "closed",
    }
}

words! {
    /// What became of a connection to a listener that passes TLS on.
    TlsPassthrough {
        Routed = "routed",
        /// It does not begin with a ClientHello.
        NotTls = "not-tls",
        /// The ClientHello names no server.
        NoName = "no-name",
        TooLarge = "too-large",
        Timeout = "timeout",
        Closed = "closed",
        /// No service has this host, or none of its ports takes TLS.
        NoRoute = "no-route",
        /// No connection to an endpoint.
        Unreachable = "unreachable",
    }
}

words! {
    /// Why a connection to a listener that wants a PROXY protocol header was refused.
    ProxyHeaderRefusal {
        Missing = "missing",
        Malformed = "malformed",
        TooLarge = "too-large",
        Timeout = "timeout",
        Closed = "closed",
    }
}

const DIRECTIONS: usize = Direction::ALL.len();
const WIRES: usize = Wire::ALL.len();

/// The figures.
#[derive(Debug, Default)]
pub struct ProtocolMetrics {
    reused: [[AtomicU64; WIRES]; DIRECTIONS],
    closed: [[[AtomicU64; CloseCause::ALL.len()]; WIRES]; DIRECTIONS],
    waiting: [AtomicU64; DIRECTIONS],
    detections: [[AtomicU64; DetectionResult::ALL.len()]; DIRECTIONS],
    passthrough: [AtomicU64; TlsPassthrough::ALL.len()],
    proxy_headers: [[AtomicU64; ProxyHeaderRefusal::ALL.len()]; DIRECTIONS],
}

impl ProtocolMetrics {
    /// Requests were sent on connections that had been used before.
    pub(crate) fn reused(&self, direction: Direction, wire: Wire, count: u64) {
        self.reused[direction as usize][wire as usize].fetch_add(count, Relaxed);
    }

    pub(crate) fn closed(&self, direction: Direction, wire: Wire, cause: CloseCause) {
        self.closed[direction as usize][wire as usize][cause as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn detected(&self, direction: Direction, result: DetectionResult) {
        self.detections[direction as usize][result as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn tls_passthrough(&self, result: TlsPassthrough) {
        self.passthrough[result as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn proxy_header_refused(&self, direction: Direction, why: ProxyHeaderRefusal) {
        self.proxy_headers[direction as usize][why as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn each_reused(&self, mut each: impl FnMut([&'static str; 2], u64)) {
        for direction in Direction::ALL {
            for wire in [Wire::Http1, Wire::Http2] {
                let count = self.reused[direction as usize][wire as usize].load(Relaxed);
                each([direction.as_str(), wire.as_str()], count);
            }
        }
    }

    /// Only what was counted.
    pub(super) fn each_closed(&self, mut each: impl FnMut([&'static str; 3], u64)) {
        for direction in Direction::ALL {
            for wire in Wire::ALL {
                for cause in CloseCause::ALL {
                    let counts = &self.closed[direction as usize][wire as usize];
                    let count = counts[*cause as usize].load(Relaxed);
                    if count > 0 {
                        each([direction.as_str(), wire.as_str(), cause.as_str()], count);
                    }
                }
            }
        }
    }

    pub(super) fn waiting(&self, direction: Direction) -> u64 {
        self.waiting[direction as usize].load(Relaxed)
    }

    pub(super) fn each_detection(&self, mut each: impl FnMut([&'static str; 2], u64)) {
        for direction in Direction::ALL {
            for result in DetectionResult::ALL {
                let count = self.detections[direction as usize][*result as usize].load(Relaxed);
                each([direction.as_str(), result.as_str()], count);
            }
        }
    }

    pub(super) fn each_passthrough(&self, mut each: impl FnMut([&'static str; 1], u64)) {
        for result in TlsPassthrough::ALL {
            let count = self.passthrough[*result as usize].load(Relaxed);
            each([result.as_str()], count);
        }
    }

    pub(super) fn each_proxy_refusal(&self, mut each: impl FnMut([&'static str; 2], u64)) {
        for direction in Direction::ALL {
            for why in ProxyHeaderRefusal::ALL {
                let count = self.proxy_headers[direction as usize][*why as usize].load(Relaxed);
                each([direction.as_str(), why.as_str()], count);
            }
        }
    }
}

/// An upstream connection of a pool; counted as closed, and why, when dropped.
#[derive(Debug)]
pub(crate) struct PooledConnection {
    _open: OpenConnection,
    metrics: Arc<super::Metrics>,
    direction: Direction,
    wire: Wire,
    cause: Cell<CloseCause>,
}

impl PooledConnection {
    pub(crate) fn open(
        metrics: &Arc<super::Metrics>,
        direction: Direction,
        wire: Wire,
    ) -> PooledConnection {
        PooledConnection {
            _open: metrics.connection(direction, Side::Upstream, wire),
            metrics: Arc::clone(metrics),
            direction,
            wire,
            cause: Cell::new(CloseCause::Peer),
        }
    }

    /// Why it is going to be closed.
    pub(crate) fn ends(&self, cause: CloseCause) {
        self.cause.set(cause);
    }
}

impl Drop for PooledConnection {
    fn drop(&mut self) {
        let protocols = &self.metrics.protocols;
        protocols.closed(self.direction, self.wire, self.cause.get());
    }
}

/// A request that waits for an upstream connection, or for room on one; no more when dropped.
#[derive(Debug)]
pub(crate) struct Waiting {
    metrics: Arc<super::Metrics>,
    direction: Direction,
}

impl Waiting {
    pub(crate) fn begin(metrics: &Arc<super::Metrics>, direction: Direction) -> Waiting {
        metrics.protocols.waiting[direction as usize].fetch_add(1, Relaxed);
        Waiting {
            metrics: Arc::clone(metrics),
            direction,
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.metrics.protocols.waiting[self.direction as usize].fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::{CloseCause, DetectionResult, ProxyHeaderRefusal, TlsPassthrough};

    #[test]
    fn words_are_in_the_order_of_their_places() {
        for (index, cause) in CloseCause::ALL.iter().enumerate() {
            assert_eq!(*cause as usize, index);
        }
        for (index, result) in DetectionResult::ALL.iter().enumerate() {
            assert_eq!(*result as usize, index);
        }
        for (index, result) in TlsPassthrough::ALL.iter().enumerate() {
            assert_eq!(*result as usize, index);
        }
        for (index, why) in ProxyHeaderRefusal::ALL.iter().enumerate() {
            assert_eq!(*why as usize, index);
        }
    }
}
