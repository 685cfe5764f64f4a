//! SPIFFE ids: who somebody is in the mesh.

use std::fmt;
use std::str::FromStr;

/// Namespace of the mesh's own parts.
pub const SYSTEM_NAMESPACE: &str = "outrigger-system";
/// Account of the control plane in [`SYSTEM_NAMESPACE`].
pub const CONTROL_PLANE_ACCOUNT: &str = "control-plane";
/// Account of administrators in [`SYSTEM_NAMESPACE`].
pub const ADMIN_ACCOUNT: &str = "admin";

/// `spiffe://<trust domain>/ns/<namespace>/sa/<account>`: the only form of id there is in a mesh.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SpiffeId {
    text: String,
    trust_domain_end: usize,
    namespace: (usize, usize),
}

/// Why a text is no SPIFFE id of a mesh.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSpiffeId {
    #[error("{0:?} is not of the form spiffe://<trust domain>/ns/<namespace>/sa/<account>")]
    Form(String),
    #[error(
        "trust domain {0:?} may have lower-case letters, digits, '.', '-' and '_', up to 255 characters"
    )]
    TrustDomain(String),
    #[error("{what} {value:?} is not a DNS label (lower-case letters, digits and '-', at most 63)")]
    Label { what: &'static str, value: String },
}

const SCHEME: &str = "spiffe://";

impl SpiffeId {
    /// Puts an id together.
    pub fn new(
        trust_domain: &str,
        namespace: &str,
        account: &str,
    ) -> Result<SpiffeId, InvalidSpiffeId> {
        check_trust_domain(trust_domain)?;
        check_label("namespace", namespace)?;
        check_label("service account", account)?;
        let trust_domain_end = SCHEME.len() + trust_domain.len();
        let start = trust_domain_end + "/ns/".len();
        Ok(SpiffeId {
            text: format!("{SCHEME}{trust_domain}/ns/{namespace}/sa/{account}"),
            trust_domain_end,
            namespace: (start, start + namespace.len()),
        })
    }

    /// The control plane's own id.
    pub fn control_plane(trust_domain: &str) -> Result<SpiffeId, InvalidSpiffeId> {
        SpiffeId::new(trust_domain, SYSTEM_NAMESPACE, CONTROL_PLANE_ACCOUNT)
    }

    /// For example `outrigger.local`.
    pub fn trust_domain(&self) -> &str {
        &self.text[SCHEME.len()..self.trust_domain_end]
    }

    pub fn namespace(&self) -> &str {
        &self.text[self.namespace.0..self.namespace.1]
    }

    /// The service account.
    pub fn account(&self) -> &str {
        &self.text[self.namespace.1 + "/sa/".len()..]
    }

    /// The whole id.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether this is an administrator of the mesh.
    pub fn is_admin(&self) -> bool {
        self.namespace() == SYSTEM_NAMESPACE && self.account() == ADMIN_ACCOUNT
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for SpiffeId {
    type Err = InvalidSpiffeId;

    fn from_str(text: &str) -> Result<SpiffeId, InvalidSpiffeId> {
        let form = || InvalidSpiffeId::Form(text.chars().take(300).collect());
        let rest = text.strip_prefix(SCHEME).ok_or_else(form)?;
        let (trust_domain, path) = rest.split_once("/ns/").ok_or_else(form)?;
        let (namespace, account) = path.split_once("/sa/").ok_or_else(form)?;
        SpiffeId::new(trust_domain, namespace, account)
    }
}

/// Checks a trust domain's characters (SPIFFE-ID, section 2.1).
pub fn check_trust_domain(text: &str) -> Result<(), InvalidSpiffeId> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    if text.is_empty() || text.len() > 255 || !text.bytes().all(allowed) {
        return Err(InvalidSpiffeId::TrustDomain(
            text.chars().take(300).collect(),
        ));
    }
    Ok(())
}

fn check_label(what: &'static str, value: &str) -> Result<(), InvalidSpiffeId> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let ok = !value.is_empty()
        && value.len() <= 63
        && value.bytes().all(allowed)
        && !value.starts_with('-')
        && !value.ends_with('-');
    if !ok {
        return Err(InvalidSpiffeId::Label {
            what,
            value: value.chars().take(100).collect(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
