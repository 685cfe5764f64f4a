//! PROXY protocol, versions 1 and 2: the address that a connection had before a load balancer took it
//! (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>).
//!
//! Where it is asked for, every connection must begin with a header: without one it could not be told whether the first
//! bytes are the client's. The address is logged; nothing is allowed or refused by it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::runtime::Worker;
use crate::telemetry::Direction;
use crate::telemetry::metrics::ProxyHeaderRefusal;

/// First twelve bytes of version 2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Longest line of version 1, with its end (the document's own bound).
const MAX_LINE: usize = 107;

/// Longest header. Version 2 could have 64 KiB of extensions; cloud load balancers send some tens of bytes.
pub const MAX_HEADER: usize = 1024;

/// A load balancer sends the header with the connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// Which version is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    V1,
    V2,
}

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// All of them belong to a header, and there is more of it to come.
    Incomplete,
    Header {
        /// `None`: the load balancer speaks for itself (a health check), or of a kind of address that is none of TCP's.
        source: Option<SocketAddr>,
        /// Bytes of the header.
        length: usize,
    },
    Refused(ProxyHeaderRefusal),
}

/// Reads a header. Never [`Parsed::Incomplete`] for [`MAX_HEADER`] bytes or more.
pub fn parse(bytes: &[u8]) -> Parsed {
    let starts = |with: &[u8]| {
        let length = bytes.len().min(with.len());
        bytes[..length] == with[..length]
    };
    if starts(SIGNATURE) {
        version2(bytes)
    } else if starts(b"PROXY ") {
        version1(bytes)
    } else {
        Parsed::Refused(ProxyHeaderRefusal::Missing)
    }
}

const MALFORMED: Parsed = Parsed::Refused(ProxyHeaderRefusal::Malformed);

fn version1(bytes: &[u8]) -> Parsed {
    let line = &bytes[..bytes.len().min(MAX_LINE)];
    let Some(end) = line.iter().position(|byte| *byte == b'\n') else {
        return match line.len() {
            MAX_LINE => Parsed::Refused(ProxyHeaderRefusal::TooLarge),
            _ => Parsed::Incomplete,
        };
    };
    let length = end + 1;
    let Some(text) = line[..end]
        .strip_suffix(b"\r")
        .and_then(|line| std::str::from_utf8(line).ok())
    else {
        return MALFORMED;
    };
    let mut words = text.split(' ').skip(1);
    let source = match words.next() {
        // What follows is to be ignored.
        Some("UNKNOWN") => {
            return Parsed::Header {
                source: None,
                length,
            };
        }
        Some("TCP4") => addresses::<Ipv4Addr>(words),
        Some("TCP6") => addresses::<Ipv6Addr>(words),
        _ => None,
    };
    match source {
        Some(source) => Parsed::Header {
            source: Some(source),
            length,
        },
        None => MALFORMED,
    }
}

/// Source and destination address, source and destination port, and nothing else.
fn addresses<'a, A>(mut words: impl Iterator<Item = &'a str>) -> Option<SocketAddr>
where
    A: std::str::FromStr + Into<IpAddr>,
{
    let source: A = words.next()?.parse().ok()?;
    let _destination: A = words.next()?.parse().ok()?;
    let port = decimal(words.next()?)?;
    let _destination_port = decimal(words.next()?)?;
    match words.next() {
        None => Some(SocketAddr::new(source.into(), port)),
        Some(_) => None,
    }
}

fn decimal(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then(|| text.parse().ok()).flatten()
}

fn version2(bytes: &[u8]) -> Parsed {
    let Some((head, rest)) = bytes.split_at_checked(16) else {
        return Parsed::Incomplete;
    };
    let body = usize::from(u16::from_be_bytes([head[14], head[15]]));
    let length = 16 + body;
    // The high half is the version.
    let is_local = match head[12] {
        0x20 => true,
        0x21 => false,
        _ => return MALFORMED,
    };
    if length > MAX_HEADER {
        return Parsed::Refused(ProxyHeaderRefusal::TooLarge);
    }
    let Some(body) = rest.get(..body) else {
        return Parsed::Incomplete;
    };
    // Address family and transport; what follows the addresses are extensions.
    let source = match (head[13], body) {
        _ if is_local => None,
        (0x11, [a, b, c, d, _, _, _, _, high, low, _, _, ..]) => Some(SocketAddr::from((
            [*a, *b, *c, *d],
            u16::from_be_bytes([*high, *low]),
        ))),
        (0x21, _) if body.len() >= 36 => {
            let mut ip = [0; 16];
            ip.copy_from_slice(&body[..16]);
            let port = u16::from_be_bytes([body[32], body[33]]);
            Some(SocketAddr::from((ip, port)))
        }
        (0x11 | 0x21, _) => return MALFORMED,
        // Unspecified, UDP, Unix sockets: to be accepted, and nothing is learnt of them.
        (0x00 | 0x12 | 0x22 | 0x31 | 0x32, _) => None,
        _ => return MALFORMED,
    };
    Parsed::Header { source, length }
}

