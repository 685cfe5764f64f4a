//! Makes a CA on disk, once.
//!
//! The directory is built beside its place and renamed into it, so that a crash leaves either no CA or a whole one.
//!
//! | file | holds |
//! |---|---|
//! | `root.crt` | the root certificate, what members of the mesh trust |
//! | `ca.crt` | the certificate that signs, then its issuers up to, and without, the root |
//! | `ca.key` | the key of the first certificate in `ca.crt` (0600) |
//! | `root.key` | in intermediate mode only: the root's key, for the operator to take offline (0600) |

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};

use super::{BACKDATE, CaError, files, leaf};

/// Lifetime of a root. Istio and Linkerd's tools make roots of ten years as well.
const ROOT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Lifetime of an intermediate; the root's key is needed to replace it.
const INTERMEDIATE_LIFETIME: Duration = Duration::from_secs(3 * 365 * 24 * 3600);

/// Which certificate signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum CaMode {
    /// A self-signed root signs leaf certificates.
    Root,
    /// An intermediate signs; the root's key may be taken offline.
    Intermediate,
}

/// Where a CA comes from at the first start.
#[derive(Clone, Debug)]
pub enum Source {
    Generate(CaMode),
    /// Files of the operator, PEM. `root` is needed where `certificate` is not the root itself.
    Given {
        certificate: PathBuf,
        key: PathBuf,
        root: Option<PathBuf>,
    },
}

struct Content {
    root: String,
    chain: String,
    key: String,
    root_key: Option<String>,
}

/// Writes a new CA to `directory`, which must not exist or be empty.
///
/// # Errors
/// Files that cannot be read or written, and certificates and keys that do not fit together.
pub fn init(directory: &Path, trust_domain: &str, source: &Source) -> Result<(), CaError> {
    super::spiffe::check_trust_domain(trust_domain)?;
    let content = match source {
        Source::Generate(mode) => generate(trust_domain, *mode, SystemTime::now())?,
        Source::Given {
            certificate,
            key,
            root,
        } => given(certificate, key, root.as_deref())?,
    };
    let building = directory.with_extension("new");
    match std::fs::remove_dir_all(&building) {
        Ok(()) => {
            tracing::warn!(path = %building.display(), "removed a CA that was left half made")
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(CaError::file("remove", &building, error)),
    }
    files::create_dir(&building).map_err(|error| CaError::file("create", &building, error))?;
    let write = |name: &str, text: &str, mode: u32| {
        let path = building.join(name);
        files::write_atomic(&path, text.as_bytes(), mode)
            .map_err(|error| CaError::write(&path, error))
    };
    write("root.crt", &content.root, files::PUBLIC)?;
    write("ca.crt", &content.chain, files::PUBLIC)?;
    write("ca.key", &content.key, files::SECRET)?;
    if let Some(key) = &content.root_key {
        write("root.key", key, files::SECRET)?;
    }
    // Loading verifies that all of it fits together, before it becomes the CA.
    super::load::load(&building, Some(trust_domain), Duration::from_secs(3600))?;
    std::fs::rename(&building, directory)
        .and_then(|()| files::sync_parent(directory))
        .map_err(|error| CaError::file("create", directory, error))
}

fn given(certificate: &Path, key: &Path, root: Option<&Path>) -> Result<Content, CaError> {
    let read =
        |path: &Path| std::fs::read_to_string(path).map_err(|error| CaError::read(path, error));
    let chain = read(certificate)?;
    let root = match root {
        Some(root) => read(root)?,
        None => chain.clone(),
    };
    Ok(Content {
        root,
        chain,
        key: read(key)?,
        root_key: None,
    })
}

fn generate(trust_domain: &str, mode: CaMode, now: SystemTime) -> Result<Content, CaError> {
    // Tells two CAs of one trust domain apart; stacks that look issuers up by name alone need that.
    let tag = super::hex(&rand::random::<[u8; 4]>());
    let root_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let path_length = match mode {
        CaMode::Root => 0,
        CaMode::Intermediate => 1,
    };
    let root = ca_params(
        trust_domain,
        &format!("Outrigger root {tag}"),
        path_length,
        now,
        ROOT_LIFETIME,
    )?;
    let root_certificate = root.self_signed(&root_key)?;
    if mode == CaMode::Root {
        return Ok(Content {
            root: root_certificate.pem(),
            chain: root_certificate.pem(),
            key: root_key.serialize_pem(),
            root_key: None,
        });
    }
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = ca_params(
        trust_domain,
        &format!("Outrigger intermediate {tag}"),
        0,
        now,
        INTERMEDIATE_LIFETIME,
    )?;
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &Issuer::from_params(&root, &root_key))?;
    Ok(Content {
        root: root_certificate.pem(),
        chain: certificate.pem(),
        key: key.serialize_pem(),
        root_key: Some(root_key.serialize_pem()),
    })
}

fn ca_params(
    trust_domain: &str,
    name: &str,
    path_length: u8,
    now: SystemTime,
    lifetime: Duration,
) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "Outrigger");
    params.distinguished_name.push(DnType::CommonName, name);
    // X.509-SVID, section 4.1: a signing certificate carries the trust domain as its id.
    params.subject_alt_names.push(SanType::URI(
        format!("spiffe://{trust_domain}").as_str().try_into()?,
    ));
    params.serial_number = Some(leaf::random_serial());
    leaf::set_validity(
        &mut params,
        leaf::whole_seconds(now - BACKDATE),
        leaf::whole_seconds(now + lifetime),
    );
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}
