//! Messages of the management API as JSON, in the shape in which resources are written in files.

use jiff::Timestamp;
use outrigger_control_plane::api::convert::from_struct;
use outrigger_control_plane::model::API_VERSION;
use outrigger_proto::api::v1::{ObjectMeta, Resource};
use serde_json::{Map, Value, json};

/// A resource as in a file.
pub fn resource(resource: &Resource) -> Value {
    let mut map = Map::new();
    map.insert("apiVersion".into(), resource.api_version.clone().into());
    map.insert("kind".into(), resource.kind.clone().into());
    if let Some(metadata) = &resource.metadata {
        map.insert("metadata".into(), object_meta(metadata));
    }
    if let Some(spec) = &resource.spec {
        map.insert("spec".into(), from_struct(spec));
    }
    if let Some(status) = resource
        .status
        .as_ref()
        .filter(|status| !status.fields.is_empty())
    {
        map.insert("status".into(), from_struct(status));
    }
    Value::Object(map)
}

/// Several resources, as kubectl puts them.
pub fn list(items: Vec<Value>) -> Value {
    json!({"apiVersion": API_VERSION, "kind": "List", "items": items})
}

fn object_meta(metadata: &ObjectMeta) -> Value {
    let mut map = Map::new();
    let mut text = |key: &str, value: &str| {
        if !value.is_empty() {
            map.insert(key.to_owned(), value.into());
        }
    };
    text("name", &metadata.name);
    text("namespace", &metadata.namespace);
    text("resourceVersion", &metadata.resource_version);
    text("uid", &metadata.uid);
    if let Some(created) = time(metadata.creation_timestamp.as_ref()) {
        text("creationTimestamp", &created.to_string());
    }
    for (key, labels) in [
        ("labels", &metadata.labels),
        ("annotations", &metadata.annotations),
    ] {
        if !labels.is_empty() {
            let labels: Map<String, Value> = labels
                .iter()
                .map(|(key, value)| (key.clone(), value.clone().into()))
                .collect();
            map.insert(key.to_owned(), labels.into());
        }
    }
    if metadata.generation != 0 {
        map.insert("generation".to_owned(), metadata.generation.into());
    }
    Value::Object(map)
}

/// A protobuf timestamp; none where it is unset or no time that exists.
pub fn time(timestamp: Option<&prost_types::Timestamp>) -> Option<Timestamp> {
    let timestamp = timestamp?;
    Timestamp::new(timestamp.seconds, timestamp.nanos).ok()
}
