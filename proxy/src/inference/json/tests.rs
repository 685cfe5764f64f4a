#![allow(clippy::unwrap_used)]
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Flaw, MAX_DEPTH, Reader};

fn skipped(text: &str) -> Result<bool, Flaw> {
    let mut reader = Reader::new(text.as_bytes());
    reader.skip().map(|()| reader.is_done())
}

#[test]
fn members_are_found_and_all_else_is_skipped() {
    let text = r#" {"a": [1, {"model": "no"}, "]}"], "model" : "org\/\"x\"", "n":3,"stream":true,"b":null} "#;
    let mut reader = Reader::new(text.as_bytes());
    let (mut model, mut number, mut stream) = (None, None, None);
    reader
        .object(|key, value| {
            match key.one_of(&["model", "n", "stream"]) {
                Some(0) => model = value.maybe_text()?.and_then(|text| text.decode()),
                Some(1) => number = value.maybe_number()?,
                Some(2) => stream = value.maybe_bool()?,
                _ => value.skip()?,
            }
            Ok(())
        })
        .unwrap();
    assert!(reader.is_done());
    assert_eq!(model.as_deref(), Some("org/\"x\""));
    assert_eq!((number, stream), (Some(3), Some(true)));
}

#[test]
fn a_key_is_what_it_says_and_not_how_it_is_written() {
    let mut reader = Reader::new(br#""mod\u0065l""#);
    assert!(reader.text().unwrap().is("model"));
}

#[test]
fn numbers_are_whole_and_bounded() {
    for (text, number) in [
        ("0", Some(0)),
        ("17", Some(17)),
        ("99999999999", Some(u32::MAX)),
        ("-1", None),
        ("1.5", None),
        ("1e3", None),
        ("\"1\"", None),
        ("null", None),
    ] {
        let found = Reader::new(text.as_bytes()).maybe_number();
        assert_eq!(found, Ok(number), "{text}");
    }
}

#[test]
fn what_has_no_end_or_another_one_is_refused() {
    for text in [
        "", "{", "[", "{]", "[}", "\"", "\"\\", "\"\\\"", "]", ",", "{\"a\":", "[1", "@",
    ] {
        assert_eq!(skipped(text), Err(Flaw::Malformed), "{text}");
    }
}

#[test]
fn depth_is_bounded() {
    let depth = MAX_DEPTH as usize;
    let fits = "[".repeat(depth) + &"]".repeat(depth);
    assert_eq!(skipped(&fits), Ok(true));
    assert_eq!(skipped(&"[".repeat(depth + 1)), Err(Flaw::TooDeep));
    assert_eq!(skipped(&"{\"a\":".repeat(depth + 1)), Err(Flaw::TooDeep));
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i16>().prop_map(|number| json!(f64::from(number) / 8.0)),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(any::<String>(), inner, 0..4).prop_map(Value::from_iter),
        ]
    })
}

proptest! {
    // Whatever the library writes is passed over as one value, and its members are those that it wrote.
    #[test]
    fn reads_what_the_library_writes(value in value(), pretty in any::<bool>()) {
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
        prop_assert_eq!(skipped(&text), Ok(true));
        if let Value::Object(members) = &value {
            let mut found = serde_json::Map::new();
            let mut reader = Reader::new(text.as_bytes());
            reader.object(|key, value| {
                let start = value.position();
                value.skip()?;
                let value = serde_json::from_str(&text[start..value.end()]).unwrap();
                found.insert(key.decode().unwrap().into_owned(), value);
                Ok(())
            }).unwrap();
            prop_assert_eq!(members, &found);
        }
    }

    #[test]
    fn never_panics(bytes in prop::collection::vec(prop_oneof![Just(b'"'), Just(b'\\'), Just(b'{'), Just(b'}'), Just(b'['), Just(b','), Just(b':'), any::<u8>()], 0..64)) {
        let mut reader = Reader::new(&bytes);
        while reader.skip().is_ok() {}
        let mut reader = Reader::new(&bytes);
        let _ = reader.object(|key, value| { let _ = key.decode(); value.skip() });
    }
}
