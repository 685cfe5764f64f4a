//! The identity on disk, so that a restarted sidecar needs neither its control plane nor another token.
//!
//! One file holds key and certificate: two files could be torn apart by a crash between them.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};

use super::Identity;
use crate::files;
use crate::tls::read_leaf;

/// Name of the file in the data directory.
pub const FILE: &str = "identity.json";
/// A change of the format gets another number.
const VERSION: u32 = 1;

/// Why there is no identity on disk that can be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("cannot read {path}: {error}")]
    Read { path: PathBuf, error: io::Error },
    #[error("{path} is damaged: {what}")]
    Damaged { path: PathBuf, what: String },
}

#[derive(Serialize, Deserialize)]
struct Content {
    version: u32,
    /// Seconds since 1970.
    issued_at: u64,
    /// PKCS#8 DER, base64.
    key: String,
    /// DER, base64; leaf first.
    chain: Vec<String>,
    /// DER, base64.
    roots: Vec<String>,
}

/// Reads the identity of an earlier run. `None`: there is none.
pub fn load(data_dir: &Path) -> Result<Option<Identity>, LoadError> {
    let path = data_dir.join(FILE);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(LoadError::Read { path, error }),
    };
    match decode(&text) {
        Ok(identity) => Ok(Some(identity)),
        Err(what) => Err(LoadError::Damaged { path, what }),
    }
}

/// Writes the identity, readable by this user only.
pub fn save(data_dir: &Path, identity: &Identity) -> io::Result<()> {
    files::create_private_dir(data_dir)?;
    files::write_private(&data_dir.join(FILE), &encode(identity)?)
}

fn encode(identity: &Identity) -> io::Result<Vec<u8>> {
    let list = |certificates: &[CertificateDer<'_>]| {
        certificates
            .iter()
            .map(|der| STANDARD.encode(der))
            .collect()
    };
    let content = Content {
        version: VERSION,
        issued_at: seconds(identity.issued_at),
        key: STANDARD.encode(identity.key.secret_der()),
        chain: list(&identity.chain),
        roots: list(&identity.roots),
    };
    Ok(serde_json::to_vec_pretty(&content)?)
}

fn decode(text: &[u8]) -> Result<Identity, String> {
    let content: Content = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if content.version != VERSION {
        return Err(format!("version {}, known is {VERSION}", content.version));
    }
    let bytes = |what: &str, text: &str| {
        STANDARD
            .decode(text)
            .map_err(|error| format!("{what}: {error}"))
    };
    let list = |what: &str, texts: &[String]| {
        texts
            .iter()
            .map(|text| bytes(what, text).map(CertificateDer::from))
            .collect::<Result<Vec<_>, String>>()
    };
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(bytes("key", &content.key)?));
    let chain = list("chain", &content.chain)?;
    let roots = list("roots", &content.roots)?;
    let leaf = chain.first().ok_or("chain: empty")?;
    let leaf = read_leaf(leaf).map_err(|error| format!("chain: {error}"))?;
    Ok(Identity {
        id: leaf.id,
        key,
        chain,
        roots,
        issued_at: time("issued_at", content.issued_at)?,
        not_after: time("chain", u64::try_from(leaf.not_after).unwrap_or(0))?,
    })
}

fn time(what: &str, seconds: u64) -> Result<SystemTime, String> {
    SystemTime::UNIX_EPOCH
        .checked_add(Duration::from_secs(seconds))
        .ok_or_else(|| format!("{what}: {seconds} is no time"))
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs()
}

#[cfg(test)]
mod tests;
