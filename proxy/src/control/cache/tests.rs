#![allow(clippy::unwrap_used)]
use prost::Message as _;

use super::{CacheError, FILE, encode, load, save};
use crate::control::testing::{endpoint, endpoints, host, service};
use crate::identity::SpiffeId;

fn id(account: &str) -> SpiffeId {
    SpiffeId::new("outrigger.local", "default", account).unwrap()
}

#[test]
fn what_is_saved_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    assert!(load(dir.path(), &id("chat")).unwrap().is_none());
    let resources = vec![
        host("chat", "default/chat", 3),
        service("default", "chat", 4),
        endpoints("default/chat", 5, vec![endpoint("10.0.0.1:80", "a")]),
    ];
    let encoded: Vec<_> = resources
        .iter()
        .map(prost::Message::encode_to_vec)
        .collect();
    let content = encode(&id("chat"), 7, encoded.iter().map(Vec::as_slice));
    save(dir.path(), &content).unwrap();
    let delta = load(dir.path(), &id("chat")).unwrap().unwrap();
    assert_eq!(delta.version, 7);
    assert_eq!(delta.resources, resources);
    assert!(matches!(
        load(dir.path(), &id("other")),
        Err(CacheError::Identity { .. })
    ));
}

#[test]
fn every_damage_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let resource = service("default", "chat", 4).encode_to_vec();
    let content = encode(&id("chat"), 7, [resource.as_slice()].into_iter());
    let damaged = |content: &[u8]| {
        std::fs::write(dir.path().join(FILE), content).unwrap();
        load(dir.path(), &id("chat")).is_err()
    };
    assert!(!damaged(&content));
    for end in 0..content.len() {
        assert!(damaged(&content[..end]), "cut at {end}");
    }
    for at in 0..content.len() {
        let mut changed = content.clone();
        changed[at] ^= 0x20;
        assert!(damaged(&changed), "changed at {at}");
    }
}