/// Takes the header off a connection, and nothing behind it.
///
/// # Errors
/// Why the connection is to be refused.
pub(crate) async fn take(stream: &mut TcpStream) -> Result<Option<SocketAddr>, ProxyHeaderRefusal> {
    let taking = tokio::time::timeout(PATIENCE, take_in_time(stream));
    taking.await.unwrap_or(Err(ProxyHeaderRefusal::Timeout))
}

async fn take_in_time(stream: &mut TcpStream) -> Result<Option<SocketAddr>, ProxyHeaderRefusal> {
    const CLOSED: ProxyHeaderRefusal = ProxyHeaderRefusal::Closed;
    let mut header = [0; MAX_HEADER];
    let mut taken = 0;
    loop {
        // Only looked at: what stands behind the header is somebody else's.
        let peeked = stream.peek(&mut header[taken..]).await;
        let seen = match peeked {
            Ok(0) | Err(_) => return Err(CLOSED),
            Ok(count) => taken + count,
        };
        let (end, done) = match parse(&header[..seen]) {
            Parsed::Header { source, length } => (length, Some(source)),
            Parsed::Incomplete => (seen, None),
            Parsed::Refused(why) => return Err(why),
        };
        let read = stream.read_exact(&mut header[taken..end]).await;
        read.map_err(|_| CLOSED)?;
        taken = end;
        if let Some(source) = done {
            return Ok(source);
        }
    }
}

/// Where the client of a connection is that must begin with a header; `None`: it does not, which is counted.
pub(crate) async fn client(
    worker: &Worker,
    stream: &mut TcpStream,
    address: SocketAddr,
    direction: Direction,
) -> Option<SocketAddr> {
    match take(stream).await {
        Ok(source) => Some(source.unwrap_or(address)),
        Err(why) => {
            let metrics = &worker.shared.metrics.protocols;
            metrics.proxy_header_refused(direction, why);
            tracing::debug!(%address, why = why.as_str(), "no valid PROXY protocol header");
            None
        }
    }
}

/// A header for the application. Addresses of different families, or none: one that says nothing of them.
pub fn encode(
    version: Version,
    source: Option<SocketAddr>,
    destination: Option<SocketAddr>,
) -> Vec<u8> {
    let pair = match (source.map(canonical), destination.map(canonical)) {
        (Some(SocketAddr::V4(source)), Some(SocketAddr::V4(destination))) => {
            Some((source.into(), destination.into()))
        }
        (Some(SocketAddr::V6(source)), Some(SocketAddr::V6(destination))) => {
            Some((SocketAddr::V6(source), SocketAddr::V6(destination)))
        }
        _ => None,
    };
    match version {
        Version::V1 => match pair {
            None => b"PROXY UNKNOWN\r\n".to_vec(),
            Some((source, destination)) => {
                let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
                format!(
                    "PROXY {family} {} {} {} {}\r\n",
                    source.ip(),
                    destination.ip(),
                    source.port(),
                    destination.port()
                )
                .into_bytes()
            }
        },
        Version::V2 => {
            let mut header = SIGNATURE.to_vec();
            let Some((source, destination)) = pair else {
                header.extend([0x21, 0x00, 0, 0]);
                return header;
            };
            let (family, length) = if source.is_ipv4() {
                (0x11, 12)
            } else {
                (0x21, 36)
            };
            header.extend([0x21, family, 0, length]);
            for address in [source, destination] {
                match address.ip() {
                    IpAddr::V4(ip) => header.extend(ip.octets()),
                    IpAddr::V6(ip) => header.extend(ip.octets()),
                }
            }
            header.extend(source.port().to_be_bytes());
            header.extend(destination.port().to_be_bytes());
            header
        }
    }
}

/// IPv4 as itself where it came over a socket for both.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests;
