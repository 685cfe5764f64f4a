//! TLS that is not ours: routed by the name in the ClientHello, passed on as it is.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout_at};

use super::{Session, connect_and_copy, rule};
use crate::detect::client_hello::{self, Hello};
use crate::error::Reason;
use crate::listener::{Connection, Stream, accept};
use crate::policy::{HostEntry, Protocol, Service};
use crate::runtime::Worker;
use crate::telemetry::Direction;
use crate::telemetry::metrics::{Side, TlsPassthrough, Wire};

/// For the whole ClientHello. Clients send it at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// `unrecognized_name` (RFC 6066, section 3): the client's log says what went wrong, and not that something did.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// Accepts connections for whichever service their ClientHello names, until a drain begins.
pub(crate) async fn listen(worker: Rc<Worker>, socket: TcpListener) {
    accept(worker, socket, move |worker, stream, address| {
        let worker = Rc::clone(worker);
        tokio::task::spawn_local(async move {
            Box::pin(serve(worker, stream, address)).await;
        });
    })
    .await;
}

async fn serve(worker: Rc<Worker>, mut stream: TcpStream, address: SocketAddr) {
    let Some(address) = super::real_address(&worker, &mut stream, address).await else {
        return;
    };
    let mut client = Stream::from(stream);
    let shared = &worker.shared;
    let _connection = Connection::open(&worker);
    let _open = shared
        .metrics
        .connection(Direction::Outbound, Side::Downstream, Wire::Tcp);
    let mut session = Session::begin(&worker, address, Direction::Outbound);
    let count = |result| shared.metrics.protocols.tls_passthrough(result);
    let name = match read_name(&mut client).await {
        Ok(name) => name,
        Err(refusal) => {
            count(refusal);
            let reason = match refusal {
                TlsPassthrough::Closed => Reason::ClientGone,
                TlsPassthrough::Timeout => Reason::HeadTimeout,
                TlsPassthrough::TooLarge => Reason::HeadTooLarge,
                _ => Reason::ProtocolMismatch,
            };
            return session.refuse(&client, reason);
        }
    };
    let found = match shared.lookups.host(shared, &name).await {
        None => Err((Reason::NotReady, TlsPassthrough::Unreachable)),
        Some(HostEntry::Absent) => Err((Reason::NoRoute, TlsPassthrough::NoRoute)),
        Some(HostEntry::Service { service, .. }) => match port(&service) {
            Some(port) => Ok((service, port)),
            None => Err((Reason::NoRoute, TlsPassthrough::NoRoute)),
        },
    };
    let (service, port) = match found {
        Ok(found) => found,
        Err((reason, result)) => {
            count(result);
            if result == TlsPassthrough::NoRoute {
                // It may not be read any more.
                let _ = client.write_all(&UNRECOGNIZED_NAME).await;
                return session.end(Some(reason));
            }
            return session.refuse(&client, reason);
        }
    };
    session.service = Arc::clone(&service.name);
    let Some(rule) = rule(&service.rules, &name, port) else {
        count(TlsPassthrough::NoRoute);
        return session.refuse(&client, Reason::NoRoute);
    };
    let connected = connect_and_copy(&worker, session, &mut client, rule, service.tcp, || {
        count(TlsPassthrough::Routed);
    });
    if connected.await.is_err() {
        count(TlsPassthrough::Unreachable);
    }
}

/// The port that takes TLS: the first one that says so, else one whose protocol is found out, else one of bytes.
fn port(service: &Service) -> Option<u16> {
    [Protocol::Tls, Protocol::Auto, Protocol::Tcp]
        .into_iter()
        .find_map(|protocol| {
            let mut ports = service.ports.iter();
            ports.find(|port| port.protocol == protocol)
        })
        .map(|port| port.port)
}

/// The name in the ClientHello, whose bytes stay in front of the stream.
async fn read_name(stream: &mut Stream) -> Result<String, TlsPassthrough> {
    let deadline = Instant::now() + PATIENCE;
    let mut read = BytesMut::new();
    loop {
        if read.capacity() == read.len() {
            read.reserve(4096);
        }
        match timeout_at(deadline, stream.read_buf(&mut read)).await {
            Err(_) => return Err(TlsPassthrough::Timeout),
            Ok(Err(_) | Ok(0)) => return Err(TlsPassthrough::Closed),
            Ok(Ok(_)) => {}
        }
        match client_hello::parse(&read) {
            Hello::Incomplete => {}
            Hello::Name(Some(name)) => {
                stream.unread(read.freeze());
                return Ok(name);
            }
            Hello::Name(None) => return Err(TlsPassthrough::NoName),
            Hello::NotTls => return Err(TlsPassthrough::NotTls),
            Hello::TooLarge => return Err(TlsPassthrough::TooLarge),
        }
    }
}
