//! Listening sockets.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use crate::runtime::{Bindings, Bound, ProxyProtocol, TcpBinding};

/// Connections that the kernel may hold for us between two turns of a worker. The kernel lowers it to `somaxconn`.
const BACKLOG: i32 = 4096;

/// The listening sockets of one worker.
#[derive(Debug)]
pub(crate) struct Sockets {
    outbound: Option<StdListener>,
    inbound: Option<StdListener>,
    tls: Option<StdListener>,
    tcp: Vec<(StdListener, TcpBinding)>,
    proxy_protocol: ProxyProtocol,
}

/// The same, on the worker's runtime.
#[derive(Debug)]
pub(crate) struct Listeners {
    pub(crate) outbound: Option<TcpListener>,
    pub(crate) inbound: Option<TcpListener>,
    pub(crate) tls: Option<TcpListener>,
    pub(crate) tcp: Vec<(TcpListener, TcpBinding)>,
}

impl Sockets {
    /// Binds what is asked for. `shared`: other workers bind the same addresses.
    ///
    /// # Errors
    /// The first address that cannot be bound, named in the message.
    pub(crate) fn bind(bindings: &Bindings, shared: bool) -> io::Result<Sockets> {
        Ok(Sockets {
            proxy_protocol: bindings.proxy_protocol,
            outbound: bindings
                .outbound
                .map(|address| bind("outbound", address, shared))
                .transpose()?,
            inbound: bindings
                .inbound
                .map(|address| bind("inbound", address, shared))
                .transpose()?,
            tls: bindings
                .tls
                .map(|address| bind("tls", address, shared))
                .transpose()?,
            tcp: bindings
                .tcp
                .iter()
                .map(|binding| Ok((bind("tcp", binding.listen, shared)?, binding.clone())))
                .collect::<io::Result<_>>()?,
        })
    }

    /// The addresses, with the ports that the kernel chose where 0 was asked for.
    pub(crate) fn bound(&self) -> io::Result<Bound> {
        Ok(Bound {
            outbound: self
                .outbound
                .as_ref()
                .map(StdListener::local_addr)
                .transpose()?,
            inbound: self
                .inbound
                .as_ref()
                .map(StdListener::local_addr)
                .transpose()?,
            tls: self.tls.as_ref().map(StdListener::local_addr).transpose()?,
            proxy_protocol: self.proxy_protocol,
            tcp: self
                .tcp
                .iter()
                .map(|(socket, _)| socket.local_addr())
                .collect::<io::Result<_>>()?,
        })
    }

    /// Hands the sockets to the runtime that this is called on.
    pub(crate) fn into_tokio(self) -> io::Result<Listeners> {
        Ok(Listeners {
            outbound: self.outbound.map(TcpListener::from_std).transpose()?,
            inbound: self.inbound.map(TcpListener::from_std).transpose()?,
            tls: self.tls.map(TcpListener::from_std).transpose()?,
            tcp: self
                .tcp
                .into_iter()
                .map(|(socket, binding)| Ok((TcpListener::from_std(socket)?, binding)))
                .collect::<io::Result<_>>()?,
        })
    }
}

fn bind(what: &str, address: SocketAddr, shared: bool) -> io::Result<StdListener> {
    open(address, shared).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("cannot listen on {address} ({what}): {error}"),
        )
    })
}

fn open(address: SocketAddr, shared: bool) -> io::Result<StdListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A restarted sidecar must not wait for its predecessor's connections to leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Whether connecting to `target` ends at a socket bound to `bound`, as far as the addresses tell.
pub(crate) fn reaches(target: SocketAddr, bound: SocketAddr) -> bool {
    target.port() == bound.port()
        && (target.ip() == bound.ip()
            || (bound.ip().is_unspecified() && is_this_host(target.ip()))
            || (target.ip().is_unspecified() && bound.ip().is_loopback()))
}

fn is_this_host(ip: IpAddr) -> bool {
    ip.is_loopback() || ip.is_unspecified()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Sockets, reaches};
    use crate::runtime::Bindings;

    #[test]
    fn a_taken_address_is_named() {
        let any = Bindings {
            outbound: Some("127.0.0.1:0".parse().unwrap()),
            ..Bindings::default()
        };
        let first = Sockets::bind(&any, false).unwrap();
        let taken = first.bound().unwrap().outbound;
        let again = Bindings {
            outbound: taken,
            ..Bindings::default()
        };
        let error = Sockets::bind(&again, false).unwrap_err();
        assert!(error.to_string().contains(&taken.unwrap().to_string()));
        assert!(error.to_string().contains("outbound"));
    }

    #[test]
    fn own_addresses_are_known() {
        let at = |text: &str| text.parse().unwrap();
        assert!(reaches(at("127.0.0.1:15001"), at("127.0.0.1:15001")));
        assert!(reaches(at("127.0.0.1:15001"), at("0.0.0.0:15001")));
        assert!(reaches(at("0.0.0.0:15001"), at("127.0.0.1:15001")));
        assert!(!reaches(at("127.0.0.1:15002"), at("127.0.0.1:15001")));
        assert!(!reaches(at("10.1.2.3:15001"), at("127.0.0.1:15001")));
    }
}
