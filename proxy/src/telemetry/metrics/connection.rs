//! Connections and TLS handshakes.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::telemetry::Direction;
use crate::tls::HandshakeFailure;

/// Which end of the proxy a connection is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Side {
    /// Accepted.
    Downstream,
    /// Opened by the proxy.
    Upstream,
}

impl Side {
    pub const ALL: [Side; 2] = [Side::Downstream, Side::Upstream];

    pub const fn as_str(self) -> &'static str {
        match self {
            Side::Downstream => "downstream",
            Side::Upstream => "upstream",
        }
    }
}

/// What a connection carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Wire {
    Http1,
    Http2,
    Tcp,
}

impl Wire {
    pub const ALL: [Wire; 3] = [Wire::Http1, Wire::Http2, Wire::Tcp];

    pub const fn as_str(self) -> &'static str {
        match self {
            Wire::Http1 => "http/1.1",
            Wire::Http2 => "h2",
            Wire::Tcp => "tcp",
        }
    }
}

/// By direction, side and protocol.
#[derive(Debug, Default)]
pub(super) struct Connections {
    opened: [[[AtomicU64; Wire::ALL.len()]; Side::ALL.len()]; Direction::ALL.len()],
    closed: [[AtomicU64; Side::ALL.len()]; Direction::ALL.len()],
}

impl Connections {
    /// Since the start.
    pub(super) fn opened(&self, direction: Direction, side: Side, wire: Wire) -> u64 {
        self.opened[direction as usize][side as usize][wire as usize].load(Relaxed)
    }

    pub(super) fn open(&self, direction: Direction, side: Side) -> u64 {
        // The closed ones first: one that closes in between is then still open.
        let closed = self.closed[direction as usize][side as usize].load(Relaxed);
        let opened: u64 = Wire::ALL
            .iter()
            .map(|wire| self.opened(direction, side, *wire))
            .sum();
        opened.saturating_sub(closed)
    }
}

/// An open connection; closed when dropped.
#[derive(Debug)]
#[must_use = "the connection counts as closed when this is dropped"]
pub struct OpenConnection {
    connections: Arc<Connections>,
    direction: Direction,
    side: Side,
}

impl OpenConnection {
    pub(super) fn new(
        connections: &Arc<Connections>,
        direction: Direction,
        side: Side,
        wire: Wire,
    ) -> OpenConnection {
        connections.opened[direction as usize][side as usize][wire as usize].fetch_add(1, Relaxed);
        OpenConnection {
            connections: connections.clone(),
            direction,
            side,
        }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.connections.closed[self.direction as usize][self.side as usize].fetch_add(1, Relaxed);
    }
}

/// By direction and result; the first result is success.
#[derive(Debug, Default)]
pub(super) struct Handshakes {
    counts: [[AtomicU64; 1 + HandshakeFailure::ALL.len()]; Direction::ALL.len()],
}

impl Handshakes {
    pub(super) fn count(&self, direction: Direction, result: Result<(), HandshakeFailure>) {
        let index = match result {
            Ok(()) => 0,
            Err(failure) => {
                1 + HandshakeFailure::ALL
                    .iter()
                    .position(|each| *each == failure)
                    .unwrap_or(0)
            }
        };
        self.counts[direction as usize][index].fetch_add(1, Relaxed);
    }

    /// All results, with their counts.
    pub(super) fn read(&self, direction: Direction) -> impl Iterator<Item = (&'static str, u64)> {
        ["ok"]
            .into_iter()
            .chain(HandshakeFailure::ALL.iter().map(|failure| failure.as_str()))
            .zip(
                self.counts[direction as usize]
                    .iter()
                    .map(|count| count.load(Relaxed)),
            )
    }
}
