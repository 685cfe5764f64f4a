//! Which service a host name means.
//!
//! A service `chat` of the namespace `default` is meant by `chat` (asked from its own namespace), `chat.default`,
//! `chat.default.svc`, `chat.default.svc.cluster.local`, and by what its `hosts` say: exact ones first, then the longest
//! `*.suffix`. The names that belong to a service by its own name win over `hosts`: no service can take another's.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Who claims a host; the oldest service wins, then the first by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    created: Option<jiff::Timestamp>,
    service: Arc<str>,
}

/// All hosts that services name in `hosts`.
#[derive(Clone, Debug, Default)]
pub struct Hosts {
    exact: HashMap<String, BTreeSet<Claim>>,
    /// Key without the `*.`.
    suffixes: HashMap<String, BTreeSet<Claim>>,
}

/// An authority in its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority<'a> {
    pub host: &'a str,
    pub port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Splits `host`, `host:port`, `[v6]` or `[v6]:port`. None: not an authority.
    pub fn parse(text: &'a str) -> Option<Authority<'a>> {
        let (host, port) = match text.rsplit_once(':') {
            Some((host, _))
                if text.ends_with(']') || (host.contains(':') && !host.ends_with(']')) =>
            {
                (text, None)
            }
            Some((host, port)) => (host, Some(port.parse().ok().filter(|port| *port != 0)?)),
            None => (text, None),
        };
        // A fully qualified name may end in a dot.
        let host = host.strip_suffix('.').unwrap_or(host);
        (!host.is_empty()).then_some(Authority { host, port })
    }
}

/// `<namespace>/<name>` of the services that a name in DNS form may mean, as seen from `namespace`.
pub fn by_own_name(host: &str, namespace: &str) -> Option<String> {
    let mut labels = host.split('.');
    let name = labels.next().filter(|label| !label.is_empty())?;
    let namespace = labels.next().unwrap_or(namespace);
    let rest: Vec<&str> = labels.collect();
    let known = matches!(rest.as_slice(), [] | ["svc"] | ["svc", "cluster", "local"]);
    (known && !namespace.is_empty()).then(|| format!("{namespace}/{name}"))
}

impl Hosts {
    /// Adds the hosts of a service.
    pub fn add(&mut self, service: &Arc<str>, created: Option<jiff::Timestamp>, hosts: &[String]) {
        for host in hosts {
            let (map, key) = self.place(host);
            map.entry(key).or_default().insert(Claim {
                created,
                service: service.clone(),
            });
        }
    }

    /// Takes the hosts of a service away again.
    pub fn remove(&mut self, service: &str, hosts: &[String]) {
        for host in hosts {
            let (map, key) = self.place(host);
            if let Some(claims) = map.get_mut(&key) {
                claims.retain(|claim| *claim.service != *service);
                if claims.is_empty() {
                    map.remove(&key);
                }
            }
        }
    }

    fn place(&mut self, host: &str) -> (&mut HashMap<String, BTreeSet<Claim>>, String) {
        let host = host.to_ascii_lowercase();
        match host.strip_prefix("*.") {
            Some(suffix) => (&mut self.suffixes, suffix.to_owned()),
            None => (&mut self.exact, host),
        }
    }

    /// The service that names this host in its `hosts`.
    pub fn find(&self, host: &str) -> Option<&Arc<str>> {
        if let Some(claim) = self.exact.get(host).and_then(BTreeSet::first) {
            return Some(&claim.service);
        }
        let mut rest = host;
        while let Some((_, suffix)) = rest.split_once('.') {
            if let Some(claim) = self.suffixes.get(suffix).and_then(BTreeSet::first) {
                return Some(&claim.service);
            }
            rest = suffix;
        }
        None
    }
}
