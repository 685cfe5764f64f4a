#![allow(clippy::unwrap_used)]

use std::time::Duration;

use super::*;
use crate::client::testing::{Authority, CONTROL_PLANE};

fn verifier(authority: &Authority, trust_domain: Option<&str>) -> ServerVerifier {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ServerVerifier::new(
        &[authority.root_der()],
        trust_domain.map(str::to_owned),
        provider,
    )
    .unwrap()
}

fn now() -> UnixTime {
    UnixTime::now()
}

#[test]
fn accepts_the_control_plane_of_its_ca() {
    let authority = Authority::new("root");
    let (leaf, _) = authority.issue(CONTROL_PLANE);
    let chain = [authority.root_der()];
    verifier(&authority, None)
        .verify(&leaf, &chain, now())
        .unwrap();
    verifier(&authority, Some("outrigger.local"))
        .verify(&leaf, &chain, now())
        .unwrap();
}

#[test]
fn refuses_another_ca_and_names_both_fingerprints() {
    let (pinned, other) = (Authority::new("root"), Authority::new("root"));
    let (leaf, _) = other.issue(CONTROL_PLANE);
    let error = verifier(&pinned, None)
        .verify(&leaf, &[other.root_der()], now())
        .unwrap_err();
    let expected = VerifyError::OtherCa {
        expected: vec![fingerprint(&pinned.root_der())],
        presented: fingerprint(&other.root_der()),
    };
    assert_eq!(error, expected);
}

#[test]
fn refuses_a_sidecar_that_plays_the_control_plane() {
    let authority = Authority::new("root");
    let id = "spiffe://outrigger.local/ns/default/sa/chat";
    let (leaf, _) = authority.issue(id);
    let error = verifier(&authority, None)
        .verify(&leaf, &[], now())
        .unwrap_err();
    assert!(
        matches!(&error, VerifyError::OtherIdentity { found, .. } if found == id),
        "{error}"
    );
}

#[test]
fn refuses_ids_that_merely_end_like_the_control_planes() {
    let authority = Authority::new("root");
    for id in [
        "spiffe://outrigger.local/x/ns/outrigger-system/sa/control-plane",
        "spiffe:///ns/outrigger-system/sa/control-plane",
        "https://outrigger.local/ns/outrigger-system/sa/control-plane",
    ] {
        let (leaf, _) = authority.issue(id);
        let result = verifier(&authority, None).verify(&leaf, &[], now());
        assert!(
            matches!(result, Err(VerifyError::OtherIdentity { .. })),
            "{id}: {result:?}"
        );
    }
}

#[test]
fn refuses_another_trust_domain_where_the_context_names_one() {
    let authority = Authority::new("root");
    let (leaf, _) = authority.issue("spiffe://other.local/ns/outrigger-system/sa/control-plane");
    verifier(&authority, None)
        .verify(&leaf, &[], now())
        .unwrap();
    let error = verifier(&authority, Some("outrigger.local"))
        .verify(&leaf, &[], now())
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "its certificate is for spiffe://other.local/ns/outrigger-system/sa/control-plane, \
         not for spiffe://outrigger.local/ns/outrigger-system/sa/control-plane"
    );
}

#[test]
fn refuses_an_expired_certificate() {
    let authority = Authority::new("root");
    let (leaf, _) = authority.issue(CONTROL_PLANE);
    let in_a_century =
        UnixTime::since_unix_epoch(Duration::from_secs(now().as_secs() + 100 * 365 * 24 * 3600));
    let error = verifier(&authority, None)
        .verify(&leaf, &[], in_a_century)
        .unwrap_err();
    assert!(matches!(error, VerifyError::Time(_)), "{error}");
}

#[test]
fn refuses_what_is_not_a_certificate() {
    let authority = Authority::new("root");
    let error = verifier(&authority, None)
        .verify(&CertificateDer::from(vec![1, 2, 3]), &[], now())
        .unwrap_err();
    assert!(matches!(error, VerifyError::Unusable(_)), "{error}");
}
