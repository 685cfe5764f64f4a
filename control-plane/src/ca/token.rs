//! The text of join tokens, and how their secrets are kept.
//!
//! A token is one string with all that a new sidecar needs: `outrigger-join-v1.` and the unpadded base64url of a JSON
//! object. The control plane keeps a SHA-256 of the secret; 32 random bytes need no slow hash.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

use super::hex;

/// What every token starts with. A change of the format gets another number.
pub const PREFIX: &str = "outrigger-join-v1.";
/// Longest token that is looked at; real ones have about 300 characters.
const MAX_LENGTH: usize = 4096;

/// What a token says.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// Names the token in the control plane's store: 16 hex digits. Not secret.
    pub id: String,
    /// 32 random bytes, base64url.
    pub secret: String,
    /// SHA-256 of the root certificate's DER, lower-case hex.
    pub ca: String,
    /// Trust domain.
    pub td: String,
    /// The SPIFFE id that a sidecar with this token gets. The store's word counts, this one is for the sidecar's logs.
    pub id_for: String,
}

impl std::fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinToken")
            .field("id", &self.id)
            .field("id_for", &self.id_for)
            .finish_non_exhaustive()
    }
}

/// A text that is no token.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    #[error("a join token starts with \"{PREFIX}\"")]
    Prefix,
    #[error("the join token is damaged (cut off, or changed while it was copied?)")]
    Damaged,
}

impl JoinToken {
    /// A token with a fresh id and secret.
    pub fn generate(ca: &str, trust_domain: &str, id_for: &str) -> JoinToken {
        JoinToken {
            id: hex(&rand::random::<[u8; 8]>()),
            secret: URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()),
            ca: ca.to_owned(),
            td: trust_domain.to_owned(),
            id_for: id_for.to_owned(),
        }
    }

    /// The one string that is handed over.
    pub fn encode(&self) -> String {
        // Five strings always serialise.
        let json = serde_json::to_vec(self).unwrap_or_default();
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(json))
    }

    /// Reads a token. White space around it is let through.
    pub fn decode(text: &str) -> Result<JoinToken, InvalidToken> {
        let encoded = text
            .trim()
            .strip_prefix(PREFIX)
            .ok_or(InvalidToken::Prefix)?;
        if encoded.len() > MAX_LENGTH {
            return Err(InvalidToken::Damaged);
        }
        let json = URL_SAFE_NO_PAD
            .decode(encoded)
            .map_err(|_| InvalidToken::Damaged)?;
        serde_json::from_slice(&json).map_err(|_| InvalidToken::Damaged)
    }

    /// What the store keeps of the secret.
    pub fn secret_hash(&self) -> [u8; 32] {
        secret_hash(&self.secret)
    }
}

/// SHA-256 of a secret as it stands in a token.
pub fn secret_hash(secret: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, secret.as_bytes()).as_ref());
    hash
}

/// Whether two hashes are equal, in a time that does not depend on where they differ.
pub fn same_hash(one: &[u8], other: &[u8]) -> bool {
    one.ct_eq(other).into()
}
