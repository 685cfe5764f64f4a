//! Between the messages of the management API, documents and resources.

use std::collections::BTreeMap;

use outrigger_proto::api::v1 as api;
use prost_types::value::Kind as ProtoKind;
use prost_types::{Struct, Timestamp, Value as ProtoValue};
use serde_json::{Map, Number, Value};

use crate::model::{API_VERSION, Labels, Resource, ResourceKey};

/// Numbers beyond this are not exact in a double, and stay doubles.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// A message as the document that it stands for, unchecked. What only the control plane sets is left out.
pub fn to_document(message: &api::Resource) -> Value {
    let mut document = Map::new();
    put_text(&mut document, "apiVersion", &message.api_version);
    put_text(&mut document, "kind", &message.kind);
    if let Some(metadata) = &message.metadata {
        let mut members = Map::new();
        put_text(&mut members, "name", &metadata.name);
        put_text(&mut members, "namespace", &metadata.namespace);
        put_text(&mut members, "resourceVersion", &metadata.resource_version);
        for (name, labels) in [
            ("labels", &metadata.labels),
            ("annotations", &metadata.annotations),
        ] {
            if !labels.is_empty() {
                let labels = labels
                    .iter()
                    .map(|(key, value)| (key.clone(), value.clone().into()));
                members.insert(name.to_owned(), Value::Object(labels.collect()));
            }
        }
        document.insert("metadata".to_owned(), members.into());
    }
    if let Some(spec) = &message.spec {
        document.insert("spec".to_owned(), from_struct(spec));
    }
    Value::Object(document)
}

/// proto3 cannot tell an empty text from none.
fn put_text(members: &mut Map<String, Value>, name: &str, text: &str) {
    if !text.is_empty() {
        members.insert(name.to_owned(), text.into());
    }
}

/// A resource as a message, with the status given instead of its own.
pub fn to_message(resource: &Resource, status: Option<&Value>) -> api::Resource {
    let metadata = &resource.metadata;
    let spec = serde_json::to_value(&resource.spec).unwrap_or_default();
    api::Resource {
        api_version: API_VERSION.to_owned(),
        kind: resource.kind().as_str().to_owned(),
        metadata: Some(api::ObjectMeta {
            name: metadata.name.clone(),
            namespace: metadata.namespace.clone(),
            labels: to_map(&metadata.labels),
            annotations: to_map(&metadata.annotations),
            resource_version: metadata.resource_version.clone().unwrap_or_default(),
            generation: metadata.generation,
            creation_timestamp: metadata.creation_timestamp.map(to_timestamp),
            uid: metadata.uid.clone().unwrap_or_default(),
        }),
        spec: to_struct(&spec),
        status: status.and_then(to_struct),
    }
}

fn to_map(labels: &Labels) -> std::collections::HashMap<String, String> {
    labels
        .iter()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn to_timestamp(time: jiff::Timestamp) -> Timestamp {
    Timestamp {
        seconds: time.as_second(),
        nanos: time.subsec_nanosecond(),
    }
}

/// A key as a message.
pub fn to_ref(key: &ResourceKey) -> api::ResourceRef {
    api::ResourceRef {
        kind: key.kind.as_str().to_owned(),
        namespace: key.namespace.clone(),
        name: key.name.clone(),
    }
}

/// A JSON object as a message; `None` for any other value.
pub fn to_struct(value: &Value) -> Option<Struct> {
    let Value::Object(members) = value else {
        return None;
    };
    let fields: BTreeMap<_, _> = members
        .iter()
        .map(|(name, value)| (name.clone(), to_value(value)))
        .collect();
    Some(Struct { fields })
}

fn to_value(value: &Value) -> ProtoValue {
    let kind = match value {
        Value::Null => ProtoKind::NullValue(0),
        Value::Bool(value) => ProtoKind::BoolValue(*value),
        Value::Number(value) => ProtoKind::NumberValue(value.as_f64().unwrap_or_default()),
        Value::String(value) => ProtoKind::StringValue(value.clone()),
        Value::Array(items) => ProtoKind::ListValue(prost_types::ListValue {
            values: items.iter().map(to_value).collect(),
        }),
        Value::Object(_) => ProtoKind::StructValue(to_struct(value).unwrap_or_default()),
    };
    ProtoValue { kind: Some(kind) }
}

/// A message as a JSON object. Whole numbers become integers.
pub fn from_struct(message: &Struct) -> Value {
    let members = message
        .fields
        .iter()
        .map(|(name, value)| (name.clone(), from_value(value)));
    Value::Object(members.collect())
}

fn from_value(value: &ProtoValue) -> Value {
    match &value.kind {
        None | Some(ProtoKind::NullValue(_)) => Value::Null,
        Some(ProtoKind::BoolValue(value)) => Value::Bool(*value),
        Some(ProtoKind::NumberValue(value)) => from_number(*value),
        Some(ProtoKind::StringValue(value)) => Value::String(value.clone()),
        Some(ProtoKind::ListValue(list)) => list.values.iter().map(from_value).collect(),
        Some(ProtoKind::StructValue(members)) => from_struct(members),
    }
}

fn from_number(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() <= MAX_EXACT {
        // Exact: checked above.
        let whole = number as i64;
        return u64::try_from(whole).map_or_else(|_| whole.into(), Value::from);
    }
    // JSON has no NaN and no infinity. As a text it is refused by name, where a number belongs.
    Number::from_f64(number).map_or_else(|| Value::String(number.to_string()), Value::Number)
}

#[cfg(test)]
mod tests;
