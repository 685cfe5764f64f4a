use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, IsCa, KeyPair, PublicKeyData as _, SanType, SigningKey};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::UnixTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use super::ca;
use crate::ca::init::CaMode;
use crate::ca::server_cert::ServerCert;
use crate::ca::{BACKDATE, Ca, CaError, Leaf, SpiffeId};

fn id() -> SpiffeId {
    SpiffeId::new("outrigger.local", "default", "chat").unwrap()
}

fn request(params: CertificateParams, key: &impl SigningKey) -> Vec<u8> {
    params.serialize_request(key).unwrap().der().to_vec()
}

fn plain_request() -> Vec<u8> {
    request(CertificateParams::default(), &KeyPair::generate().unwrap())
}

fn issue(ca: &Ca, csr: &[u8]) -> Result<Leaf, CaError> {
    ca.issue(csr, &id(), Duration::ZERO)
}

fn names(leaf: &Leaf) -> Vec<String> {
    let (_, certificate) = X509Certificate::from_der(&leaf.chain[0]).unwrap();
    let san = certificate.subject_alternative_name().unwrap().unwrap();
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => (*uri).to_owned(),
        other => format!("{other:?}"),
    };
    san.value.general_names.iter().map(text).collect()
}

fn verify(ca: &Ca, leaf: &Leaf) -> Result<(), rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.roots()[0].clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .unwrap()
        .verify_client_cert(&leaf.chain[0], &leaf.chain[1..], UnixTime::now())
        .map(|_| ())
}

#[test]
fn all_allowed_kinds_of_keys_get_certificates_that_verify() {
    for mode in [CaMode::Root, CaMode::Intermediate] {
        let (_directory, ca) = ca(mode);
        for algorithm in [
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
            &rcgen::PKCS_ED25519,
        ] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let leaf = issue(&ca, &request(CertificateParams::default(), &key)).unwrap();
            verify(&ca, &leaf).unwrap();
            let (_, certificate) = X509Certificate::from_der(&leaf.chain[0]).unwrap();
            assert_eq!(certificate.public_key().raw, key.subject_public_key_info());
        }
    }
}

#[test]
fn the_id_is_the_only_name_whatever_the_request_asks_for() {
    let (_directory, ca) = ca(CaMode::Root);
    let mut params =
        CertificateParams::new(vec!["control-plane.outrigger.local".to_owned()]).unwrap();
    let other = "spiffe://outrigger.local/ns/outrigger-system/sa/admin";
    params
        .subject_alt_names
        .push(SanType::URI(other.try_into().unwrap()));
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::CodeSigning];
    let leaf = issue(&ca, &request(params, &KeyPair::generate().unwrap())).unwrap();
    assert_eq!(
        names(&leaf),
        ["spiffe://outrigger.local/ns/default/sa/chat"]
    );
    let (_, certificate) = X509Certificate::from_der(&leaf.chain[0]).unwrap();
    assert!(!certificate.is_ca());
    let usage = certificate.key_usage().unwrap().unwrap().value;
    assert_eq!(usage.flags, 1, "digitalSignature alone");
    let extended = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(
        extended.server_auth && extended.client_auth && !extended.code_signing && !extended.any
    );
    assert_eq!(certificate.subject().iter().count(), 0);
}

#[test]
fn unusual_extensions_in_a_request_do_not_matter() {
    let (_directory, ca) = ca(CaMode::Root);
    let mut params = CertificateParams::default();
    params.subject_alt_names.push(SanType::OtherName((
        vec![1, 3, 6, 1, 4, 1, 311, 20, 2, 3],
        rcgen::OtherNameValue::Utf8String("root".to_owned()),
    )));
    let leaf = issue(&ca, &request(params, &KeyPair::generate().unwrap())).unwrap();
    assert_eq!(names(&leaf).len(), 1);
}

#[test]
fn a_request_signed_by_another_key_is_refused() {
    struct Thief {
        stolen: KeyPair,
        own: KeyPair,
    }
    impl rcgen::PublicKeyData for Thief {
        fn der_bytes(&self) -> &[u8] {
            self.stolen.der_bytes()
        }
        fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
            rcgen::PublicKeyData::algorithm(&self.stolen)
        }
    }
    impl SigningKey for Thief {
        fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
            self.own.sign(message)
        }
    }
    let (_directory, ca) = ca(CaMode::Root);
    let thief = Thief {
        stolen: KeyPair::generate().unwrap(),
        own: KeyPair::generate().unwrap(),
    };
    let error = issue(&ca, &request(CertificateParams::default(), &thief)).unwrap_err();
    assert!(matches!(error, CaError::WrongSignature), "{error}");
}

