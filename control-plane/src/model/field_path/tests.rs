#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::{FieldPath, Segment};

fn segment() -> impl Strategy<Value = Segment> {
    prop_oneof![
        any::<usize>().prop_map(Segment::Item),
        "[a-zA-Z0-9_-]{1,8}".prop_map(Segment::Field),
        "\\PC{0,8}".prop_map(Segment::Field),
        "[\\[\\]\"\\\\.]{0,4}".prop_map(Segment::Field),
    ]
}

#[test]
fn writes_what_people_expect() {
    let path = FieldPath::parse("spec.rules[0].timeouts.request").unwrap();
    assert_eq!(path.0.len(), 5);
    assert_eq!(path.0[2], Segment::Item(0));
    let path = FieldPath(vec![
        Segment::Field("metadata".into()),
        Segment::Field("labels".into()),
        Segment::Field("example.com/team".into()),
    ]);
    assert_eq!(path.to_string(), r#"metadata.labels["example.com/team"]"#);
}

proptest! {
    #[test]
    fn round_trips(segments in prop::collection::vec(segment(), 0..6)) {
        let path = FieldPath(segments);
        prop_assert_eq!(FieldPath::parse(&path.to_string()), Some(path));
    }

    #[test]
    fn never_panics(text in "\\PC{0,40}|[\\[\\]\"\\\\.a0]{0,20}") {
        let _ = FieldPath::parse(&text);
    }
}
