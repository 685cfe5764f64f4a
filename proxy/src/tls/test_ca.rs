//! A certificate authority for tests.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer,
    DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PublicKeyData,
    SanType,
};
use rustls_pki_types::{
    CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer,
};

use crate::identity::{Identity, SpiffeId};

pub(crate) struct TestCa {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl TestCa {
    pub(crate) fn new() -> TestCa {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        TestCa {
            issuer: CertifiedIssuer::self_signed(params, key).unwrap(),
        }
    }

    pub(crate) fn root(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }

    pub(crate) fn root_sha256(&self) -> [u8; 32] {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &self.root());
        digest.as_ref().try_into().unwrap()
    }

    /// Signs for anybody, from `begin` to `end` (seconds from now).
    pub(crate) fn sign(
        &self,
        key: &impl PublicKeyData,
        uris: &[&str],
        (begin, end): (i64, i64),
    ) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.subject_alt_names = uris
            .iter()
            .map(|uri| SanType::URI((*uri).try_into().unwrap()))
            .collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let at = |offset: i64| {
            let seconds = now.as_secs().checked_add_signed(offset).unwrap();
            rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds)
        };
        params.not_before = at(begin);
        params.not_after = at(end);
        params.signed_by(key, &self.issuer).unwrap().der().clone()
    }

    /// Signs what a CSR asks for, its names ignored.
    pub(crate) fn sign_request(
        &self,
        csr: &[u8],
        id: &SpiffeId,
        lifetime: i64,
    ) -> CertificateDer<'static> {
        let csr = CertificateSigningRequestDer::from(csr);
        let request = CertificateSigningRequestParams::from_der(&csr).unwrap();
        self.sign(&request.public_key, &[id.as_str()], (-60, lifetime))
    }

    pub(crate) fn identity(&self, id: &str) -> Identity {
        self.identity_for(id, (-60, 3600))
    }

    pub(crate) fn identity_for(&self, id: &str, validity: (i64, i64)) -> Identity {
        let key = KeyPair::generate().unwrap();
        let now = SystemTime::now();
        Identity {
            id: id.parse().unwrap(),
            chain: vec![self.sign(&key, &[id], validity)],
            key: PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
            roots: vec![self.root()],
            issued_at: now,
            not_after: if validity.1 < 0 {
                now - Duration::from_secs(validity.1.unsigned_abs())
            } else {
                now + Duration::from_secs(validity.1.unsigned_abs())
            },
        }
    }
}
