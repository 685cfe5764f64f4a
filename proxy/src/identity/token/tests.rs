#![allow(clippy::unwrap_used)]
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::{InvalidToken, JoinToken, PREFIX};

const ID: &str = "spiffe://outrigger.local/ns/default/sa/chat";

fn token(content: serde_json::Value) -> String {
    format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(content.to_string()))
}

fn content() -> serde_json::Value {
    json!({
        "id": "0123456789abcdef",
        "secret": "c2VjcmV0",
        "ca": "00ff".repeat(16),
        "td": "outrigger.local",
        "id_for": ID,
    })
}

#[test]
fn a_good_token() {
    let text = token(content());
    let token = JoinToken::parse(&format!("  {text}\n")).unwrap();
    assert_eq!(token.as_str(), text);
    assert_eq!(token.id.as_str(), ID);
    assert_eq!(token.root_sha256[..4], [0x00, 0xff, 0x00, 0xff]);
}

#[test]
fn every_cut_of_a_token_is_refused() {
    let text = token(content());
    for end in 0..text.len() {
        assert!(
            JoinToken::parse(&text[..end]).is_err(),
            "cut at {end} was accepted"
        );
    }
}

#[test]
fn what_is_wrong_is_named() {
    let with = |field: &str, value: &str| {
        let mut content = content();
        content[field] = value.into();
        JoinToken::parse(&token(content)).unwrap_err()
    };
    assert_eq!(with("ca", "00ff"), InvalidToken::Fingerprint);
    assert_eq!(with("ca", &"+1".repeat(32)), InvalidToken::Fingerprint);
    assert!(matches!(with("id_for", "chat"), InvalidToken::Identity(_)));
    assert!(matches!(
        with("td", "other.local"),
        InvalidToken::TrustDomain { .. }
    ));
    assert_eq!(JoinToken::parse("hello").unwrap_err(), InvalidToken::Prefix);
    assert_eq!(
        JoinToken::parse(&format!("{PREFIX}{}", "A".repeat(5000))).unwrap_err(),
        InvalidToken::Damaged
    );
}

#[test]
fn a_token_is_not_shown() {
    let text = token(content());
    let token = JoinToken::parse(&text).unwrap();
    assert!(!format!("{token:?}").contains(&text[PREFIX.len()..]));
}
