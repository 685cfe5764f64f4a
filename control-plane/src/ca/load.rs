//! Loads the CA from disk and proves that it works before anybody depends on it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{Issuer, KeyPair, PublicKeyData as _};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;

use super::{Ca, CaError, SpiffeId, files, leaf, sha256_hex};

/// Loads a CA that [`super::init::init`] or an operator wrote to `directory`.
///
/// `trust_domain` unset: the one that the signing certificate names. `lifetime` is for leaf certificates.
///
/// # Errors
/// Says which file is missing, unreadable or wrong.
pub fn load(
    directory: &Path,
    trust_domain: Option<&str>,
    lifetime: Duration,
) -> Result<Ca, CaError> {
    let root_path = directory.join("root.crt");
    let chain_path = directory.join("ca.crt");
    let key_path = directory.join("ca.key");
    let roots = certificates(&root_path)?;
    let chain = certificates(&chain_path)?;
    let signer = &chain[0];
    let key = signing_key(&key_path)?;

    let (_, parsed) = X509Certificate::from_der(signer)
        .map_err(|error| CaError::content(&chain_path, format!("no X.509 certificate: {error}")))?;
    if !parsed.is_ca() {
        return Err(CaError::content(
            &chain_path,
            "the first certificate is not that of a CA (basicConstraints)",
        ));
    }
    if parsed.public_key().raw != key.subject_public_key_info() {
        return Err(CaError::Inconsistent(format!(
            "the key in {} is not that of the first certificate in {}",
            key_path.display(),
            chain_path.display()
        )));
    }
    let trust_domain = agree_on_trust_domain(directory, trust_domain, named_trust_domain(&parsed))?;

    let mut expires_at = not_after(&parsed);
    for certificate in chain.iter().skip(1).chain(&roots) {
        if let Ok((_, parsed)) = X509Certificate::from_der(certificate) {
            expires_at = expires_at.min(not_after(&parsed));
        }
    }
    let issuer = Issuer::from_ca_cert_der(signer, key)?;
    let intermediates: Vec<_> = chain
        .iter()
        .filter(|certificate| !roots.contains(certificate))
        .cloned()
        .collect();
    let ca = Ca {
        trust_domain,
        issuer,
        intermediates,
        fingerprint: sha256_hex(&roots[0]),
        roots,
        expires_at,
        lifetime,
    };
    if ca.expires_at <= SystemTime::now() {
        return Err(CaError::Expired);
    }
    prove(&ca)?;
    Ok(ca)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CaError> {
    let text = std::fs::read(path).map_err(|error| CaError::read(path, error))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(CaError::content(path, "there is no PEM certificate in it")),
        Err(error) => Err(CaError::content(path, format!("not PEM: {error}"))),
    }
}

fn signing_key(path: &Path) -> Result<KeyPair, CaError> {
    let text = std::fs::read_to_string(path).map_err(|error| CaError::read(path, error))?;
    match files::excess_permission(path) {
        Ok(0) => {}
        Ok(excess) => tracing::warn!(
            path = %path.display(),
            excess = format!("{excess:03o}"),
            "the CA's key can be used by others than its owner; its mode should be 0600"
        ),
        Err(error) => return Err(CaError::read(path, error)),
    }
    // The parser's error may quote what it found; that is a key.
    KeyPair::from_pem(&text).map_err(|_| {
        CaError::content(
            path,
            "there is no private key in PEM (PKCS#8 or SEC1) in it",
        )
    })
}

fn not_after(certificate: &X509Certificate<'_>) -> SystemTime {
    let seconds = certificate.validity().not_after.timestamp();
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// The trust domain in a CA certificate's URI SAN; certificates of other tools may have none.
fn named_trust_domain(certificate: &X509Certificate<'_>) -> Option<String> {
    certificate.extensions().iter().find_map(|extension| {
        let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else {
            return None;
        };
        names.general_names.iter().find_map(|name| match name {
            GeneralName::URI(uri) => uri
                .strip_prefix("spiffe://")
                .map(|rest| rest.trim_end_matches('/').to_owned()),
            _ => None,
        })
    })
}

fn agree_on_trust_domain(
    directory: &Path,
    wanted: Option<&str>,
    named: Option<String>,
) -> Result<String, CaError> {
    match (wanted, named) {
        (Some(wanted), Some(found)) if wanted != found => Err(CaError::TrustDomain {
            path: directory.to_path_buf(),
            found,
            wanted: wanted.to_owned(),
        }),
        (Some(wanted), _) => Ok(wanted.to_owned()),
        (None, Some(found)) => Ok(found),
        (None, None) => Err(CaError::content(
            &directory.join("ca.crt"),
            "it names no trust domain; give one with --trust-domain",
        )),
    }
}

/// Signs a certificate and verifies it as a peer would: finds a chain that does not reach the root, a path length
/// that is too short, names that do not survive being written again, and a signature of another key.
fn prove(ca: &Ca) -> Result<(), CaError> {
    let key = KeyPair::generate()?;
    let id = SpiffeId::control_plane(&ca.trust_domain)?;
    let lifetime = Duration::from_secs(3600);
    let leaf = leaf::sign(ca, &key, &id, &[], lifetime, SystemTime::now())?;
    let problem = |error: &dyn std::fmt::Display| {
        CaError::Inconsistent(format!(
            "a certificate signed with ca.key does not verify against root.crt: {error}"
        ))
    };
    let mut store = RootCertStore::empty();
    for root in &ca.roots {
        store.add(root.clone()).map_err(|error| problem(&error))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider)
        .build()
        .map_err(|error| problem(&error))?;
    verifier
        .verify_client_cert(&leaf.chain[0], &leaf.chain[1..], UnixTime::now())
        .map_err(|error| problem(&error))?;
    Ok(())
}
