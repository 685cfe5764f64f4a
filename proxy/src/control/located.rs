//! Where a service's endpoints are: those with addresses of their own, and those that its DNS names have now.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

use super::convert::{DnsSpec, EndpointSpec, EndpointsSpec, ServiceSpec};
use super::endpoints::Version;
use crate::dns::{Name, Names};
use crate::policy::Outside;
use crate::tls::OriginTls;

/// Endpoints with addresses.
pub(super) struct Located<'a> {
    pub endpoints: Cow<'a, [EndpointSpec]>,
    pub names: Box<[Arc<Name>]>,
    /// An address was left out, because it is a listener of this sidecar.
    pub has_loop: bool,
    pub version: Version,
}

/// Puts the addresses in. `round` counts snapshots.
pub(super) fn locate<'a>(
    service: &ServiceSpec,
    tls: Option<&Arc<OriginTls>>,
    held: Option<(u64, &'a EndpointsSpec)>,
    names: &mut Names,
    round: u64,
) -> Located<'a> {
    let Some((version, spec)) = held else {
        return Located {
            endpoints: Cow::default(),
            names: Box::default(),
            has_loop: false,
            version: Version::default(),
        };
    };
    if spec.dns.is_empty() && tls.is_none() {
        return Located {
            endpoints: Cow::Borrowed(&spec.fixed),
            names: Box::default(),
            has_loop: false,
            version: Version {
                resource: Some(version),
                round: 0,
            },
        };
    }
    let mut located = Located {
        endpoints: Cow::Owned(spec.fixed.iter().map(|it| with_tls(it, tls)).collect()),
        names: Box::default(),
        has_loop: false,
        version: Version {
            resource: Some(version),
            round,
        },
    };
    located.names = spec
        .dns
        .iter()
        .map(|dns| {
            let name = names.want(&service.name, &dns.host);
            let own = names.own_listeners();
            for endpoint in addresses(&name, dns, service, tls) {
                if own.contain(endpoint.address) {
                    located.has_loop = true;
                } else {
                    located.endpoints.to_mut().push(endpoint);
                }
            }
            name
        })
        .collect();
    located
}

/// A sidecar keeps what it is; what is outside the mesh is reached by the service's TLS.
fn with_tls(endpoint: &EndpointSpec, tls: Option<&Arc<OriginTls>>) -> EndpointSpec {
    let mut endpoint = endpoint.clone();
    if tls.is_some() && !endpoint.mtls {
        endpoint.outside = Outside::new(None, endpoint.address, tls).map(Arc::new);
    }
    endpoint
}

/// An endpoint for each address of a name; without a port of its own, for each port of the service.
fn addresses(
    name: &Name,
    dns: &DnsSpec,
    service: &ServiceSpec,
    tls: Option<&Arc<OriginTls>>,
) -> Vec<EndpointSpec> {
    let standing = name.standing();
    let ports: Vec<(u16, Box<[u16]>)> = match dns.port {
        Some(port) => vec![(port, Box::default())],
        None => {
            let ports = service.ports.iter().map(|port| port.port);
            ports.map(|port| (port, [port].into())).collect()
        }
    };
    let mut endpoints = Vec::with_capacity(standing.addresses.len() * ports.len());
    for (port, serves) in ports {
        for ip in standing.addresses.iter() {
            let address = SocketAddr::new(*ip, port);
            // Names are checked where they come in.
            let Some(outside) = Outside::new(Some(dns.host.clone()), address, tls) else {
                continue;
            };
            endpoints.push(EndpointSpec {
                address,
                ports: serves.clone(),
                identity: None,
                labels: dns.labels.clone(),
                weight: dns.weight,
                mtls: false,
                zone: dns.zone.clone(),
                instance: Arc::default(),
                outside: Some(Arc::new(outside)),
            });
        }
    }
    endpoints
}
