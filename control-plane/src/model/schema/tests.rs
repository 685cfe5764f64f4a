#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

use super::shape::{Object, Shape};
use super::{ROOT, check, spec_of};
use crate::model::testing::resource;
use crate::model::{Kind, Resource, decode, parse, validate};

fn full() -> Vec<Value> {
    let text = include_str!("testdata/full.yaml");
    serde_yaml::Deserializer::from_str(text)
        .map(|document| Value::deserialize(document).unwrap())
        .collect()
}

/// The tables, the types and the documentation of the resources agree: what says everything comes through whole.
#[test]
fn the_types_hold_every_field_of_the_tables() {
    for document in full() {
        let resource = decode(document.clone()).unwrap();
        assert_eq!(serde_json::to_value(&resource).unwrap(), document);
    }
}

#[test]
fn the_full_resources_are_full() {
    let documents = full();
    for kind in Kind::ALL.into_iter().filter(|kind| kind.is_user_written()) {
        let of_kind = documents
            .iter()
            .filter(|document| document["kind"] == kind.as_str());
        // Together: some fields exclude each other.
        let specs: Vec<&Value> = of_kind.map(|document| &document["spec"]).collect();
        let mut missing = BTreeSet::new();
        fields_missing(spec_of(kind), &specs, "spec", &mut missing);
        assert!(missing.is_empty(), "{kind}: {missing:?}");
    }
    assert!(
        full()
            .iter()
            .any(|document| document["metadata"]["uid"].is_string())
    );
    assert_eq!(
        ROOT.names(),
        ["apiVersion", "kind", "metadata", "spec", "status"]
    );
}

/// Collects the fields of a table that none of the values has. `retry` is full in one place.
fn fields_missing(object: &Object, values: &[&Value], at: &str, missing: &mut BTreeSet<String>) {
    for field in object.fields {
        let found: Vec<&Value> = values
            .iter()
            .filter_map(|value| value.get(field.name))
            .collect();
        let path = format!("{at}.{}", field.name);
        if found.is_empty() {
            if !at.ends_with("retry")
                || at.starts_with("spec.retry") && values[0].get("codes").is_some()
            {
                missing.insert(path);
            }
            continue;
        }
        let inner = match &field.shape {
            Shape::Object(inner) => Some((*inner, found)),
            Shape::List(list) => match &list.item {
                Shape::Object(inner) => Some((
                    *inner,
                    found
                        .iter()
                        .flat_map(|list| list.as_array().unwrap())
                        .collect(),
                )),
                _ => None,
            },
            _ => None,
        };
        if let Some((inner, found)) = inner {
            fields_missing(inner, &found, &path, missing);
        }
    }
}

#[test]
fn null_is_the_same_as_nothing() {
    let document = json!({
        "apiVersion": "outrigger.dev/v1alpha1", "kind": "Service", "metadata": {"name": "a", "labels": null},
        "spec": {"hosts": null, "ports": [{"port": 80, "protocol": "http", "name": null}], "timeouts": {"request": null}},
    });
    let resource = decode(document).unwrap();
    assert_eq!(resource.as_service().unwrap().hosts, Vec::<String>::new());
    let mesh = json!({"apiVersion": "outrigger.dev/v1alpha1", "kind": "Mesh", "metadata": {"name": "default"}, "spec": null});
    assert_eq!(decode(mesh).unwrap().metadata.namespace, "");
}

#[test]
fn lists_are_bounded() {
    let ports: Vec<Value> = (1..=65)
        .map(|port| json!({"port": port, "protocol": "http"}))
        .collect();
    let document = json!({
        "apiVersion": "outrigger.dev/v1alpha1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"ports": ports},
    });
    let problems = check(&document);
    assert_eq!(problems.len(), 1);
    assert_eq!(
        problems[0].to_string(),
        "spec.ports: the list has 65 items; at most 64 are allowed"
    );
}

#[test]
fn problems_are_bounded() {
    let hosts = vec![json!("A"); 250];
    let document = json!({
        "apiVersion": "outrigger.dev/v1alpha1", "kind": "Service", "metadata": {"name": "a"},
        "spec": {"ports": [{"port": 80, "protocol": "http"}], "hosts": hosts},
    });
    let problems = check(&document);
    assert_eq!(problems.len(), 101);
    assert_eq!(problems[100].to_string(), "399 more problems are not shown");
}

#[test]
fn regular_expressions_are_bounded() {
    let check = super::checks::regex;
    assert_eq!(check("/v[0-9]+/.*"), Ok(()));
    assert_eq!(check(r"[\w-]{12}"), Ok(()));
    assert!(
        check("a)|(b").is_err(),
        "it would escape from the brackets around it"
    );
    assert!(check("(?=a)b").unwrap_err().contains("look-around"));
    assert!(check(&"a".repeat(1025)).unwrap_err().contains("too long"));
    assert!(check("(a{1000}){1000}").unwrap_err().contains("too big"));
    assert!(!check("(").unwrap_err().contains('\n'));
}

