#![allow(clippy::unwrap_used)]
use bytes::Bytes;

use super::salt;
use crate::identity::SpiffeId;
use crate::inference::api::Api;
use crate::inference::probe;
use crate::inference::request::ModelRequest;
use crate::policy::IsolatedBy::{Identity, Namespace};

fn id(namespace: &str, account: &str) -> SpiffeId {
    let id = format!("spiffe://outrigger.local/ns/{namespace}/sa/{account}");
    id.parse().unwrap()
}

#[test]
fn who_has_which_salt() {
    let (one, two, far) = (id("a", "one"), id("a", "two"), id("b", "one"));
    let of = |by, id: &SpiffeId| salt(by, Some(id), None);
    assert_ne!(of(Identity, &one), of(Identity, &two));
    assert_ne!(of(Identity, &one), of(Identity, &far));
    assert_eq!(of(Namespace, &one), of(Namespace, &two));
    assert_ne!(of(Namespace, &one), of(Namespace, &far));
    assert_ne!(of(Identity, &one), of(Namespace, &one));
    let nobody = salt(Identity, None, None);
    assert_ne!(nobody, of(Identity, &one));
    assert_eq!(nobody, salt(Namespace, None, None));
    // All replicas, of all versions, have to agree.
    assert_eq!(
        of(Identity, &one),
        "I7iaqfmgLAecn1kGvO1qmTJSMxUh74ILZip00EU7fiA"
    );
    assert_eq!(nobody.len(), 43);
}

#[test]
fn what_a_client_sends_reaches_nobody_elses_cache() {
    let (one, two) = (id("a", "one"), id("a", "two"));
    let plain = salt(Identity, Some(&one), None);
    let forged = format!("\"{plain}\"");
    for own in [&b"\"x\""[..], b"\"\"", forged.as_bytes()] {
        let own = Some(own);
        let salts = [
            salt(Identity, Some(&two), own),
            salt(Identity, Some(&one), own),
            salt(Identity, None, own),
        ];
        assert!(!salts.contains(&plain), "{own:?}");
        assert_ne!(salts[0], salts[1]);
        assert_ne!(salts[0], salts[2]);
    }
    let users = ["\"u1\"", "\"u2\""].map(|own| salt(Identity, Some(&one), Some(own.as_bytes())));
    assert_ne!(users[0], users[1], "a gateway's users");
}

#[test]
fn where_it_stands() {
    let edited = |body: &str| {
        let mut request = ModelRequest::new(Api::Chat);
        probe::read(&mut request, &Bytes::copy_from_slice(body.as_bytes())).unwrap();
        let edits = request.salt_edit("S")?;
        let edited = request.edited(&edits).concat();
        assert_eq!(edited.len() as i64, body.len() as i64 + edits.growth());
        Some((
            String::from_utf8(edited).unwrap(),
            request.cache_salt().is_some(),
        ))
    };
    let salted = |body: &str, had| Some((body.to_owned(), had));
    for (body, expected) in [
        ("{}", salted(r#"{"cache_salt":"S"}"#, false)),
        (" { }", salted(r#" {"cache_salt":"S" }"#, false)),
        (r#"{"n":1}"#, salted(r#"{"cache_salt":"S","n":1}"#, false)),
        (
            r#"{"n":1, "cache_salt" : "forged" }"#,
            salted(r#"{"n":1, "cache_salt" : "S" }"#, true),
        ),
        (
            r#"{"cache_sal\u0074":{"a":[1]},"n":1}"#,
            salted(r#"{"cache_sal\u0074":"S","n":1}"#, true),
        ),
        (
            r#"{"cache_salt":null}"#,
            salted(r#"{"cache_salt":"S"}"#, false),
        ),
        // One within something else is somebody else's.
        (
            r#"{"x":{"cache_salt":"a"}}"#,
            salted(r#"{"cache_salt":"S","x":{"cache_salt":"a"}}"#, false),
        ),
        ("[]", None),
        ("nonsense", None),
        ("", None),
    ] {
        assert_eq!(edited(body), expected, "{body}");
    }
}

#[test]
fn two_salts_are_refused_and_another_case_is_noticed() {
    let read = |body: &str| {
        let mut request = ModelRequest::new(Api::Chat);
        let body = Bytes::copy_from_slice(body.as_bytes());
        probe::read(&mut request, &body).map(|()| request.has_unclear_salt())
    };
    assert!(read(r#"{"cache_salt":"a","cache_salt":"b"}"#).is_err());
    assert!(read(r#"{"cache_salt":"a","Cache_Salt":"b"}"#).is_err());
    assert_eq!(read(r#"{"Cache_Salt":"b"}"#), Ok(true));
    assert_eq!(read(r#"{"cache_salt":"b"}"#), Ok(false));
}
