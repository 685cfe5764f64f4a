//! What a request is told by where the same keys are to go to the same endpoint.

use std::time::Duration;

use http::HeaderName;

/// Never empty. In order; what a request has of them is combined.
#[derive(Debug, PartialEq, Eq)]
pub struct HashPolicy {
    pub inputs: Box<[HashInput]>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct HashInput {
    pub key: HashKey,
    /// If a request has it, what comes behind plays no part.
    pub terminal: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub enum HashKey {
    /// The first value.
    Header(HeaderName),
    /// Made for clients that have none. At most one in a policy.
    Cookie(HashCookie),
    /// The calling workload's SPIFFE id.
    SourceIdentity,
    /// Without the query.
    Path,
    /// The first value, as it stands in the URL.
    QueryParameter(Box<str>),
}

#[derive(Debug, PartialEq, Eq)]
pub struct HashCookie {
    pub name: Box<str>,
    /// `None`: until the client ends its session.
    pub ttl: Option<Duration>,
    pub path: Box<str>,
}

impl HashPolicy {
    /// The cookie that is made where a request has none.
    pub fn cookie(&self) -> Option<&HashCookie> {
        self.inputs.iter().find_map(|input| match &input.key {
            HashKey::Cookie(cookie) => Some(cookie),
            _ => None,
        })
    }
}
