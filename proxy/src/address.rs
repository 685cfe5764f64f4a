//! Where an application listens: an IP address and a port, or a Unix socket.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

/// Longest path of a Unix socket, in bytes: `sun_path` has 108, one of them for the zero at the end.
const MAX_PATH: usize = 107;

/// Where something listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    Ip(SocketAddr),
    Unix(Arc<Path>),
}

/// What is wrong with the text of an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither IP:PORT nor unix:/PATH")]
pub struct InvalidAddress(String);

impl Address {
    pub fn ip(&self) -> Option<SocketAddr> {
        match self {
            Address::Ip(address) => Some(*address),
            Address::Unix(_) => None,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        Address::Ip(address)
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Address, InvalidAddress> {
        let invalid = || InvalidAddress(text.to_owned());
        match text.strip_prefix("unix:") {
            Some(path) => {
                // A relative path would depend on where the program was started.
                let is_valid =
                    path.starts_with('/') && path.len() <= MAX_PATH && !path.contains('\0');
                is_valid
                    .then(|| Address::Unix(Path::new(path).into()))
                    .ok_or_else(invalid)
            }
            None => text.parse().map(Address::Ip).map_err(|_| invalid()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ip(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl<'de> serde::Deserialize<'de> for Address {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Address, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::Address;

    #[test]
    fn both_kinds_are_read_and_shown() {
        for text in ["127.0.0.1:80", "[::1]:80", "unix:/run/app.sock"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        let long = format!("unix:/{}", "a".repeat(107));
        for bad in ["", "unix:", "unix:app.sock", "app.sock", "127.0.0.1", &long] {
            bad.parse::<Address>().unwrap_err();
        }
    }
}
