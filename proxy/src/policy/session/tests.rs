#![allow(clippy::unwrap_used)]

use super::*;

const NOW: u64 = 1_800_000_000;

fn endpoint(address: &str) -> Arc<Endpoint> {
    Arc::new(Endpoint {
        address: address.parse().unwrap(),
        mtls: true,
        identity: None,
        ports: Box::default(),
        labels: Default::default(),
        weight: 1,
        zone: "".into(),
        instance: "".into(),
        outside: None,
        load: Arc::default(),
        health: Arc::default(),
    })
}

fn session(key: &[u8], absolute_timeout: Option<u64>, endpoints: &[&Arc<Endpoint>]) -> Session {
    let settings = SessionSettings {
        carrier: Carrier::Header(HeaderName::from_static("x-session")),
        absolute_timeout: absolute_timeout.map(Duration::from_secs),
        permanent: false,
        key: hmac::Key::new(hmac::HMAC_SHA256, key),
    };
    let mut session = Session::new(settings, &[], Arc::default());
    for (index, endpoint) in endpoints.iter().enumerate() {
        let tag = tag(&session.settings.key, endpoint);
        session.by_tag.insert(tag, (index, Arc::clone(endpoint)));
    }
    session
}

fn found(session: &Session, token: &str, now: u64) -> Option<usize> {
    match session.read(token.as_bytes(), now) {
        Token::Of(backend, _) => Some(backend),
        _ => None,
    }
}

#[test]
fn a_token_names_its_endpoint_to_who_has_the_key() {
    let (one, two) = (endpoint("10.0.0.1:80"), endpoint("[fd00::1]:80"));
    let ours = session(&[1; 32], None, &[&one, &two]);
    let token = ours.write(&two, NOW).unwrap();
    assert_eq!(found(&ours, &token, NOW), Some(1));
    assert_ne!(token, ours.write(&one, NOW).unwrap());
    // Another sidecar of the mesh, with the endpoints in another order.
    let other = session(&[1; 32], None, &[&two, &one]);
    assert_eq!(found(&other, &token, NOW), Some(0));
    // Another key: the token says nothing.
    let stranger = session(&[2; 32], None, &[&one, &two]);
    assert!(matches!(stranger.read(token.as_bytes(), NOW), Token::Gone));
    // The endpoint is gone.
    let later = session(&[1; 32], None, &[&one]);
    assert!(matches!(later.read(token.as_bytes(), NOW), Token::Gone));
    assert!(later.write(&two, NOW).is_none(), "not one of the rule's");
}

#[test]
fn what_is_no_token_is_none() {
    let one = endpoint("10.0.0.1:80");
    let plain = session(&[1; 32], None, &[&one]);
    let timed = session(&[1; 32], Some(60), &[&one]);
    let token = plain.write(&one, NOW).unwrap();
    for text in [
        "",
        "x",
        "zz",
        "\u{e4}",
        &token[1..],
        &format!("{token}00"),
        &"g".repeat(16),
    ] {
        assert!(
            matches!(plain.read(text.as_bytes(), NOW), Token::None),
            "{text:?}"
        );
        assert!(
            matches!(timed.read(text.as_bytes(), NOW), Token::None),
            "{text:?}"
        );
    }
    // Of the time before there was a timeout.
    assert!(matches!(timed.read(token.as_bytes(), NOW), Token::None));
}

#[test]
fn a_token_is_good_until_its_time_and_cannot_be_made_longer() {
    let one = endpoint("10.0.0.1:80");
    let timed = session(&[1; 32], Some(60), &[&one]);
    let token = timed.write(&one, NOW).unwrap();
    assert_eq!(found(&timed, &token, NOW + 59), Some(0));
    assert!(matches!(
        timed.read(token.as_bytes(), NOW + 60),
        Token::Expired
    ));
    for place in 0..token.len() {
        let mut forged = token.clone().into_bytes();
        forged[place] = if forged[place] == b'0' { b'1' } else { b'0' };
        assert!(
            matches!(timed.read(&forged, NOW + 60), Token::None),
            "digit {place}"
        );
    }
}
