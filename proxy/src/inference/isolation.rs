//! Keeps callers apart in what a model server caches of their prompts.
//!
//! A server that finds a prompt's beginning in its cache answers sooner. Who may ask it anything can so find out, by the time
//! alone, what others have asked. vLLM and SGLang hash the member `cache_salt` of a request into the keys of their caches: the
//! sidecar beside the model, which knows the caller's verified identity, sets it.

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;

use super::api::Api;
use super::request::{ModelRequest, Unread};
use super::rewrite::Edited;
use super::understand::Refusal;
use crate::error::Reason;
use crate::http::arrival::Arrived;
use crate::http::headers;
use crate::identity::SpiffeId;
use crate::policy::{IsolatedBy, Isolation};
use crate::telemetry::metrics::Salting;

/// What all salts begin with: another use of SHA-256 over identities gives other values. Every sidecar has to make the same
/// salts, or replicas could not share caches.
const CONTEXT: &[u8] = b"outrigger cache_salt 1\0";

/// The body with the caller's salt, and what was done. `None`: it is sent as it is.
pub(crate) fn isolate(
    isolation: Isolation,
    caller: Option<&SpiffeId>,
    arrived: &Arrived,
) -> (Salting, Result<Option<Edited>, Refusal>) {
    if arrived.body.is_empty() && !arrived.upgrade {
        return (Salting::Empty, Ok(None));
    }
    let refused = |detail: String| (Salting::Refused, Err((Reason::NotIsolated, detail)));
    let why = match salted(isolation.by, caller, arrived) {
        Ok((edited, true)) => return (Salting::Replaced, Ok(Some(edited))),
        Ok((edited, false)) => return (Salting::Set, Ok(Some(edited))),
        // Whatever the policy: it would be the client's word that counts.
        Err(Unsalted::Unclear) => {
            return refused("\"cache_salt\" is spelt in another case".to_owned());
        }
        Err(Unsalted::Because(why)) => why,
    };
    if isolation.pass_unsalted {
        return (Salting::Passed, Ok(None));
    }
    refused(format!(
        "callers of this model are kept apart by a cache_salt in their requests, which this one cannot be given: {why}"
    ))
}

enum Unsalted {
    Because(&'static str),
    /// Servers may read a salt in it, or not.
    Unclear,
}

/// And whether the client had sent one.
fn salted(
    by: IsolatedBy,
    caller: Option<&SpiffeId>,
    arrived: &Arrived,
) -> Result<(Edited, bool), Unsalted> {
    if arrived.upgrade {
        return Err(Unsalted::Because("it changes the protocol"));
    }
    let Some(model) = &arrived.model else {
        return Err(Unsalted::Because("its path is none of a known API's"));
    };
    if let Some(why) = why_not(model, &arrived.head.headers) {
        return Err(Unsalted::Because(why));
    }
    if model.has_unclear_salt() {
        return Err(Unsalted::Unclear);
    }
    let own = model.cache_salt();
    let salt = salt(by, caller, own);
    let edits = model.salt_edit(&salt);
    let edited = edits.and_then(|edits| Edited::new(arrived, model, &edits));
    match edited {
        Some(edited) => Ok((edited, own.is_some())),
        None => Err(Unsalted::Because("its body is no JSON object")),
    }
}

/// Why a request has no place for a salt.
fn why_not(model: &ModelRequest, headers: &HeaderMap) -> Option<&'static str> {
    if headers::is_grpc(headers) {
        return Some("gRPC has no member for it");
    }
    match model.api {
        Api::Messages => return Some("Anthropic's API has no member for it"),
        Api::Kserve | Api::KserveGrpc => return Some("KServe's API has no member for it"),
        _ => {}
    }
    Some(match model.unread? {
        Unread::TooLarge => "its body is longer than maxBodyBytes",
        Unread::Compressed => "its body is compressed",
        Unread::OtherType => "its body is no JSON",
        Unread::Malformed => "its body is no JSON object",
        Unread::TooDeep => "its body is nested too deep",
        Unread::Late => "its first message did not come",
    })
}

/// What stands in the request: says nothing of who the caller is to those who do not know already. The client's own salt is
/// part of it, so that a gateway can keep its users apart; it reaches nobody else's cache by that.
fn salt(by: IsolatedBy, caller: Option<&SpiffeId>, own: Option<&[u8]>) -> String {
    let mut hash = Context::new(&SHA256);
    hash.update(CONTEXT);
    match (caller, by) {
        (None, _) => hash.update(b"nobody"),
        (Some(id), IsolatedBy::Identity) => {
            hash.update(b"identity\0");
            hash.update(id.as_str().as_bytes());
        }
        (Some(id), IsolatedBy::Namespace) => {
            hash.update(b"namespace\0");
            hash.update(id.trust_domain().as_bytes());
            hash.update(b"\0");
            hash.update(id.namespace().as_bytes());
        }
    }
    // Identities have no zero bytes.
    if let Some(own) = own {
        hash.update(b"\0");
        hash.update(own);
    }
    URL_SAFE_NO_PAD.encode(hash.finish())
}

#[cfg(test)]
mod tests;
