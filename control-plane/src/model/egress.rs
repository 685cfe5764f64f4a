//! Servers outside the mesh.

use serde::{Deserialize, Serialize};

use super::Labels;

/// All addresses of a DNS name, as endpoints. Each sidecar that calls the service looks the name up for itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DnsEndpoint {
    /// A DNS name, lower case.
    pub host: String,
    /// Default: the port of the service that a request came for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Relative share of the load, of each address. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// Subsets select by these.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// Where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

impl DnsEndpoint {
    /// The value in effect.
    pub fn weight(&self) -> u32 {
        self.weight.unwrap_or(1)
    }
}

/// TLS towards endpoints outside the mesh: TLS 1.2 or 1.3, the server's certificate is verified.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceTls {
    /// Default simple.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<TlsMode>,
    /// Sent to the server, and the name that its certificate must have. Default: the endpoint's DNS name, or its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    /// Trusted roots, PEM. Default: those of each sidecar's system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_certificates: Option<String>,
    /// Names of which the certificate must have one, in place of `sni`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subject_alt_names: Vec<String>,
}

impl ServiceTls {
    /// The value in effect.
    pub fn mode(&self) -> TlsMode {
        self.mode.unwrap_or_default()
    }
}

/// Who shows a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TlsMode {
    /// Nobody: plaintext.
    Disable,
    /// The server.
    #[default]
    Simple,
}

/// What sidecars do with requests that leave the mesh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MeshOutbound {
    /// Default refuse.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown_hosts: Option<UnknownHosts>,
}

impl MeshOutbound {
    /// The value in effect.
    pub fn unknown_hosts(self) -> UnknownHosts {
        self.unknown_hosts.unwrap_or_default()
    }
}

/// What becomes of a request for a host that no service answers to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnknownHosts {
    /// 404.
    #[default]
    Refuse,
    /// It goes where DNS says.
    PassThrough,
}
