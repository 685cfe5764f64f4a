//! Hosts that no service answers to, in a mesh that lets requests for them through: each is a service that the sidecar makes
//! up, with the host's DNS name as its endpoints. The data path knows no difference.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use outrigger_proto::dataplane::v1 as wire;

use super::{Builder, Destination, is_pending};
use crate::control::convert::{DnsSpec, EndpointsSpec, ServiceSpec, made_up};
use crate::policy::{HostEntry, PASS_THROUGH, Service};

/// Opens a connection within this time: what is outside is farther away than a peer, for which 1 s is allowed.
const CONNECT: prost_types::Duration = prost_types::Duration {
    seconds: 5,
    nanos: 0,
};
/// The resources' built-in `streamIdle`.
const STREAM_IDLE: prost_types::Duration = prost_types::Duration {
    seconds: 300,
    nanos: 0,
};

/// Services made up for hosts, by authority.
#[derive(Debug, Default)]
pub(super) struct PassThrough {
    now: HashMap<Box<str>, Made>,
    before: HashMap<Box<str>, Made>,
}

#[derive(Debug)]
struct Made {
    destination: Destination,
    service: Arc<Service>,
}

impl PassThrough {
    /// A new snapshot: what is not asked for until the next one is forgotten.
    pub(super) fn begin(&mut self) {
        self.before = std::mem::take(&mut self.now);
    }
}

impl Builder {
    /// What an authority means that the control plane does not know. `None`: the first answer of DNS is not there yet.
    pub(super) fn pass_through(&mut self, authority: &str) -> Option<HostEntry> {
        let (host, port) = match split(authority) {
            Some(parts) => parts,
            None => return Some(HostEntry::Absent),
        };
        let (before, old) = match self.pass_through.before.remove(authority) {
            Some(made) => (Some(made.destination), Some(made.service)),
            None => (None, None),
        };
        let known = before.as_ref().and_then(|before| before.spec.clone());
        let spec = match known.or_else(|| spec(port, &self.trust_domain)) {
            Some(spec) => spec,
            None => return Some(HostEntry::Absent),
        };
        let endpoints = EndpointsSpec {
            fixed: Vec::new(),
            dns: vec![DnsSpec {
                host: host.into(),
                port: Some(port),
                labels: BTreeMap::new(),
                weight: 1,
                zone: Arc::default(),
            }],
        };
        let destination = self.known_destination(&spec, Some((0, &endpoints)), before);
        // Rules find their destinations by name, and all of these have the same one.
        let name = spec.name.clone();
        self.destinations.insert(name.clone(), destination);
        let service = match old {
            Some(service) if self.is_current(&service) => service,
            old => Arc::new(self.service(&spec, old.as_deref())),
        };
        let destination = self.destinations.remove(&name)?;
        let made = Made {
            destination,
            service: service.clone(),
        };
        self.pass_through.now.insert(authority.into(), made);
        (!is_pending(&service)).then_some(HostEntry::Service { service, port })
    }
}

/// A service with this one port and no other policy than the built-in one.
fn spec(port: u16, trust_domain: &str) -> Option<Arc<ServiceSpec>> {
    let wire = wire::Service {
        namespace: PASS_THROUGH.into(),
        name: PASS_THROUGH.into(),
        ports: vec![wire::ServicePort {
            port: port.into(),
            protocol: wire::Protocol::Http.into(),
            ..wire::ServicePort::default()
        }],
        // Nobody in the mesh serves it, but a service without servers is refused.
        server_identities: vec![format!("spiffe://{trust_domain}/ns/{PASS_THROUGH}/sa/none")],
        rules: vec![wire::Rule {
            backends: vec![wire::Backend {
                service: format!("{PASS_THROUGH}/{PASS_THROUGH}"),
                port: port.into(),
                weight: 1,
                ..wire::Backend::default()
            }],
            timeouts: Some(wire::Timeouts {
                stream_idle: Some(STREAM_IDLE),
                ..wire::Timeouts::default()
            }),
            ..wire::Rule::default()
        }],
        connect_timeout: Some(CONNECT),
        ..wire::Service::default()
    };
    made_up(&wire, PASS_THROUGH, trust_domain).map(Arc::new)
}

/// Host, as DNS knows it or an IP address, and port: 80 where none is named.
fn split(authority: &str) -> Option<(&str, u16)> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((_, rest)) if rest.ends_with(']') => (authority, 80),
        Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0)?),
        None => (authority, 80),
    };
    let is_v6 = host.starts_with('[') && host.ends_with(']');
    let bare = if is_v6 {
        &host[1..host.len() - 1]
    } else {
        host
    };
    let valid = rustls_pki_types::ServerName::try_from(bare).is_ok();
    valid.then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn an_authority_is_a_host_and_a_port() {
        for (authority, parts) in [
            ("api.example", Some(("api.example", 80))),
            ("api.example:8443", Some(("api.example", 8443))),
            ("192.0.2.1:81", Some(("192.0.2.1", 81))),
            ("[2001:db8::1]", Some(("[2001:db8::1]", 80))),
            ("[2001:db8::1]:81", Some(("[2001:db8::1]", 81))),
            ("api.example:0", None),
            ("api.example:x", None),
            ("a%20b", None),
            ("-", None),
            ("", None),
        ] {
            assert_eq!(split(authority), parts, "{authority}");
        }
    }
}
