//! Certificates for the tests of the client.
#![allow(clippy::unwrap_used)]

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::{Context, fingerprint};

pub(super) const CONTROL_PLANE: &str =
    "spiffe://outrigger.local/ns/outrigger-system/sa/control-plane";

/// A root CA.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(super) fn root_der(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    /// A certificate with `uri` as its only name.
    pub(super) fn issue(&self, uri: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2100, 1, 1);
        params
            .subject_alt_names
            .push(SanType::URI(uri.try_into().unwrap()));
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.0).unwrap();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        (leaf.der().clone(), key.into())
    }

    /// A context that trusts this root.
    pub(super) fn context(&self, server: String) -> Context {
        Context {
            server,
            ca_fingerprint: fingerprint(&self.root_der()),
            ca_certificate: self.0.pem(),
            token: "secret".to_owned(),
            trust_domain: None,
        }
    }
}
