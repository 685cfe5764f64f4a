//! How requests name resources.

use outrigger_proto::api::v1 as api;
use tonic::Status;

use crate::model::{DEFAULT_NAMESPACE, Kind, ResourceKey};
use crate::store::Selector;

/// The resource that a request names.
pub(super) fn required(reference: Option<api::ResourceRef>) -> Result<ResourceKey, Status> {
    let api::ResourceRef {
        kind,
        namespace,
        name,
    } = reference.ok_or_else(|| Status::invalid_argument("ref is missing; it names a resource"))?;
    let kind = parse_kind(&kind, "ref.kind")?;
    if name.is_empty() {
        return Err(Status::invalid_argument("ref.name is missing"));
    }
    let namespace = match (kind.is_namespaced(), namespace.is_empty()) {
        (true, true) => DEFAULT_NAMESPACE.to_owned(),
        (true, false) => namespace,
        (false, true) => String::new(),
        (false, false) => {
            return Err(Status::invalid_argument(format!(
                "a {kind} has no namespace; leave ref.namespace out"
            )));
        }
    };
    Ok(ResourceKey {
        kind,
        namespace,
        name,
    })
}

/// The resources that a request selects by kind and namespace.
pub(super) fn selector(kind: &str, namespace: String) -> Result<Selector, Status> {
    let kind = if kind.is_empty() {
        None
    } else {
        Some(parse_kind(kind, "kind")?)
    };
    let namespace = Some(namespace).filter(|namespace| !namespace.is_empty());
    Ok(Selector {
        kind,
        namespace,
        ..Selector::default()
    })
}

/// How a message names itself, right or wrong.
pub(super) fn of_message(message: &api::Resource) -> api::ResourceRef {
    let (name, namespace) = message.metadata.as_ref().map_or(("", ""), |metadata| {
        (metadata.name.as_str(), metadata.namespace.as_str())
    });
    let namespace = match message.kind.parse::<Kind>() {
        Ok(kind) if kind.is_namespaced() && namespace.is_empty() => DEFAULT_NAMESPACE,
        _ => namespace,
    };
    api::ResourceRef {
        kind: message.kind.clone(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

fn parse_kind(text: &str, field: &str) -> Result<Kind, Status> {
    text.parse()
        .map_err(|error| Status::invalid_argument(format!("{field}: {error}")))
}
