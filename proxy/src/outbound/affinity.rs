//! What binds a request to an endpoint: its session, or the key that its service hashes.

use std::cell::{Cell, OnceCell, RefCell};
use std::sync::Arc;

use http::HeaderMap;
use rand::Rng;

use crate::balance::hash::{Hasher, mix};
use crate::balance::{Endpoint, EndpointSet, Prompt};
use crate::http::arrival::Arrived;
use crate::http::cookies;
use crate::policy::{Backend, HashKey, HashPolicy, Rule, Token};
use crate::runtime::Worker;
use crate::telemetry::metrics::SessionOutcome;

/// Of one request, over all of its tries. Costs nothing where nothing of it is configured.
pub(super) struct Affinity {
    sticky: Option<Sticky>,
    /// Value of the cookie that was made for a client without one.
    made: Cell<Option<Digits>>,
    /// Where the policy is for models.
    prompt: OnceCell<Option<Box<Prompt>>>,
    /// Tokens that the endpoint which was chosen last has to read. `None`: none was chosen by the prompt.
    uncached: Cell<Option<u32>>,
}

/// Hexadecimal.
type Digits = [u8; 16];

struct Sticky {
    token: Token,
    answered: RefCell<Option<Arc<Endpoint>>>,
}

impl Affinity {
    pub(super) fn of(rule: &Rule, headers: &HeaderMap) -> Affinity {
        let session = rule.session.as_ref();
        Affinity {
            sticky: session.map(|session| Sticky {
                token: session.token(headers),
                answered: RefCell::default(),
            }),
            made: Cell::new(None),
            prompt: OnceCell::new(),
            uncached: Cell::new(None),
        }
    }

    /// What a policy for models goes by. Read once, for all tries.
    pub(super) fn prompt(&self, request: &Arrived) -> Option<&Prompt> {
        let read = || request.model.as_ref()?.prompt().map(Box::new);
        self.prompt.get_or_init(read).as_deref()
    }

    pub(super) fn set_uncached(&self, tokens: u32) {
        self.uncached.set(Some(tokens));
    }

    /// Tokens that the endpoint has to read, by all that is known.
    pub(super) fn uncached(&self, request: &Arrived) -> u32 {
        let whole = || self.prompt(request).map_or(0, Prompt::tokens);
        self.uncached.take().unwrap_or_else(whole)
    }

    /// The backend that the session is at, before any weight.
    pub(super) fn backend<'a>(&self, rule: &'a Rule) -> Option<&'a Backend> {
        match &self.sticky.as_ref()?.token {
            Token::Of(backend, _) => rule.backends.get(*backend),
            _ => None,
        }
    }

    /// The session's endpoint, where it can take the request.
    pub(super) fn same(
        &self,
        endpoints: &EndpointSet,
        tried: &[Arc<Endpoint>],
    ) -> Option<Arc<Endpoint>> {
        match &self.sticky.as_ref()?.token {
            Token::Of(_, endpoint) => endpoints.pick_same(endpoint, tried),
            _ => None,
        }
    }

    /// The hash of what the request is told by. `None`: the service does not hash, or there is nothing of it.
    pub(super) fn key(
        &self,
        endpoints: &EndpointSet,
        worker: &Worker,
        request: &Arrived,
    ) -> Option<u64> {
        let head = &request.head;
        let mut combined: Option<u64> = None;
        for input in &endpoints.hash_policy()?.inputs {
            let of = |bytes: &[u8]| Hasher::new().bytes(bytes).finish();
            let found = match &input.key {
                HashKey::Header(name) => head.headers.get(name).map(|value| of(value.as_bytes())),
                HashKey::Cookie(cookie) => Some(match cookies::find(&head.headers, &cookie.name) {
                    Some(value) => of(value),
                    None => of(&self.make(worker)),
                }),
                HashKey::SourceIdentity => {
                    let tls = worker.shared.tls.load();
                    tls.as_ref().map(|tls| of(tls.id.as_str().as_bytes()))
                }
                HashKey::Path => Some(of(head.uri.path().as_bytes())),
                HashKey::QueryParameter(name) => {
                    parameter(head.uri.query(), name).map(|value| of(value.as_bytes()))
                }
            };
            let Some(found) = found else { continue };
            // The order counts: (a, b) is not (b, a).
            combined = Some(combined.map_or(found, |before| mix(before.rotate_left(1) ^ found)));
            if input.terminal {
                break;
            }
        }
        combined
    }

    /// The same value for all tries.
    fn make(&self, worker: &Worker) -> Digits {
        self.made.get().unwrap_or_else(|| {
            let number = worker.rng.borrow_mut().next_u64();
            let mut digits = Digits::default();
            for (index, digit) in digits.iter_mut().enumerate() {
                *digit = b"0123456789abcdef"[(number >> (4 * index)) as usize & 15];
            }
            self.made.set(Some(digits));
            digits
        })
    }

    /// This endpoint answered; the last one whose answer comes counts.
    pub(super) fn answered(&self, endpoint: &Arc<Endpoint>) {
        if let Some(sticky) = &self.sticky {
            *sticky.answered.borrow_mut() = Some(Arc::clone(endpoint));
        }
    }

    /// Tells the client by what it is known from now on.
    pub(super) fn finish(&self, rule: &Rule, endpoints: &EndpointSet, headers: &mut HeaderMap) {
        if let Some(digits) = self.made.get() {
            hash_cookie(endpoints.hash_policy(), &digits, headers);
        }
        let (Some(sticky), Some(session)) = (&self.sticky, &rule.session) else {
            return;
        };
        let answered = sticky.answered.borrow();
        let Some(answered) = answered.as_ref() else {
            return;
        };
        let outcome = match &sticky.token {
            Token::Of(_, endpoint) if endpoint.is_same(answered) => SessionOutcome::Kept,
            Token::Of(..) | Token::Gone => SessionOutcome::Moved,
            Token::Expired => SessionOutcome::Expired,
            Token::None => SessionOutcome::New,
        };
        session.metrics.session(outcome);
        if outcome != SessionOutcome::Kept {
            session.give(answered, headers);
        }
    }
}

fn hash_cookie(policy: Option<&HashPolicy>, digits: &Digits, headers: &mut HeaderMap) {
    let cookie = policy.and_then(HashPolicy::cookie);
    // The digits are ASCII.
    if let (Some(cookie), Ok(value)) = (cookie, std::str::from_utf8(digits)) {
        cookies::set(headers, &cookie.name, value, &cookie.path, cookie.ttl);
    }
}

/// Value of the first parameter of this name.
fn parameter<'a>(query: Option<&'a str>, name: &str) -> Option<&'a str> {
    query?.split('&').find_map(|pair| {
        let (found, value) = pair.split_once('=').unwrap_or((pair, ""));
        (found == name).then_some(value)
    })
}
