#![allow(clippy::unwrap_used)]

use rcgen::{CertificateParams, KeyPair, SanType};

use super::*;
use crate::ca::init::CaMode;
use crate::ca::tests::ca;

fn csr() -> Vec<u8> {
    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    request.der().to_vec()
}

fn verify(ca: &Ca, chain: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    MeshClients::new(ca, provider)
        .unwrap()
        .verify_client_cert(&chain[0], &chain[1..], UnixTime::now())
        .map(|_| ())
}

#[test]
fn a_certificate_of_the_ca_is_good_in_its_own_trust_domain_only() {
    for mode in [CaMode::Root, CaMode::Intermediate] {
        let (_directory, ca) = ca(mode);
        let issue = |trust_domain: &str| {
            let id = SpiffeId::new(trust_domain, "default", "chat").unwrap();
            ca.issue(&csr(), &id, Duration::ZERO).unwrap().chain
        };
        verify(&ca, &issue("outrigger.local")).unwrap();
        // A CA that serves two meshes.
        let error = verify(&ca, &issue("other.local")).unwrap_err();
        assert!(
            matches!(error, rustls::Error::InvalidCertificate(_)),
            "{error}"
        );
    }
}

#[test]
fn a_certificate_has_exactly_one_id() {
    let certificate = |uris: &[&str]| {
        let mut params = CertificateParams::default();
        for uri in uris {
            let uri = (*uri).try_into().unwrap();
            params.subject_alt_names.push(SanType::URI(uri));
        }
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    };
    let one = "spiffe://outrigger.local/ns/default/sa/chat";
    let found = peer_certificate(&certificate(&[one])).unwrap();
    assert_eq!(found.identity.as_str(), one);
    assert!(found.not_after > SystemTime::now());
    for uris in [
        &[][..],
        &[one, one],
        &["https://example"],
        &["spiffe://outrigger.local"],
    ] {
        assert!(peer_certificate(&certificate(uris)).is_none(), "{uris:?}");
    }
    assert!(peer_certificate(&b"rubbish".to_vec().into()).is_none());
}