#[test]
fn limits_that_cannot_be_meant() {
    let problems = |limits: Value| {
        let document = json!({
            "apiVersion": "outrigger.dev/v1alpha1", "kind": "Service", "metadata": {"name": "a"},
            "spec": {"ports": [{"port": 80, "protocol": "http"}], "limits": limits},
        });
        let problems = check(&document);
        problems.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        problems(json!({"queue": {"interval": "1ms"}, "requests": 0})),
        [
            "spec.limits.requests: expected a whole number from 1 to 1000000, found the number 0",
            "spec.limits.queue.interval: the target, 5ms, is longer than the interval, 1ms",
            "spec.limits.queue: does nothing without a limit of the concurrency; add for example concurrency: 200, or adaptive: {}",
        ]
    );
    let callers =
        json!([{"priority": "critical", "highest": "sheddable", "identities": ["spiffe://x"]}]);
    assert_eq!(
        problems(json!({
            "concurrency": 5, "adaptive": {"minLimit": 9, "maxLimit": 3}, "priorities": {"callers": callers},
        }))
        .len(),
        4
    );
    assert_eq!(
        problems(
            json!({"batch": {"size": 4, "learn": {"start": 9, "max": 3}}, "adaptive": {}, "queue": {"target": "1ms"}})
        ),
        [
            "spec.limits.batch.learn.max: 3 is less than start, which is 9",
            "spec.limits.batch.learn: cannot stand beside size: the batch is declared or learnt; remove one of the two",
            "spec.limits.batch: cannot stand beside concurrency or adaptive: there is one limit; keep one of them",
            "spec.limits.queue.target: plays no part with batch, where waits are bounded before they begin; remove it, and set maxWait",
            "spec.limits.batch: is for model servers, and this service has no inference; add for example inference: {engine: {}}, or use concurrency",
        ]
    );
    let neither = problems(json!({"batch": {}}));
    assert!(
        neither[0].ends_with("has neither size nor learn; add for example size: 32, or learn: {}"),
        "{neither:?}"
    );
    assert_eq!(
        problems(json!({"retries": 0, "concurrency": 1, "queue": {}})),
        Vec::<String>::new()
    );

    let limit = json!({"name": "x", "requests": 1, "per": "1s", "key": ["identity", "headers:x", "header:a b"]});
    let document = json!({
        "apiVersion": "outrigger.dev/v1alpha1", "kind": "RateLimit", "metadata": {"name": "a"},
        "spec": {"targetRefs": [{"name": "a"}], "limits": [limit]},
    });
    let problems = check(&document);
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert_eq!(
        problems[0].to_string(),
        "spec.limits[0].key[1]: \"headers:x\" is no part of a key; allowed are identity, namespace, path, method, model, tenant and header:<name>"
    );
}

proptest! {
    /// Whatever is valid comes back the same from a file.
    #[test]
    fn resources_round_trip(resource in resource()) {
        prop_assert_eq!(validate(&resource), []);
        let yaml = serde_yaml::to_string(&resource).unwrap();
        let parsed = parse("f.yaml", yaml.as_bytes());
        prop_assert!(parsed.problems.is_empty(), "{}\n{:?}", yaml, parsed.problems);
        let from_yaml = parsed.documents[0].resource.clone();
        prop_assert_eq!(&from_yaml, &resource);
        let json = serde_json::to_string(&from_yaml).unwrap();
        prop_assert_eq!(serde_json::from_str::<Resource>(&json).unwrap(), resource);
    }

    /// What passes the tables deserializes: the two cannot disagree about a value either.
    #[test]
    fn what_passes_deserializes(resource in resource(), at in any::<prop::sample::Index>(), new in odd_value()) {
        let mut document = serde_json::to_value(&resource).unwrap();
        let mut leaves = Vec::new();
        pointers(&document, String::new(), &mut leaves);
        *document.pointer_mut(at.get::<String>(&leaves)).unwrap() = new;
        match decode(document) {
            Ok(_) => {}
            // A message of serde's has no field: the tables let something through.
            Err(problems) => prop_assert!(problems.iter().all(|problem| !problem.field.is_empty()), "{:?}", problems),
        }
    }
}

fn odd_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec![
            "",
            "a",
            "1s",
            "0s",
            "80",
            "Exact",
            "http",
            "/",
            "*",
            "[::1]:1",
            "spiffe://a/b"
        ])
        .prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
        Just(json!([{}])),
        Just(json!({"name": "x"})),
    ]
}

fn pointers(value: &Value, at: String, all: &mut Vec<String>) {
    match value {
        Value::Object(members) => members.iter().for_each(|(name, value)| {
            pointers(
                value,
                format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")),
                all,
            )
        }),
        Value::Array(items) => {
            items
                .iter()
                .enumerate()
                .for_each(|(index, value)| pointers(value, format!("{at}/{index}"), all));
        }
        _ => {}
    }
    if !at.is_empty() {
        all.push(at);
    }
}