#[test]
fn a_flipped_bit_anywhere_never_yields_a_certificate_for_another_key() {
    let (_directory, ca) = ca(CaMode::Root);
    let key = KeyPair::generate().unwrap();
    let csr = request(CertificateParams::default(), &key);
    let mut accepted = 0;
    for position in 0..csr.len() {
        let mut damaged = csr.clone();
        damaged[position] ^= 0x01;
        match issue(&ca, &damaged) {
            // A few bits around the signature are covered by nothing and mean nothing.
            Ok(leaf) => {
                let (_, certificate) = X509Certificate::from_der(&leaf.chain[0]).unwrap();
                assert_eq!(certificate.public_key().raw, key.subject_public_key_info());
                accepted += 1;
            }
            Err(error) => assert!(error.is_request(), "{error}"),
        }
    }
    assert!(accepted <= 2, "{accepted} damaged requests were accepted");
}

#[test]
fn weak_and_odd_keys_are_refused() {
    let (_directory, ca) = ca(CaMode::Root);
    for algorithm in [&rcgen::PKCS_RSA_SHA256, &rcgen::PKCS_ECDSA_P521_SHA512] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let error = issue(&ca, &request(CertificateParams::default(), &key)).unwrap_err();
        assert!(matches!(error, CaError::KeyNotAllowed(_)), "{error}");
        assert!(error.to_string().contains("P-256"), "{error}");
    }
}

#[test]
fn rubbish_is_no_request() {
    let (_directory, ca) = ca(CaMode::Root);
    let mut trailing = plain_request();
    trailing.push(0);
    for csr in [
        &b""[..],
        b"hello",
        &[0x30, 0x82, 0xff, 0xff],
        &vec![0x30; 100_000],
        &trailing,
    ] {
        let error = issue(&ca, csr).unwrap_err();
        assert!(matches!(error, CaError::InvalidRequest(_)), "{error}");
    }
}

#[test]
fn lifetimes_are_backdated_and_capped() {
    let (_directory, ca) = ca(CaMode::Root);
    let csr = plain_request();
    let near = |at: SystemTime, wanted: SystemTime| {
        let apart = at
            .duration_since(wanted)
            .unwrap_or_else(|error| error.duration());
        assert!(apart < Duration::from_secs(3), "{at:?} is not {wanted:?}");
    };
    let day = Duration::from_secs(24 * 3600);
    for (asked, given) in [
        (Duration::ZERO, day),
        (day * 30, day),
        (Duration::from_secs(60), Duration::from_secs(60)),
    ] {
        let leaf = ca.issue(&csr, &id(), asked).unwrap();
        let now = SystemTime::now();
        near(leaf.not_before, now - BACKDATE);
        near(leaf.not_after, now + given);
        let (_, certificate) = X509Certificate::from_der(&leaf.chain[0]).unwrap();
        let seconds = leaf
            .not_after
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        assert_eq!(
            certificate.validity().not_after.timestamp(),
            i64::try_from(seconds).unwrap()
        );
    }
}

#[test]
fn serials_differ_and_are_positive() {
    let (_directory, ca) = ca(CaMode::Root);
    let csr = plain_request();
    let serial = || {
        let leaf = issue(&ca, &csr).unwrap();
        let (_, certificate) = X509Certificate::from_der(&leaf.chain[0]).unwrap();
        certificate.raw_serial().to_vec()
    };
    let (one, other) = (serial(), serial());
    assert_ne!(one, other);
    assert!(one.len() == 16 && one[0] & 0x80 == 0);
}

#[test]
fn its_own_certificate_is_replaced_at_half_of_its_life() {
    let (_directory, ca) = ca(CaMode::Intermediate);
    let server = ServerCert::new(&ca).unwrap();
    let first = server.not_after();
    assert!(!server.renew_if_due(&ca, SystemTime::now()).unwrap());
    let later = SystemTime::now() + Duration::from_secs(12 * 3600 + 5);
    assert!(server.renew_if_due(&ca, later).unwrap());
    assert!(server.not_after() > first);
}
