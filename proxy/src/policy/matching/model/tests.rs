use proptest::prelude::*;

use super::{ModelMatch, glob};

#[test]
fn a_star_stands_for_any_characters() {
    for (pattern, name, fits) in [
        ("*", "", true),
        ("*", "org/tiny", true),
        ("tiny-*", "tiny-", true),
        ("tiny-*", "tiny", false),
        ("*/tiny", "org/tiny", true),
        ("*/tiny", "org/tiny-2", false),
        ("a*b*c", "abc", true),
        ("a*b*c", "a-b-b-c", true),
        ("a*b*c", "acb", false),
        ("ab*ba", "aba", false),
        ("ab*ba", "abba", true),
        ("**", "x", true),
        ("a**a", "aa", true),
        ("a**a", "a", false),
    ] {
        assert_eq!(
            ModelMatch::pattern(pattern).matches(name),
            fits,
            "{pattern} {name}"
        );
    }
}

#[test]
fn an_exact_name_is_no_pattern() {
    let exact = ModelMatch::Exact("tiny-*".into());
    assert!(exact.matches("tiny-*"));
    assert!(!exact.matches("tiny-2"));
}

/// The same, said the slow way.
fn slowly(pattern: &[u8], name: &[u8]) -> bool {
    match pattern.split_first() {
        None => name.is_empty(),
        Some((b'*', rest)) => (0..=name.len()).any(|at| slowly(rest, &name[at..])),
        Some((byte, rest)) => name
            .split_first()
            .is_some_and(|(first, name)| first == byte && slowly(rest, name)),
    }
}

proptest! {
    #[test]
    fn is_what_a_star_means(pattern in "[ab*]{0,6}", name in "[ab]{0,8}") {
        prop_assert_eq!(glob(&pattern, &name), slowly(pattern.as_bytes(), name.as_bytes()));
    }
}
