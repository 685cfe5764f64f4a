#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use prost_types::value::Kind as ProtoKind;
use prost_types::{Struct, Value as ProtoValue};
use serde_json::{Value, json};

use super::{from_struct, to_document, to_message, to_struct};
use crate::model::decode;
use crate::model::testing::resource;

fn number(number: f64) -> Value {
    let fields = [(
        "n".to_owned(),
        ProtoValue {
            kind: Some(ProtoKind::NumberValue(number)),
        },
    )];
    from_struct(&Struct {
        fields: fields.into(),
    })["n"]
        .clone()
}

#[test]
fn whole_numbers_become_integers() {
    assert_eq!(number(80.0), json!(80));
    assert_eq!(number(-0.0), json!(0));
    assert_eq!(number(-3.0), json!(-3));
    assert_eq!(number(0.5), json!(0.5));
    assert_eq!(
        number(9_007_199_254_740_992.0),
        json!(9_007_199_254_740_992_u64)
    );
    assert!(number(1e300).is_f64());
    assert_eq!(number(f64::NAN), json!("NaN"));
    assert_eq!(number(f64::INFINITY), json!("inf"));
}

#[test]
fn only_mappings_are_structs() {
    assert_eq!(to_struct(&json!([1])), None);
    let value = json!({"a": null, "b": [true, "x", {"c": 1.5}], "d": {}});
    assert_eq!(from_struct(&to_struct(&value).unwrap()), value);
}

#[test]
fn what_only_the_control_plane_sets_is_left_out() {
    let text = include_str!("../../model/schema/testdata/full.yaml");
    let stored = crate::model::parse("f.yaml", text.as_bytes())
        .documents
        .remove(1)
        .resource;
    let status = json!({"acceptedBy": 2});
    let message = to_message(&stored, Some(&status));
    assert_eq!(from_struct(message.status.as_ref().unwrap()), status);
    let metadata = message.metadata.as_ref().unwrap();
    assert_eq!(
        (
            metadata.generation,
            metadata.creation_timestamp.unwrap().seconds
        ),
        (3, 1_795_176_000)
    );
    let document = to_document(&message);
    assert_eq!(
        document["metadata"],
        json!({"name": "chat", "namespace": "models", "resourceVersion": "12"})
    );
    assert!(document.get("status").is_none());
}

proptest! {
    #[test]
    fn resources_round_trip(resource in resource()) {
        let back = decode(to_document(&to_message(&resource, None)));
        prop_assert_eq!(back, Ok(resource));
    }
}
