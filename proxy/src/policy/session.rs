//! Sticky sessions: a token that names an endpoint, and the endpoints that tokens name.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::hmac;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::Backend;
use crate::balance::Endpoint;
use crate::http::cookies;
use crate::telemetry::metrics::BalancingMetrics;

/// What was asked for. The key is a secret: this is never shown.
#[derive(Clone)]
pub struct SessionSettings {
    pub carrier: Carrier,
    /// How long a token is good for. `None`: as long as the client keeps it.
    pub absolute_timeout: Option<Duration>,
    /// The client keeps the cookie for the absolute timeout.
    pub permanent: bool,
    /// The same for all sidecars that call the service: they understand each other's tokens.
    pub key: hmac::Key,
}

impl std::fmt::Debug for SessionSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionSettings")
            .field("carrier", &self.carrier)
            .field("absolute_timeout", &self.absolute_timeout)
            .field("permanent", &self.permanent)
            .finish_non_exhaustive()
    }
}

/// What carries the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carrier {
    Cookie(Box<str>),
    Header(HeaderName),
}

/// The sessions of one rule.
#[derive(Debug)]
pub struct Session {
    pub settings: SessionSettings,
    /// The backend's place in the rule, and the endpoint. Made with the configuration, so that a request costs one lookup.
    by_tag: HashMap<Tag, (usize, Arc<Endpoint>)>,
    pub metrics: Arc<BalancingMetrics>,
}

/// What a request brought.
#[derive(Clone, Debug)]
pub enum Token {
    /// None, or one that was never ours.
    None,
    /// Too old.
    Expired,
    /// It names an endpoint that is gone.
    Gone,
    /// An endpoint of this backend of the rule.
    Of(usize, Arc<Endpoint>),
}

/// A keyed hash of an endpoint's address: says nothing about it to who has not the key.
type Tag = [u8; TAG];

const TAG: usize = 8;
/// Seconds since 1970, big endian: enough for 34,000 years.
const EXPIRY: usize = 5;
const MAC: usize = 8;

impl Session {
    /// For the backends of a rule. Backends that get no requests (weight 0) keep no sessions either.
    pub fn new(
        settings: SessionSettings,
        backends: &[Backend],
        metrics: Arc<BalancingMetrics>,
    ) -> Session {
        let mut by_tag = HashMap::new();
        for (index, backend) in backends.iter().enumerate() {
            if backend.weight == 0 {
                continue;
            }
            for endpoint in backend.endpoints.endpoints() {
                let tag = tag(&settings.key, endpoint);
                by_tag.entry(tag).or_insert((index, endpoint.clone()));
            }
        }
        Session {
            settings,
            by_tag,
            metrics,
        }
    }

    /// Reads the token of a request.
    pub fn token(&self, headers: &HeaderMap) -> Token {
        let text = match &self.settings.carrier {
            Carrier::Cookie(name) => cookies::find(headers, name),
            Carrier::Header(name) => headers.get(name).map(HeaderValue::as_bytes),
        };
        match text {
            Some(text) => self.read(text, now()),
            None => Token::None,
        }
    }

    fn read(&self, text: &[u8], now: u64) -> Token {
        let mut bytes = [0; TAG + EXPIRY + MAC];
        let timed = self.settings.absolute_timeout.is_some();
        let length = if timed { bytes.len() } else { TAG };
        if !unhex(text, &mut bytes[..length]) {
            return Token::None;
        }
        let mut tag = Tag::default();
        tag.copy_from_slice(&bytes[..TAG]);
        if timed {
            let (said, mac) = bytes.split_at(TAG + EXPIRY);
            if self.mac(said) != mac {
                return Token::None;
            }
            let expires = said[TAG..]
                .iter()
                .fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
            if expires <= now {
                return Token::Expired;
            }
        }
        match self.by_tag.get(&tag) {
            Some((backend, endpoint)) => Token::Of(*backend, endpoint.clone()),
            None => Token::Gone,
        }
    }

    /// Gives the client a token for the endpoint, if it is one that the rule's requests go to.
    pub fn give(&self, endpoint: &Endpoint, headers: &mut HeaderMap) {
        let Some(token) = self.write(endpoint, now()) else {
            return;
        };
        match &self.settings.carrier {
            Carrier::Cookie(name) => {
                let age = self.settings.absolute_timeout;
                let age = age.filter(|_| self.settings.permanent);
                cookies::set(headers, name, &token, "/", age);
            }
            Carrier::Header(name) => {
                if let Ok(value) = HeaderValue::try_from(token) {
                    headers.insert(name, value);
                }
            }
        }
    }

    fn write(&self, endpoint: &Endpoint, now: u64) -> Option<String> {
        let tag = tag(&self.settings.key, endpoint);
        if !self.by_tag.contains_key(&tag) {
            // A fallback's: it would lead nowhere.
            return None;
        }
        let mut bytes = tag.to_vec();
        if let Some(timeout) = self.settings.absolute_timeout {
            let expires = now.saturating_add(timeout.as_secs().max(1)).to_be_bytes();
            bytes.extend_from_slice(&expires[expires.len() - EXPIRY..]);
            let mac = self.mac(&bytes);
            bytes.extend_from_slice(&mac);
        }
        Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// So that a client cannot make its session longer.
    fn mac(&self, said: &[u8]) -> [u8; MAC] {
        first(&hmac::sign(&self.settings.key, said))
    }
}

/// Of the address alone: a server that was started again behind it is most likely the same one (a StatefulSet's pod, a
/// static endpoint).
fn tag(key: &hmac::Key, endpoint: &Endpoint) -> Tag {
    let mut said = [0; 1 + 16 + 2];
    match &endpoint.address {
        SocketAddr::V4(address) => said[1..5].copy_from_slice(&address.ip().octets()),
        SocketAddr::V6(address) => {
            said[0] = 6;
            said[1..17].copy_from_slice(&address.ip().octets());
        }
    }
    said[17..].copy_from_slice(&endpoint.address.port().to_be_bytes());
    first(&hmac::sign(key, &said))
}

fn first<const N: usize>(tag: &hmac::Tag) -> [u8; N] {
    let mut bytes = [0; N];
    // A SHA-256 is longer than either.
    bytes.copy_from_slice(&tag.as_ref()[..N]);
    bytes
}

/// Reads exactly as many bytes as there is room for.
fn unhex(text: &[u8], bytes: &mut [u8]) -> bool {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    text.len() == 2 * bytes.len()
        && text.chunks_exact(2).zip(bytes).all(|(pair, byte)| {
            match (digit(pair[0]), digit(pair[1])) {
                (Some(high), Some(low)) => {
                    *byte = (high << 4 | low) as u8;
                    true
                }
                _ => false,
            }
        })
}

fn now() -> u64 {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since_1970.unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests;
