#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn exact(name: &str, value: &str) -> QueryParamMatch {
    QueryParamMatch {
        name: name.into(),
        value: StringMatch::exact(value),
    }
}

#[test]
fn the_first_value_counts() {
    let gold = exact("tier", "gold");
    assert!(gold.matches("tier=gold"));
    assert!(gold.matches("a=b&tier=gold&tier=free"));
    assert!(!gold.matches("tier=free&tier=gold"));
    assert!(!gold.matches(""));
    assert!(!gold.matches("tier"));
    assert!(!gold.matches("tier=golden"));
    assert!(!gold.matches("xtier=gold"));
    assert!(!gold.matches("Tier=gold"), "case matters");
    assert!(!gold.matches("tier;x=1&y=tier=gold"));
    assert!(exact("a", "b=c").matches("a=b=c"));
    assert!(exact("a", "").matches("a&b"));
    assert!(exact("a", "").matches("&&a="));
}

#[test]
fn names_and_values_are_decoded() {
    let plan = exact("the plan", "gold & 100%");
    assert!(plan.matches("the+plan=gold+%26+100%25"));
    assert!(plan.matches("the%20plan=gold%20%26%20100%"));
    assert!(plan.matches("%74he%20plan=%67old%20%26%20100%25"));
    assert!(!plan.matches("the plan=gold"));
    // No escapes: they stand for themselves.
    assert!(exact("a", "%zz%4").matches("a=%zz%4"));
    let regex = QueryParamMatch {
        name: "user".into(),
        value: StringMatch::regex("a b[0-9]+").unwrap(),
    };
    assert!(regex.matches("user=a+b42"));
    assert!(regex.matches("user=a%20b%34%32"));
    assert!(!regex.matches("user=a+b42x"));
}

proptest! {
    /// Whatever a client escapes, the rule is the same.
    #[test]
    fn the_way_it_is_written_does_not_matter(
        name in "[ -~]{1,8}",
        value in "\\PC{0,12}",
        escaped in prop::collection::vec(any::<bool>(), 100),
    ) {
        let mut choice = escaped.iter().cycle();
        let mut encode = |text: &str| {
            let mut out = String::new();
            for byte in text.bytes() {
                if byte.is_ascii_alphanumeric() && *choice.next().unwrap() {
                    out.push(char::from(byte));
                } else {
                    out.push_str(&format!("%{byte:02x}"));
                }
            }
            out
        };
        let query = format!("x=y&{}={}&z", encode(&name), encode(&value));
        prop_assume!(name != "x");
        prop_assert!(exact(&name, &value).matches(&query));
    }

    #[test]
    fn no_query_makes_it_panic(query in "[%+&=;a-c0-9\\PC]{0,40}") {
        let _ = exact("a", "b").matches(&query);
    }
}
