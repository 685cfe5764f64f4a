//! Which protocol a plaintext connection speaks, from its first bytes.

pub mod client_hello;
mod learnt;
pub mod sniff;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, timeout_at};

use crate::listener::Stream;
use crate::policy::Detection;
use crate::runtime::Worker;
use crate::telemetry::Direction;
use crate::telemetry::metrics::DetectionResult;

pub(crate) use learnt::Learnt;

/// HTTP/2's connection preface (RFC 9113, section 3.4).
pub(crate) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// First byte of a TLS record that opens a handshake (RFC 8446, section 5.1).
pub(crate) const TLS_HANDSHAKE: u8 = 0x16;

/// A connection that says nothing is closed after this time. Clients open connections ahead of need, so it is generous;
/// nginx's `client_header_timeout` has the same default.
pub(crate) const SILENCE: Duration = Duration::from_secs(60);

/// From the first byte to the decision. The preface is 24 bytes, sent in one piece by every client that has it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Read at once, so that a small request costs no further read. Never more than one of HTTP's own buffers.
const FIRST_READ: usize = 4096;

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detected {
    Http1,
    /// With prior knowledge.
    Http2,
    /// It was closed before it said anything, or said nothing for [`SILENCE`].
    Silent,
    /// It began to say something and stopped.
    Stalled,
}

/// Reads until it is clear what the connection speaks. The bytes read stay in front of the stream.
pub(crate) async fn detect(stream: &mut Stream) -> Detected {
    let mut read = BytesMut::new();
    let mut deadline = Instant::now() + SILENCE;
    let detected = loop {
        if read.capacity() == read.len() {
            read.reserve(FIRST_READ);
        }
        match timeout_at(deadline, stream.read_buf(&mut read)).await {
            Err(_) if read.is_empty() => return Detected::Silent,
            Err(_) => return Detected::Stalled,
            Ok(Err(_)) => return Detected::Silent,
            Ok(Ok(0)) if read.is_empty() => return Detected::Silent,
            // HTTP/1 says what is wrong with it.
            Ok(Ok(0)) => break Detected::Http1,
            Ok(Ok(_)) => {}
        }
        match looks_like(&read) {
            Some(detected) => break detected,
            None => deadline = deadline.min(Instant::now() + PATIENCE),
        }
    };
    stream.unread(read.freeze());
    detected
}

/// `None`: so far it could be both.
fn looks_like(bytes: &[u8]) -> Option<Detected> {
    let length = bytes.len().min(PREFACE.len());
    if bytes[..length] != PREFACE[..length] {
        Some(Detected::Http1)
    } else if length == PREFACE.len() {
        Some(Detected::Http2)
    } else {
        None
    }
}

/// Finds out what a connection to a port with `auto` speaks, and counts it: within the port's time, and without waiting where
/// the server is known to speak first. The bytes read stay in front of the stream.
pub(crate) async fn of_port(
    worker: &Worker,
    stream: &mut Stream,
    direction: Direction,
    service: &Arc<str>,
    (port, detection): (u16, Detection),
) -> DetectionResult {
    let result = if detection.server_first {
        DetectionResult::ServerFirst
    } else if worker.learnt.is_server_first(service, port) {
        DetectionResult::Learnt
    } else {
        first_words(stream, detection.timeout).await
    };
    worker.shared.metrics.protocols.detected(direction, result);
    result
}

async fn first_words(stream: &mut Stream, patience: Duration) -> DetectionResult {
    let mut read = BytesMut::new();
    let deadline = Instant::now() + patience;
    let result = loop {
        if read.capacity() == read.len() {
            read.reserve(FIRST_READ);
        }
        match timeout_at(deadline, stream.read_buf(&mut read)).await {
            Err(_) => break DetectionResult::Timeout,
            // Whoever closes its side may still want to listen: bytes are passed on as they are.
            Ok(Err(_) | Ok(0)) => break DetectionResult::Closed,
            Ok(Ok(_)) => {}
        }
        match sniff::classify(&read) {
            Some(sniff::Kind::Http1) => break DetectionResult::Http1,
            Some(sniff::Kind::Http2) => break DetectionResult::Http2,
            Some(sniff::Kind::Tls) => break DetectionResult::Tls,
            Some(sniff::Kind::Opaque) => break DetectionResult::Opaque,
            None => {}
        }
    };
    stream.unread(read.freeze());
    result
}

/// How a connection begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FirstByte {
    Is(u8),
    Closed,
    /// There was none in time.
    Silence,
}

/// The first byte, left unread.
pub(crate) async fn first_byte(
    stream: &tokio::net::TcpStream,
    patience: Duration,
) -> io::Result<FirstByte> {
    let mut byte = [0];
    match tokio::time::timeout(patience, stream.peek(&mut byte)).await {
        Ok(Ok(0)) => Ok(FirstByte::Closed),
        Ok(Ok(_)) => Ok(FirstByte::Is(byte[0])),
        Ok(Err(error)) => Err(error),
        Err(_) => Ok(FirstByte::Silence),
    }
}

/// An answer for a client that stalled before HTTP could begin.
pub(crate) const STALLED: Bytes = Bytes::from_static(
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\nx-outrigger-reason: head-timeout\r\n\r\n",
);

#[cfg(test)]
mod tests;
