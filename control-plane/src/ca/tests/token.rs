use crate::ca::token::*;

#[test]
fn survives_the_way_through_text() {
    let token = JoinToken::generate(
        "ab12",
        "outrigger.local",
        "spiffe://outrigger.local/ns/default/sa/chat",
    );
    let text = token.encode();
    assert!(text.starts_with("outrigger-join-v1."), "{text}");
    assert_eq!(JoinToken::decode(&format!("  {text}\n")).unwrap(), token);
    assert_eq!(token.id.len(), 16);
}

#[test]
fn says_what_is_wrong_with_a_text() {
    let text = JoinToken::generate("ab", "td", "x").encode();
    assert_eq!(JoinToken::decode("hunter2"), Err(InvalidToken::Prefix));
    assert_eq!(
        JoinToken::decode(&text[..text.len() - 3]),
        Err(InvalidToken::Damaged)
    );
    assert_eq!(JoinToken::decode(PREFIX), Err(InvalidToken::Damaged));
    assert_eq!(
        JoinToken::decode(&format!("{PREFIX}{}", "A".repeat(100_000))),
        Err(InvalidToken::Damaged)
    );
}

#[test]
fn the_secret_shows_in_no_debug_output() {
    let token = JoinToken::generate("ab", "td", "x");
    assert!(!format!("{token:?}").contains(&token.secret));
}

#[test]
fn hashes_tell_secrets_apart() {
    let one = JoinToken::generate("ab", "td", "x");
    let other = JoinToken::generate("ab", "td", "x");
    assert!(same_hash(&one.secret_hash(), &secret_hash(&one.secret)));
    assert!(!same_hash(&one.secret_hash(), &other.secret_hash()));
    assert!(!same_hash(&one.secret_hash(), &one.secret_hash()[..31]));
}
