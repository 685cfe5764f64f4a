#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn parses_its_own_form_and_names_the_parts() {
    let id: SpiffeId = "spiffe://outrigger.local/ns/shop/sa/chat".parse().unwrap();
    assert_eq!(id.trust_domain(), "outrigger.local");
    assert_eq!(id.namespace(), "shop");
    assert_eq!(id.account(), "chat");
    assert_eq!(id.to_string(), "spiffe://outrigger.local/ns/shop/sa/chat");
    assert_eq!(
        id,
        SpiffeId::new("outrigger.local", "shop", "chat").unwrap()
    );
}

#[test]
fn administrators_are_known_by_namespace_and_account() {
    assert!(
        SpiffeId::new("td", "outrigger-system", "admin")
            .unwrap()
            .is_admin()
    );
    assert!(!SpiffeId::new("td", "default", "admin").unwrap().is_admin());
    assert!(
        !SpiffeId::new("td", "outrigger-system", "control-plane")
            .unwrap()
            .is_admin()
    );
}

#[test]
fn refuses_other_forms() {
    for text in [
        "",
        "spiffe://",
        "spiffe://td",
        "spiffe://td/ns/a",
        "spiffe://td/ns/a/sa/",
        "spiffe://td/ns//sa/b",
        "spiffe:///ns/a/sa/b",
        "spiffe://TD/ns/a/sa/b",
        "spiffe://td/ns/a/sa/b/c",
        "spiffe://td/ns/a/b/sa/c",
        "spiffe://td:80/ns/a/sa/b",
        "spiffe://td/ns/a/sa/b?x",
        "spiffe://td/ns/A/sa/b",
        "spiffe://td/ns/a/sa/-b",
        "https://td/ns/a/sa/b",
        "spiffe://td/ns/a/sa/b/sa/c",
    ] {
        assert!(text.parse::<SpiffeId>().is_err(), "{text:?} was accepted");
    }
}
