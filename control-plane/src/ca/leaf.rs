//! Leaf certificates.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;

use super::{BACKDATE, Ca, CaError, SpiffeId};

/// A certificate as issued.
#[derive(Clone, Debug)]
pub struct Leaf {
    pub id: SpiffeId,
    /// Leaf first, then intermediates; the root is not included.
    pub chain: Vec<CertificateDer<'static>>,
    /// Lies in the past, see [`BACKDATE`].
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

/// Signs a certificate for `key` with `id` as its URI SAN, and further DNS names for the control plane's own.
pub(super) fn sign(
    ca: &Ca,
    key: &impl PublicKeyData,
    id: &SpiffeId,
    dns_names: &[String],
    lifetime: Duration,
    now: SystemTime,
) -> Result<Leaf, CaError> {
    let lifetime = if lifetime.is_zero() {
        ca.lifetime
    } else {
        lifetime.min(ca.lifetime)
    };
    // A leaf that outlives its issuer would fail in the middle of its life, at the peers.
    let not_after = whole_seconds((now + lifetime).min(ca.expires_at));
    if not_after <= now {
        return Err(CaError::Expired);
    }
    let not_before = whole_seconds(now - BACKDATE);

    let mut params = CertificateParams::default();
    // Identity is in the SAN alone. RFC 5280 4.1.2.6 allows an empty subject with a critical SAN, which rcgen writes.
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(random_serial());
    set_validity(&mut params, not_before, not_after);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.use_authority_key_identifier_extension = true;
    params
        .subject_alt_names
        .push(SanType::URI(id.as_str().try_into()?));
    for name in dns_names {
        params
            .subject_alt_names
            .push(SanType::DnsName(name.as_str().try_into()?));
    }
    let certificate = params.signed_by(key, &ca.issuer)?;

    let mut chain = Vec::with_capacity(1 + ca.intermediates.len());
    chain.push(certificate.der().clone());
    chain.extend(ca.intermediates.iter().cloned());
    Ok(Leaf {
        id: id.clone(),
        chain,
        not_before,
        not_after,
    })
}

/// 127 random bits: positive, and unique without keeping a list (RFC 5280 4.1.2.2 allows 20 bytes; the CA/Browser forum
/// asks for 64 random bits).
pub(super) fn random_serial() -> SerialNumber {
    let mut bytes: [u8; 16] = rand::random();
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    SerialNumber::from_slice(&bytes)
}

/// X.509 times have whole seconds.
pub(super) fn whole_seconds(at: SystemTime) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
}

/// Sets NotBefore and NotAfter.
pub(super) fn set_validity(
    params: &mut CertificateParams,
    not_before: SystemTime,
    not_after: SystemTime,
) {
    // rcgen's own way to name the epoch; its time type is not worth a dependency.
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let since = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap_or_default();
    params.not_before = epoch + since(not_before);
    params.not_after = epoch + since(not_after);
}
