use outrigger_proto::dataplane::v1 as wire;
use wire::resource::Body;

use super::super::Shared;

fn endpoints(labels: usize, weight: u32) -> Body {
    let labels = (0..labels).map(|it| (format!("label-{it}"), format!("value-{it}")));
    Body::Endpoints(wire::Endpoints {
        service: "default/chat".to_owned(),
        endpoints: vec![wire::Endpoint {
            address: "10.0.0.1:1".to_owned(),
            labels: labels.collect(),
            weight,
            ..Default::default()
        }],
        dns: Vec::new(),
    })
}

#[test]
fn equal_content_has_equal_versions_in_whatever_order_maps_are() {
    // Each map is made anew, with a random order of its own.
    let version = || Shared::new("endpoints/default/chat", endpoints(30, 1)).version;
    let first = version();
    for _ in 0..20 {
        assert_eq!(version(), first);
    }
}

#[test]
fn any_difference_makes_another_version() {
    let version = |labels, weight| Shared::new("x", endpoints(labels, weight)).version;
    let versions = [version(0, 1), version(1, 1), version(2, 1), version(0, 2)];
    for (index, one) in versions.iter().enumerate() {
        assert!(*one != 0);
        assert!(!versions[index + 1..].contains(one));
    }
    let label = |key: &str, value: &str| {
        let Body::Endpoints(mut body) = endpoints(0, 1) else {
            unreachable!()
        };
        body.endpoints[0]
            .labels
            .insert(key.to_owned(), value.to_owned());
        Shared::new("x", Body::Endpoints(body)).version
    };
    assert_ne!(label("a", "bc"), label("ab", "c"));
}

#[test]
fn a_label_does_not_wander_between_endpoints_unseen() {
    let two = |first: bool| {
        let Body::Endpoints(mut body) = endpoints(0, 1) else {
            unreachable!()
        };
        body.endpoints.push(body.endpoints[0].clone());
        body.endpoints[usize::from(!first)]
            .labels
            .insert("a".to_owned(), "b".to_owned());
        Shared::new("x", Body::Endpoints(body)).version
    };
    assert_ne!(two(true), two(false));
}
