//! Servers outside the mesh: what they are called by those who know nothing of the mesh.

use std::sync::Arc;

use http::uri::Authority;
use rustls_pki_types::ServerName;

use crate::tls::OriginTls;

/// A server that is reached by a DNS name, with TLS, or both.
#[derive(Clone, Debug)]
pub struct Outside {
    /// Its DNS name. `None`: an endpoint written down by its address.
    pub host: Option<Arc<str>>,
    /// `None`: plaintext.
    pub tls: Option<OutsideTls>,
    port: u16,
    /// What stands for a name that only the mesh knows.
    authority: Option<Authority>,
}

#[derive(Clone, Debug)]
pub struct OutsideTls {
    pub origin: Arc<OriginTls>,
    /// Sent as SNI, and verified unless the service gives other names.
    pub server_name: ServerName<'static>,
}

impl PartialEq for Outside {
    fn eq(&self, other: &Outside) -> bool {
        let same_tls = match (&self.tls, &other.tls) {
            (Some(one), Some(other)) => {
                Arc::ptr_eq(&one.origin, &other.origin) && one.server_name == other.server_name
            }
            (None, None) => true,
            _ => false,
        };
        same_tls && self.host == other.host && self.port == other.port
    }
}

impl Eq for Outside {}

impl Outside {
    /// For a port of a DNS name or, without a name, of an address. `None` where the name can be no server's.
    pub fn new(
        host: Option<Arc<str>>,
        address: std::net::SocketAddr,
        tls: Option<&Arc<OriginTls>>,
    ) -> Option<Outside> {
        let port = address.port();
        let tls = match tls {
            None => None,
            Some(origin) => Some(OutsideTls {
                server_name: match (&origin.settings.server_name, &host) {
                    (Some(name), _) => name.clone(),
                    (None, Some(host)) => ServerName::try_from(host.to_string()).ok()?,
                    (None, None) => ServerName::from(address.ip()),
                },
                origin: origin.clone(),
            }),
        };
        let name = host.as_deref().map(str::to_owned).or_else(|| {
            let tls = tls.as_ref()?;
            Some(tls.server_name.to_str().into_owned())
        });
        let authority = match name {
            Some(name) => Some(with_port(&name, port, tls.is_some())?),
            None => None,
        };
        Some(Outside {
            host,
            tls,
            port,
            authority,
        })
    }

    /// The authority that a client without a mesh would send: its host is the request's, unless that is a name of
    /// `service` (`<namespace>/<name>`) within the mesh; its port is the server's, unless the scheme implies it.
    pub fn authority(&self, asked: &Authority, service: &str) -> Authority {
        let host = asked.host();
        let own = self
            .authority
            .as_ref()
            .filter(|_| is_internal(host, service));
        match own {
            Some(own) => own.clone(),
            None => with_port(host, self.port, self.tls.is_some()).unwrap_or_else(|| asked.clone()),
        }
    }
}

fn with_port(host: &str, port: u16, tls: bool) -> Option<Authority> {
    let bare_v6 = host.contains(':') && !host.starts_with('[');
    let host = if bare_v6 { &*format!("[{host}]") } else { host };
    let implied = if tls { 443 } else { 80 };
    if port == implied {
        Authority::try_from(host).ok()
    } else {
        Authority::try_from(format!("{host}:{port}")).ok()
    }
}

/// Whether a host is one of those that a service has by its own name.
fn is_internal(host: &str, service: &str) -> bool {
    let Some((namespace, name)) = service.split_once('/') else {
        return false;
    };
    let mut labels = host.split('.');
    let is =
        |label: Option<&str>, text: &str| label.is_some_and(|it| it.eq_ignore_ascii_case(text));
    if !is(labels.next(), name) {
        return false;
    }
    match labels.next() {
        None => true,
        Some(label) if label.eq_ignore_ascii_case(namespace) => {
            let rest: Vec<&str> = labels.collect();
            let rest: String = rest.join(".").to_ascii_lowercase();
            matches!(rest.as_str(), "" | "svc" | "svc.cluster.local")
        }
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests;
