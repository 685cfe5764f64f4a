#![allow(clippy::unwrap_used)]
use super::{SpiffeId, SpiffePattern};

#[test]
fn parts_of_an_id() {
    let id: SpiffeId = "spiffe://outrigger.local/ns/default/sa/chat"
        .parse()
        .unwrap();
    assert_eq!(id.trust_domain(), "outrigger.local");
    assert_eq!(id.namespace(), "default");
    assert_eq!(id.account(), "chat");
    assert_eq!(
        id,
        SpiffeId::new("outrigger.local", "default", "chat").unwrap()
    );
}

#[test]
fn administrators_are_known_by_namespace_and_account() {
    let is_admin = |namespace, account| SpiffeId::new("td", namespace, account).unwrap().is_admin();
    assert!(is_admin("outrigger-system", "admin"));
    assert!(!is_admin("default", "admin"));
    assert!(!is_admin("outrigger-system", "control-plane"));
}

#[test]
fn other_forms_are_refused() {
    for text in [
        "",
        "spiffe://",
        "http://outrigger.local/ns/default/sa/chat",
        "spiffe://outrigger.local/ns/default",
        "spiffe://outrigger.local/ns/default/sa/",
        "spiffe://outrigger.local/ns//sa/chat",
        "spiffe://Outrigger.local/ns/default/sa/chat",
        "spiffe://outrigger.local/ns/default/sa/chat/more",
        "spiffe://outrigger.local/ns/default/sa/chat?x",
        "spiffe://outrigger.local:80/ns/default/sa/chat",
        "spiffe://outrigger.local/ns/a/ns/b/sa/chat",
        "spiffe://outrigger.local/ns/default/sa/..",
    ] {
        assert!(text.parse::<SpiffeId>().is_err(), "{text:?} was accepted");
    }
}

#[test]
fn patterns() {
    let chat: SpiffeId = "spiffe://outrigger.local/ns/default/sa/chat"
        .parse()
        .unwrap();
    let allows = |text: &str| text.parse::<SpiffePattern>().unwrap().matches(&chat);
    assert!(allows("spiffe://outrigger.local/ns/default/sa/chat"));
    assert!(allows("spiffe://outrigger.local/ns/default/sa/*"));
    assert!(!allows("spiffe://outrigger.local/ns/default/*"));
    assert!(!allows("spiffe://outrigger.local/*"));
    assert!(!allows("spiffe://outrigger.local/ns/other/sa/*"));
    assert!(!allows("spiffe://outrigger.local/ns/default/sa/cha"));
    assert!(!allows("spiffe://outrigger.local/ns/def/*"));
    assert!(!allows("spiffe://outrigger.loca/*"));
    for text in [
        "*",
        "/*",
        "spiffe:///*",
        "spiffe://*",
        "spiffe://a/*/sa/*",
        "spiffe://a/ns/b/sa/c*",
    ] {
        assert!(
            text.parse::<SpiffePattern>().is_err(),
            "{text:?} was accepted"
        );
    }
}
