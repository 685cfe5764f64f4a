//! SPIFFE ids: who somebody is in the mesh, and patterns that say who is allowed.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Namespace of the mesh's own parts.
pub const SYSTEM_NAMESPACE: &str = "outrigger-system";
/// Account of administrators in [`SYSTEM_NAMESPACE`].
pub const ADMIN_ACCOUNT: &str = "admin";
/// Account of the control plane in [`SYSTEM_NAMESPACE`].
pub const CONTROL_PLANE_ACCOUNT: &str = "control-plane";

const SCHEME: &str = "spiffe://";

/// `spiffe://<trust domain>/ns/<namespace>/sa/<account>`: the only form of id there is in a mesh. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SpiffeId {
    text: Arc<str>,
    // Ends of the parts: a path of at most 2,048 bytes (SPIFFE-ID, section 2.3) fits into 16 bits.
    trust_domain_end: u16,
    namespace_end: u16,
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
    #[error(
        "pattern {0:?} may have '*' only as its last path segment, as in spiffe://<trust domain>/ns/<namespace>/sa/*"
    )]
    Pattern(String),
}

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
        let namespace_end = trust_domain_end + "/ns/".len() + namespace.len();
        Ok(SpiffeId {
            text: format!("{SCHEME}{trust_domain}/ns/{namespace}/sa/{account}").into(),
            // Each part's length was checked: at most 9 + 255 + 4 + 63.
            trust_domain_end: trust_domain_end as u16,
            namespace_end: namespace_end as u16,
        })
    }

    /// The control plane's own id.
    pub fn control_plane(trust_domain: &str) -> Result<SpiffeId, InvalidSpiffeId> {
        SpiffeId::new(trust_domain, SYSTEM_NAMESPACE, CONTROL_PLANE_ACCOUNT)
    }

    /// For example `outrigger.local`.
    pub fn trust_domain(&self) -> &str {
        &self.text[SCHEME.len()..usize::from(self.trust_domain_end)]
    }

    pub fn namespace(&self) -> &str {
        &self.text
            [usize::from(self.trust_domain_end) + "/ns/".len()..usize::from(self.namespace_end)]
    }

    /// The service account.
    pub fn account(&self) -> &str {
        &self.text[usize::from(self.namespace_end) + "/sa/".len()..]
    }

    /// The whole id.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The whole id, shared.
    pub fn as_arc(&self) -> &Arc<str> {
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

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for SpiffeId {
    type Err = InvalidSpiffeId;

    fn from_str(text: &str) -> Result<SpiffeId, InvalidSpiffeId> {
        let form = || InvalidSpiffeId::Form(shorten(text));
        let rest = text.strip_prefix(SCHEME).ok_or_else(form)?;
        let (trust_domain, path) = rest.split_once("/ns/").ok_or_else(form)?;
        let (namespace, account) = path.split_once("/sa/").ok_or_else(form)?;
        SpiffeId::new(trust_domain, namespace, account)
    }
}

/// One id, or all ids that have one more segment than a path (`…/sa/*`: any account of the namespace).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpiffePattern {
    Exact(SpiffeId),
    /// The part before the `*`, with the slash.
    AnyIn(Arc<str>),
}

impl SpiffePattern {
    /// Whether the pattern allows the id.
    pub fn matches(&self, id: &SpiffeId) -> bool {
        match self {
            SpiffePattern::Exact(exact) => exact == id,
            SpiffePattern::AnyIn(prefix) => id
                .as_str()
                .strip_prefix(&**prefix)
                .is_some_and(|rest| !rest.contains('/')),
        }
    }
}

impl fmt::Display for SpiffePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SpiffePattern::Exact(id) => id.fmt(f),
            SpiffePattern::AnyIn(prefix) => write!(f, "{prefix}*"),
        }
    }
}

impl FromStr for SpiffePattern {
    type Err = InvalidSpiffeId;

    fn from_str(text: &str) -> Result<SpiffePattern, InvalidSpiffeId> {
        let Some(prefix) = text.strip_suffix("/*") else {
            return text.parse().map(SpiffePattern::Exact);
        };
        let rest = prefix
            .strip_prefix(SCHEME)
            .ok_or_else(|| InvalidSpiffeId::Form(shorten(text)))?;
        // Without a trust domain in front the pattern would allow anybody of any mesh.
        let (trust_domain, path) = rest.split_once('/').unwrap_or((rest, ""));
        check_trust_domain(trust_domain)?;
        if path.contains('*') {
            return Err(InvalidSpiffeId::Pattern(shorten(text)));
        }
        Ok(SpiffePattern::AnyIn(format!("{prefix}/").into()))
    }
}

/// Checks a trust domain's characters (SPIFFE-ID, section 2.1).
pub fn check_trust_domain(text: &str) -> Result<(), InvalidSpiffeId> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    if text.is_empty() || text.len() > 255 || !text.bytes().all(allowed) {
        return Err(InvalidSpiffeId::TrustDomain(shorten(text)));
    }
    Ok(())
}

/// Checks a namespace, an account or a service's name: an RFC 1123 label.
pub fn check_label(what: &'static str, value: &str) -> Result<(), InvalidSpiffeId> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let ok = !value.is_empty()
        && value.len() <= 63
        && value.bytes().all(allowed)
        && !value.starts_with('-')
        && !value.ends_with('-');
    if !ok {
        return Err(InvalidSpiffeId::Label {
            what,
            value: shorten(value),
        });
    }
    Ok(())
}

/// What somebody else sent is quoted, but not without end.
fn shorten(text: &str) -> String {
    text.chars().take(300).collect()
}

#[cfg(test)]
mod tests;
