//! Takes the public key out of a certificate signing request, and nothing else.

use rcgen::SubjectPublicKeyInfo;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_SIG_ED25519,
};
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::AlgorithmIdentifier;

use super::CaError;

/// Longest request that is looked at. One with a P-384 key and a handful of names has under 1 KiB.
const MAX_BYTES: usize = 16 * 1024;

/// The request's public key, after its self-signature was verified.
///
/// The key's kind is read from the key itself and not from the signature's algorithm: the two may differ (a P-384 key
/// may sign with SHA-256), and the certificate has to name the key's.
pub(super) fn verified_key(der: &[u8]) -> Result<SubjectPublicKeyInfo, CaError> {
    if der.len() > MAX_BYTES {
        return Err(CaError::InvalidRequest(format!(
            "it has {} bytes, at most {MAX_BYTES} are allowed",
            der.len()
        )));
    }
    let (rest, request) = X509CertificationRequest::from_der(der)
        .map_err(|error| CaError::InvalidRequest(format!("not PKCS#10 in DER ({error})")))?;
    if !rest.is_empty() {
        return Err(CaError::InvalidRequest(format!(
            "{} bytes follow its end",
            rest.len()
        )));
    }
    let key = &request.certification_request_info.subject_pki;
    check_algorithm(&key.algorithm)?;
    request
        .verify_signature()
        .map_err(|_| CaError::WrongSignature)?;
    SubjectPublicKeyInfo::from_der(key.raw)
        .map_err(|error| CaError::InvalidRequest(format!("public key: {error}")))
}

fn check_algorithm(algorithm: &AlgorithmIdentifier<'_>) -> Result<(), CaError> {
    let name = &algorithm.algorithm;
    if *name == OID_SIG_ED25519 {
        return Ok(());
    }
    if *name == OID_KEY_TYPE_EC_PUBLIC_KEY {
        let curve = algorithm
            .parameters
            .as_ref()
            .and_then(|parameters| parameters.as_oid().ok());
        return match curve {
            Some(curve) if curve == OID_EC_P256 || curve == OID_NIST_EC_P384 => Ok(()),
            Some(curve) => Err(CaError::KeyNotAllowed(format!("on the curve {curve}"))),
            None => Err(CaError::KeyNotAllowed("on an unnamed curve".to_owned())),
        };
    }
    Err(CaError::KeyNotAllowed(format!("of the kind {name}")))
}
