//! How a resource is named.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The kinds of resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// Settings of the mesh as a whole. There is one, named `default`, outside of any namespace.
    Mesh,
    /// What callers call: hosts, ports, endpoints, load balancing.
    Service,
    /// Rules for requests to services.
    Route,
    /// How many requests services take.
    RateLimit,
    /// A running sidecar and what it serves. Written by the control plane only.
    Workload,
}

impl Kind {
    /// All kinds, in the order in which they are listed.
    pub const ALL: [Self; 5] = [
        Self::Mesh,
        Self::Service,
        Self::Route,
        Self::RateLimit,
        Self::Workload,
    ];

    /// As in `kind:`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mesh => "Mesh",
            Self::Service => "Service",
            Self::Route => "Route",
            Self::RateLimit => "RateLimit",
            Self::Workload => "Workload",
        }
    }

    /// As in the key of a resource: lower case.
    pub const fn lower(self) -> &'static str {
        match self {
            Self::Mesh => "mesh",
            Self::Service => "service",
            Self::Route => "route",
            Self::RateLimit => "ratelimit",
            Self::Workload => "workload",
        }
    }

    /// Whether resources of this kind live in a namespace.
    pub const fn is_namespaced(self) -> bool {
        !matches!(self, Self::Mesh)
    }

    /// Whether users write resources of this kind.
    pub const fn is_user_written(self) -> bool {
        !matches!(self, Self::Workload)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name that is no [`Kind`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown kind \"{0}\"; known are Mesh, Service, Route, RateLimit and Workload")]
pub struct UnknownKind(pub String);

/// Exact: `Service`, not `service`.
impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| UnknownKind(text.to_owned()))
    }
}

/// Names one resource. Ordered by kind, namespace, name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceKey {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; empty for kinds without one.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ResourceKey {
    /// A key as given.
    pub fn new(kind: Kind, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            kind,
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The key of the one `Mesh`.
    pub fn mesh() -> Self {
        Self::new(Kind::Mesh, "", super::MESH_NAME)
    }

    /// The key of a `Service`.
    pub fn service(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self::new(Kind::Service, namespace, name)
    }

    /// The key of a `Route`.
    pub fn route(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self::new(Kind::Route, namespace, name)
    }

    /// The key of a `RateLimit`.
    pub fn rate_limit(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self::new(Kind::RateLimit, namespace, name)
    }

    /// The key of a `Workload`.
    pub fn workload(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self::new(Kind::Workload, namespace, name)
    }

    /// `<namespace>/<name>`; the bare name where there is no namespace.
    pub fn qualified_name(&self) -> String {
        if self.namespace.is_empty() {
            self.name.clone()
        } else {
            format!("{}/{}", self.namespace, self.name)
        }
    }
}

/// `service/default/chat`, `mesh/default`.
impl fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{}/{}", self.kind.lower(), self.name)
        } else {
            write!(f, "{}/{}/{}", self.kind.lower(), self.namespace, self.name)
        }
    }
}
