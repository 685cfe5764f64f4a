//! A resource of any kind.

use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;

use super::{
    API_VERSION, DEFAULT_NAMESPACE, Kind, MeshSpec, ObjectMeta, RateLimitSpec, ResourceKey,
    RouteSpec, ServiceSpec, WorkloadSpec,
};

/// A resource in the Kubernetes style: `apiVersion`, `kind`, `metadata`, `spec`, `status`.
///
/// Deserializing checks the structure only, and stops at the first problem.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// Name and bookkeeping.
    pub metadata: ObjectMeta,
    /// What the kind says.
    pub spec: Spec,
    /// Set by the control plane on the way out, ignored on the way in, never stored.
    pub status: Option<Value>,
}

/// The spec of a resource; says its kind too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Spec {
    /// Of a `Mesh`.
    Mesh(Box<MeshSpec>),
    /// Of a `Service`.
    Service(Box<ServiceSpec>),
    /// Of a `Route`.
    Route(Box<RouteSpec>),
    /// Of a `RateLimit`.
    RateLimit(Box<RateLimitSpec>),
    /// Of a `Workload`.
    Workload(Box<WorkloadSpec>),
}

impl Spec {
    /// The kind that has such a spec.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Mesh(_) => Kind::Mesh,
            Self::Service(_) => Kind::Service,
            Self::Route(_) => Kind::Route,
            Self::RateLimit(_) => Kind::RateLimit,
            Self::Workload(_) => Kind::Workload,
        }
    }

    fn from_value(kind: Kind, value: Value) -> Result<Self, serde_json::Error> {
        Ok(match kind {
            Kind::Mesh => Self::Mesh(serde_json::from_value(value)?),
            Kind::Service => Self::Service(serde_json::from_value(value)?),
            Kind::Route => Self::Route(serde_json::from_value(value)?),
            Kind::RateLimit => Self::RateLimit(serde_json::from_value(value)?),
            Kind::Workload => Self::Workload(serde_json::from_value(value)?),
        })
    }
}

impl From<MeshSpec> for Spec {
    fn from(spec: MeshSpec) -> Self {
        Self::Mesh(Box::new(spec))
    }
}

impl From<ServiceSpec> for Spec {
    fn from(spec: ServiceSpec) -> Self {
        Self::Service(Box::new(spec))
    }
}

impl From<RouteSpec> for Spec {
    fn from(spec: RouteSpec) -> Self {
        Self::Route(Box::new(spec))
    }
}

impl From<RateLimitSpec> for Spec {
    fn from(spec: RateLimitSpec) -> Self {
        Self::RateLimit(Box::new(spec))
    }
}

impl From<WorkloadSpec> for Spec {
    fn from(spec: WorkloadSpec) -> Self {
        Self::Workload(Box::new(spec))
    }
}

impl Resource {
    /// A resource with nothing but a name. `namespace` is ignored for kinds that have none; empty means `default`.
    pub fn new(namespace: &str, name: &str, spec: impl Into<Spec>) -> Self {
        let metadata = ObjectMeta {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            ..ObjectMeta::default()
        };
        let mut resource = Self {
            metadata,
            spec: spec.into(),
            status: None,
        };
        resource.set_namespace();
        resource
    }

    /// Its kind.
    pub const fn kind(&self) -> Kind {
        self.spec.kind()
    }

    /// What names it.
    pub fn key(&self) -> ResourceKey {
        ResourceKey::new(self.kind(), &*self.metadata.namespace, &*self.metadata.name)
    }

    /// `<namespace>/<name>`, as the sidecars' contract names services and routes.
    pub fn qualified_name(&self) -> String {
        self.key().qualified_name()
    }

    /// The spec of a `Mesh`.
    pub fn as_mesh(&self) -> Option<&MeshSpec> {
        if let Spec::Mesh(spec) = &self.spec {
            Some(spec)
        } else {
            None
        }
    }

    /// The spec of a `Service`.
    pub fn as_service(&self) -> Option<&ServiceSpec> {
        if let Spec::Service(spec) = &self.spec {
            Some(spec)
        } else {
            None
        }
    }

    /// The spec of a `Route`.
    pub fn as_route(&self) -> Option<&RouteSpec> {
        if let Spec::Route(spec) = &self.spec {
            Some(spec)
        } else {
            None
        }
    }

    /// The spec of a `RateLimit`.
    pub fn as_rate_limit(&self) -> Option<&RateLimitSpec> {
        if let Spec::RateLimit(spec) = &self.spec {
            Some(spec)
        } else {
            None
        }
    }

    /// The spec of a `Workload`.
    pub fn as_workload(&self) -> Option<&WorkloadSpec> {
        if let Spec::Workload(spec) = &self.spec {
            Some(spec)
        } else {
            None
        }
    }

    fn set_namespace(&mut self) {
        if !self.kind().is_namespaced() {
            self.metadata.namespace.clear();
        } else if self.metadata.namespace.is_empty() {
            self.metadata.namespace.push_str(DEFAULT_NAMESPACE);
        }
    }
}

impl Serialize for Resource {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Written<'a> {
            api_version: &'static str,
            kind: Kind,
            metadata: &'a ObjectMeta,
            spec: &'a Spec,
            #[serde(skip_serializing_if = "Option::is_none")]
            status: Option<&'a Value>,
        }
        Written {
            api_version: API_VERSION,
            kind: self.kind(),
            metadata: &self.metadata,
            spec: &self.spec,
            status: self.status.as_ref(),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Resource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        struct Written {
            api_version: String,
            kind: Kind,
            metadata: ObjectMeta,
            #[serde(default)]
            spec: Option<Value>,
            #[serde(default)]
            status: Option<Value>,
        }
        let written = Written::deserialize(deserializer)?;
        if written.api_version != API_VERSION {
            let message = format!(
                "apiVersion is \"{}\"; only {API_VERSION} is known",
                written.api_version
            );
            return Err(de::Error::custom(message));
        }
        let spec = written
            .spec
            .unwrap_or_else(|| Value::Object(serde_json::Map::new()));
        let spec = Spec::from_value(written.kind, spec).map_err(de::Error::custom)?;
        let mut resource = Self {
            metadata: written.metadata,
            spec,
            status: written.status,
        };
        resource.set_namespace();
        Ok(resource)
    }
}
