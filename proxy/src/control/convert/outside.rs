//! What services say of servers outside the mesh.

use std::sync::Arc;

use outrigger_proto::dataplane::v1 as wire;
use rustls_pki_types::{CertificateDer, DnsName, ServerName};

use super::{DnsSpec, Reason, list, port};
use crate::tls::{OriginSettings, OriginTls};

pub(super) fn dns_endpoint(wire: &wire::DnsEndpoint) -> Result<DnsSpec, Reason> {
    if DnsName::try_from(wire.host.as_str()).is_err() {
        return Err(format!("host: {:?} is not a DNS name", wire.host));
    }
    Ok(DnsSpec {
        host: wire.host.to_ascii_lowercase().into(),
        port: match wire.port {
            0 => None,
            number => Some(port("port", number)?),
        },
        labels: wire.labels.clone().into_iter().collect(),
        weight: wire.weight.max(1),
        zone: wire.zone.as_str().into(),
    })
}

pub(super) fn tls(wire: &wire::OriginTls) -> Result<Arc<OriginTls>, Reason> {
    let name = |field: &str, text: &String| -> Result<ServerName<'static>, Reason> {
        ServerName::try_from(text.clone())
            .map_err(|_| format!("{field}: {text:?} is neither a DNS name nor an IP address"))
    };
    let settings = OriginSettings {
        server_name: match wire.sni.as_str() {
            "" => None,
            _ => Some(name("tls.sni", &wire.sni)?),
        },
        roots: wire
            .ca_certificates
            .iter()
            .map(|der| CertificateDer::from(der.clone()))
            .collect(),
        names: list("tls.subject_alt_names", &wire.subject_alt_names, |text| {
            name("", text)
        })?,
    };
    let tls = OriginTls::new(settings).map_err(|error| format!("tls.ca_certificates: {error}"))?;
    Ok(Arc::new(tls))
}
