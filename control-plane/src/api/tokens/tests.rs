#![allow(clippy::unwrap_used)]

use std::sync::Barrier;

use rcgen::{CertificateParams, KeyPair};

use super::*;
use crate::ca::init::CaMode;
use crate::store::RedbStore;

fn stored(token: &JoinToken, max_uses: u32, expires_at: u64) -> Value {
    write(&Stored {
        secret_sha256: hex(&token.secret_hash()),
        spiffe_id: token.id_for.clone(),
        created_at: 0,
        expires_at,
        max_uses,
        uses: 0,
    })
}

#[test]
fn threads_that_race_get_as_many_certificates_as_the_token_has_uses() {
    let (directory, ca) = crate::ca::tests::ca(CaMode::Root);
    let store = RedbStore::open(&directory.path().join("store.redb"), "outrigger.local").unwrap();
    let id = "spiffe://outrigger.local/ns/default/sa/chat";
    let csr = CertificateParams::default()
        .serialize_request(&KeyPair::generate().unwrap())
        .unwrap();
    for uses in 1..=5 {
        let token = JoinToken::generate(ca.fingerprint(), "outrigger.local", id);
        store
            .put_token(&token.id, &stored(&token, uses, u64::MAX))
            .unwrap();
        let text = token.encode();
        let start = Barrier::new(8);
        let won = std::thread::scope(|scope| {
            let attempt = || {
                start.wait();
                join(&store, &ca, &text, csr.der(), Duration::ZERO).is_ok()
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(attempt)).collect();
            threads
                .into_iter()
                .map(|it| it.join().unwrap())
                .filter(|won| *won)
                .count()
        });
        assert_eq!(won, usize::try_from(uses).unwrap());
        let left = read(store.get_token(&token.id).unwrap().unwrap()).unwrap();
        assert_eq!(left.uses, uses);
    }
}

#[test]
fn a_use_is_counted_against_what_is_stored_at_that_moment() {
    let token = JoinToken::generate("ab", "td", "spiffe://td/ns/a/sa/b");
    let mut value = stored(&token, 2, u64::MAX);
    count_use(&mut value).unwrap();
    count_use(&mut value).unwrap();
    assert!(matches!(count_use(&mut value), Err(JoinError::UsedUp)));
    let mut value = stored(&token, 2, 1);
    assert!(matches!(count_use(&mut value), Err(JoinError::Expired)));
    let mut value = Value::Null;
    assert!(matches!(count_use(&mut value), Err(JoinError::Damaged(_))));
}

#[test]
fn tokens_that_expired_long_ago_are_cleaned_away() {
    let directory = tempfile::tempdir().unwrap();
    let store = RedbStore::open(&directory.path().join("store.redb"), "outrigger.local").unwrap();
    let put = |ago: Duration| {
        let token = JoinToken::generate("ab", "td", "x");
        let expired = millis(SystemTime::now() - ago);
        store
            .put_token(&token.id, &stored(&token, 1, expired))
            .unwrap();
        token.id
    };
    let recent = put(Duration::from_secs(3600));
    put(KEEP_EXPIRED + Duration::from_secs(60));
    prune(&store).unwrap();
    let left: Vec<String> = store
        .list_tokens()
        .unwrap()
        .into_iter()
        .map(|(id, _)| id)
        .collect();
    assert_eq!(left, [recent]);
}
