//! The context file: where the control plane is and how to prove each other's identity.

use std::path::{Path, PathBuf};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

use super::verify::fingerprint;

/// What a client needs to use a control plane. The control plane writes it to `<data dir>/admin.yaml` with mode 0600.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Context {
    /// Address of the management API, `host:port`.
    pub server: String,
    /// SHA-256 of the root certificate (DER), lower-case hex.
    pub ca_fingerprint: String,
    /// The root certificate, PEM. Several while a root is being rotated.
    pub ca_certificate: String,
    /// Secret of an administrator, sent as bearer token.
    pub token: String,
    /// The trust domain that the control plane must be of. Unset: any that the CA vouches for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_domain: Option<String>,
}

// Not derived: the token must not end up in a log.
impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("server", &self.server)
            .field("ca_fingerprint", &self.ca_fingerprint)
            .field("trust_domain", &self.trust_domain)
            .finish_non_exhaustive()
    }
}

/// Why there is no usable context.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    #[error("there is no context file at {}", path.display())]
    Missing { path: PathBuf },
    #[error("the context file {} cannot be read: {source}", path.display())]
    Unreadable {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the context file {} is not usable: {reason}", path.display())]
    Malformed { path: PathBuf, reason: String },
}

impl Context {
    /// Reads and checks the file at `path`.
    pub fn load(path: &Path) -> Result<Self, ContextError> {
        let text = std::fs::read_to_string(path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => ContextError::Missing {
                path: path.to_owned(),
            },
            _ => ContextError::Unreadable {
                path: path.to_owned(),
                source,
            },
        })?;
        Self::parse(&text).map_err(|reason| ContextError::Malformed {
            path: path.to_owned(),
            reason,
        })
    }

    /// Parses YAML (or JSON) and checks that the parts fit each other. The error is one line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let context: Self = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
        let roots = context.roots()?;
        // A pasted-together file would otherwise fail much later, as a CA that is not the control plane's.
        if !roots
            .iter()
            .any(|root| fingerprint(root) == context.ca_fingerprint.to_ascii_lowercase())
        {
            let found: Vec<String> = roots.iter().map(fingerprint).collect();
            return Err(format!(
                "caFingerprint is {}, but caCertificate has the fingerprint {}",
                context.ca_fingerprint,
                found.join(", ")
            ));
        }
        if context.token.trim().is_empty() {
            return Err("token is empty".to_owned());
        }
        Ok(context)
    }

    /// The root certificates in `ca_certificate`; at least one.
    pub fn roots(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        let roots: Vec<_> = CertificateDer::pem_slice_iter(self.ca_certificate.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| format!("caCertificate is not PEM: {error}"))?;
        if roots.is_empty() {
            return Err(
                "caCertificate holds no certificate (expected -----BEGIN CERTIFICATE-----)"
                    .to_owned(),
            );
        }
        Ok(roots)
    }
}

#[cfg(test)]
mod tests;
