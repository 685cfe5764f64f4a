//! The system's resolver: `/etc/resolv.conf` and `/etc/hosts`, or servers given in the settings.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use futures_util::FutureExt;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RecordType;
use tokio::sync::Semaphore;

use super::{LookUp, Trouble};

/// A lookup takes no longer than this, whatever `resolv.conf` says of timeouts and attempts.
const PATIENCE: Duration = Duration::from_secs(5);
/// For one question to one server. glibc's default of 5 s is made for people, not for requests that wait.
const PER_QUESTION: Duration = Duration::from_secs(2);
/// Lookups under way at a time; others wait their turn.
const AT_A_TIME: usize = 64;
/// What the answers are made of. A change takes effect with the next lookup.
const FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

/// The addresses of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Sorted, each once, never empty.
    pub addresses: Vec<IpAddr>,
    /// For how long it holds, as the server says it.
    pub ttl: Duration,
    /// A family that the name had addresses of, and of which it could not be found out whether it still has.
    pub unknown: Option<(Family, Trouble)>,
}

/// What is asked.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) host: Arc<str>,
    /// Families that the last good answer had addresses of.
    pub(crate) known: Vec<Family>,
}

/// Kinds of addresses, which are looked up each by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const ALL: [Family; 2] = [Family::V4, Family::V6];

    pub(crate) fn has(self, address: &IpAddr) -> bool {
        address.is_ipv4() == (self == Family::V4)
    }

    fn record(self) -> RecordType {
        match self {
            Family::V4 => RecordType::A,
            Family::V6 => RecordType::AAAA,
        }
    }
}

/// Looks names up.
#[derive(Debug)]
pub struct Resolver {
    /// Empty: the system's.
    servers: Vec<SocketAddr>,
    current: Mutex<Option<Current>>,
    turns: Semaphore,
}

/// A resolver, and the state of the files that it was made from.
#[derive(Debug)]
struct Current {
    made_from: [Option<SystemTime>; FILES.len()],
    resolver: Arc<TokioResolver>,
}

impl Resolver {
    /// Asks these servers, or those of the system where there are none. `/etc/hosts` counts in both cases.
    pub fn new(servers: Vec<SocketAddr>) -> Resolver {
        Resolver {
            servers,
            current: Mutex::new(None),
            turns: Semaphore::new(AT_A_TIME),
        }
    }

    pub(crate) fn look_up(self) -> LookUp {
        let resolver = Arc::new(self);
        Arc::new(move |question| {
            let resolver = resolver.clone();
            async move { resolver.answer(&question).await }.boxed()
        })
    }

    pub(super) async fn answer(&self, question: &Question) -> Result<Answer, Trouble> {
        // Never closed.
        let _turn = self.turns.acquire().await;
        let resolver = self.current()?;
        let end = tokio::time::Instant::now() + PATIENCE;
        let lookup = in_time(end, resolver.lookup_ip(&*question.host)).await?;
        let ttl = lookup
            .valid_until()
            .saturating_duration_since(Instant::now());
        let mut addresses: Vec<IpAddr> = lookup.iter().collect();
        // The resolver says nothing of a family that failed where it has addresses of the other one.
        let missing = |family: &Family| !addresses.iter().any(|address| family.has(address));
        let mut unknown = None;
        if let Some(family) = question.known.iter().copied().find(missing)
            && !addresses.is_empty()
        {
            let name = lookup.query().name().clone();
            match in_time(end, resolver.lookup(name, family.record())).await {
                Ok(found) => {
                    let records = found.answers().iter();
                    addresses.extend(records.filter_map(|record| record.data.ip_addr()));
                }
                Err(Trouble::NotFound) => {}
                Err(trouble) => unknown = Some((family, trouble)),
            }
        }
        addresses.sort_unstable();
        addresses.dedup();
        if addresses.iter().any(has_route) {
            addresses.retain(has_route);
        }
        if addresses.is_empty() {
            return Err(Trouble::NotFound);
        }
        Ok(Answer {
            addresses,
            ttl,
            unknown,
        })
    }

    fn current(&self) -> Result<Arc<TokioResolver>, Trouble> {
        let made_from = FILES.map(|path| std::fs::metadata(path).and_then(|it| it.modified()).ok());
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(current) = &*current
            && current.made_from == made_from
        {
            return Ok(current.resolver.clone());
        }
        let resolver = Arc::new(self.make().map_err(|error| trouble(&error))?);
        *current = Some(Current {
            made_from,
            resolver: resolver.clone(),
        });
        Ok(resolver)
    }

    fn make(&self) -> Result<TokioResolver, NetError> {
        let mut builder = if self.servers.is_empty() {
            TokioResolver::builder_tokio()?
        } else {
            let servers = self.servers.iter().map(name_server).collect();
            let config = ResolverConfig::from_parts(None, Vec::new(), servers);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        let options = builder.options_mut();
        // The names' own tasks know what holds for how long.
        options.cache_size = 0;
        options.timeout = options.timeout.min(PER_QUESTION);
        options.ip_strategy = hickory_resolver::config::LookupIpStrategy::Ipv4AndIpv6;
        builder.build()
    }
}

/// The result of a lookup that must not take longer.
async fn in_time<T>(
    end: tokio::time::Instant,
    lookup: impl Future<Output = Result<T, NetError>>,
) -> Result<T, Trouble> {
    let late = |_| Trouble::Failed(format!("no answer within {} s", PATIENCE.as_secs()));
    let lookup = tokio::time::timeout_at(end, lookup).await.map_err(late)?;
    lookup.map_err(|error| trouble(&error))
}

fn name_server(address: &SocketAddr) -> NameServerConfig {
    let at_port = |mut connection: ConnectionConfig| {
        connection.port = address.port();
        connection
    };
    let connections = vec![
        at_port(ConnectionConfig::udp()),
        at_port(ConnectionConfig::tcp()),
    ];
    NameServerConfig::new(address.ip(), true, connections)
}

fn trouble(error: &NetError) -> Trouble {
    if error.is_nx_domain() || error.is_no_records_found() {
        return Trouble::NotFound;
    }
    match error {
        NetError::Timeout => Trouble::Failed("the server did not answer".into()),
        other => Trouble::Failed(other.to_string()),
    }
}

/// Whether this machine has a way there: on one without IPv6, half of most names' addresses would be connections that
/// fail. A UDP socket asks the routing table and sends nothing.
fn has_route(address: &IpAddr) -> bool {
    if address.is_ipv4() {
        return true;
    }
    UdpSocket::bind("[::]:0")
        .and_then(|socket| socket.connect((*address, 9)))
        .is_ok()
}

#[cfg(test)]
mod tests;
