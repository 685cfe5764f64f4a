#![allow(clippy::unwrap_used)]

use http::HeaderValue;

use super::*;

#[test]
fn nobody_raises_himself_above_what_he_is_given() {
    let caller = |pattern: &str, priority, highest| CallerPriority {
        identities: vec![pattern.parse().unwrap()],
        priority,
        highest,
    };
    let priorities = Priorities {
        header: HeaderName::from_static("x-outrigger-priority"),
        reserved: 10,
        callers: vec![
            caller(
                "spiffe://mesh/ns/a/sa/ui",
                Priority::Critical,
                Priority::Critical,
            ),
            caller(
                "spiffe://mesh/ns/a/sa/gateway",
                Priority::Default,
                Priority::Critical,
            ),
            caller(
                "spiffe://mesh/ns/batch/sa/*",
                Priority::Sheddable,
                Priority::Sheddable,
            ),
        ],
    };
    let of = |id: Option<&str>, asked: &str| {
        let mut headers = HeaderMap::new();
        if !asked.is_empty() {
            let value = HeaderValue::from_str(asked).unwrap();
            headers.insert("x-outrigger-priority", value);
        }
        let id = id.map(|id| id.parse().unwrap());
        priorities.of(id.as_ref(), &headers).as_str()
    };
    let (ui, gateway) = ("spiffe://mesh/ns/a/sa/ui", "spiffe://mesh/ns/a/sa/gateway");
    assert_eq!(of(Some(ui), ""), "critical");
    assert_eq!(of(Some(ui), "sheddable"), "sheddable");
    assert_eq!(of(Some(gateway), ""), "default");
    assert_eq!(of(Some(gateway), "critical"), "critical");
    assert_eq!(
        of(Some("spiffe://mesh/ns/batch/sa/x"), "critical"),
        "sheddable"
    );
    assert_eq!(of(Some("spiffe://mesh/ns/b/sa/x"), "critical"), "default");
    assert_eq!(of(None, "critical"), "default");
    assert_eq!(of(None, "sheddable"), "sheddable");
    assert_eq!(of(Some(ui), "most important"), "critical");
}
