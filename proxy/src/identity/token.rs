//! Join tokens: one string with all that a new sidecar needs to join securely.
//!
//! `outrigger-join-v1.` and the unpadded base64url of a JSON object.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::{InvalidSpiffeId, SpiffeId};

const PREFIX: &str = "outrigger-join-v1.";
/// Longest token that is looked at; real ones have about 300 characters.
const MAX_LENGTH: usize = 4096;

/// A token, parsed. The control plane gets it back as the string that it was.
#[derive(Clone)]
pub struct JoinToken {
    text: String,
    /// SHA-256 of the root certificate's DER: how the control plane is known before anything else is.
    pub root_sha256: [u8; 32],
    /// Who the sidecar will be.
    pub id: SpiffeId,
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the text: it is a secret.
        f.debug_struct("JoinToken")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Why a text is no join token. Never quotes the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    #[error("a join token starts with `{PREFIX}`; make one with `outriggerctl token create`")]
    Prefix,
    #[error("the join token is damaged (cut off, or changed while it was copied?)")]
    Damaged,
    #[error("the join token's CA fingerprint is not a SHA-256 in hexadecimal")]
    Fingerprint,
    #[error("the join token names no valid identity: {0}")]
    Identity(#[from] InvalidSpiffeId),
    #[error("the join token is for trust domain {token}, its identity for {identity}")]
    TrustDomain { token: String, identity: String },
}

#[derive(Deserialize)]
struct Content {
    /// Lower-case hex.
    ca: String,
    td: String,
    id_for: String,
}

impl JoinToken {
    /// Reads a token. White space around it is let through: files end in a line break.
    pub fn parse(text: &str) -> Result<JoinToken, InvalidToken> {
        let text = text.trim();
        let encoded = text.strip_prefix(PREFIX).ok_or(InvalidToken::Prefix)?;
        if encoded.len() > MAX_LENGTH {
            return Err(InvalidToken::Damaged);
        }
        let json = URL_SAFE_NO_PAD
            .decode(encoded)
            .map_err(|_| InvalidToken::Damaged)?;
        let content: Content = serde_json::from_slice(&json).map_err(|_| InvalidToken::Damaged)?;
        let id: SpiffeId = content.id_for.parse()?;
        if id.trust_domain() != content.td {
            return Err(InvalidToken::TrustDomain {
                token: content.td.chars().take(255).collect(),
                identity: id.trust_domain().to_owned(),
            });
        }
        Ok(JoinToken {
            text: text.to_owned(),
            root_sha256: sha256_from_hex(&content.ca).ok_or(InvalidToken::Fingerprint)?,
            id,
        })
    }

    /// The whole token, a secret.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

fn sha256_from_hex(hex: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        let digits = std::str::from_utf8(digits).ok()?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests;
