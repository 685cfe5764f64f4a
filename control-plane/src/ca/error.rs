//! What can go wrong in the CA.

use std::path::{Path, PathBuf};

/// Errors of the CA. Messages are one line and say what was found and what is allowed.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error("cannot {what} {}: {error}", path.display())]
    File {
        what: &'static str,
        path: PathBuf,
        error: std::io::Error,
    },
    #[error("{}: {problem}", path.display())]
    Content { path: PathBuf, problem: String },
    #[error("the CA in {} is for trust domain {found:?}, not {wanted:?}", path.display())]
    TrustDomain {
        path: PathBuf,
        found: String,
        wanted: String,
    },
    #[error("the CA does not fit together: {0}")]
    Inconsistent(String),
    #[error(transparent)]
    InvalidId(#[from] super::spiffe::InvalidSpiffeId),
    #[error("not a valid certificate signing request: {0}")]
    InvalidRequest(String),
    #[error(
        "the signature of the certificate signing request is wrong: its sender does not have the key"
    )]
    WrongSignature,
    #[error(
        "key of the certificate signing request is {0}; allowed are ECDSA P-256, ECDSA P-384 and Ed25519"
    )]
    KeyNotAllowed(String),
    #[error("the CA's certificate has expired; replace ca.crt and ca.key")]
    Expired,
    #[error("signing failed: {0}")]
    Sign(#[from] rcgen::Error),
}

impl CaError {
    pub(super) fn read(path: &Path, error: std::io::Error) -> CaError {
        CaError::file("read", path, error)
    }

    pub(super) fn write(path: &Path, error: std::io::Error) -> CaError {
        CaError::file("write", path, error)
    }

    pub(super) fn file(what: &'static str, path: &Path, error: std::io::Error) -> CaError {
        CaError::File {
            what,
            path: path.to_path_buf(),
            error,
        }
    }

    pub(super) fn content(path: &Path, problem: impl Into<String>) -> CaError {
        CaError::Content {
            path: path.to_path_buf(),
            problem: problem.into(),
        }
    }

    /// Whether the caller's request is at fault, and not the CA.
    pub fn is_request(&self) -> bool {
        matches!(
            self,
            CaError::InvalidRequest(_) | CaError::WrongSignature | CaError::KeyNotAllowed(_)
        )
    }
}
