//! What is kept of a sampled request until it ends.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use rand::Rng;
use tokio::time::Instant;

use super::context::Context;
use crate::balance::Endpoint;
use crate::error::Reason;
use crate::http::headers::TRACEPARENT;
use crate::identity::SpiffeId;
use crate::inference::Api;
use crate::policy::{Inference, Tracing};
use crate::telemetry::access_log::Entry;

/// What other tracing systems say; it belongs to its `traceparent`.
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Tries that are told of one request. A policy has a handful.
const MAX_TRIES: usize = 32;

/// A sampled request's place in its trace. Shared by the parts of one request; all of them run on one thread.
#[derive(Debug)]
pub(crate) struct Trace {
    context: Context,
    parent: Option<[u8; 8]>,
    /// Where tries beyond the first get the ids of their spans from: a counter that begins at random.
    spans: Cell<u64>,
    tries: RefCell<Vec<Try>>,
    model: RefCell<Option<(Api, Arc<Inference>)>>,
}

/// The request at one endpoint.
#[derive(Debug)]
struct Try {
    span: [u8; 8],
    address: SocketAddr,
    peer: Option<SpiffeId>,
    began: Instant,
    /// `None`: it is under way; without a result: it was given up.
    ended: Option<(Instant, Option<TryEnd>)>,
}

/// What came of a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TryEnd {
    Answered(StatusCode),
    Failed(Reason),
}

/// Finds out whether a request is sampled. `has_parent`: it has a `traceparent`; `may_begin`: nobody before us has decided. Where it
/// is, its `traceparent` names our span from now on.
pub(crate) fn begin(
    tracing: &Tracing,
    has_parent: bool,
    may_begin: bool,
    headers: &mut HeaderMap,
    rng: &mut impl Rng,
) -> Option<Rc<Trace>> {
    let parent = if has_parent { parent(headers) } else { None };
    let (context, parent) = match parent {
        Some(parent) if !parent.is_sampled() => return None,
        Some(parent) => (parent.with_span(id(rng)), Some(parent.span)),
        None if !may_begin || !tracing.samples(rng.next_u64()) => return None,
        None => {
            // What is said of another trace, or of none.
            headers.remove(TRACESTATE);
            let mut trace = [0; 16];
            trace[..8].copy_from_slice(&id(rng));
            trace[8..].copy_from_slice(&id(rng));
            (Context::root(trace, id(rng)), None)
        }
    };
    headers.insert(TRACEPARENT, context.header());
    Some(Rc::new(Trace {
        context,
        parent,
        spans: Cell::new(rng.next_u64()),
        tries: RefCell::default(),
        model: RefCell::default(),
    }))
}

/// `None`: there is none, or several.
fn parent(headers: &HeaderMap) -> Option<Context> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let first = values.next()?;
    if values.next().is_some() {
        return None;
    }
    Context::parse(first.as_bytes())
}

/// Eight bytes that are not all zero.
fn id(rng: &mut impl Rng) -> [u8; 8] {
    rng.next_u64().max(1).to_be_bytes()
}

impl Trace {
    /// The request is sent to an endpoint. Ends without a result where the guard is dropped.
    pub(crate) fn try_at(self: &Rc<Trace>, endpoint: &Endpoint) -> Trying {
        let mut tries = self.tries.borrow_mut();
        let index = tries.len();
        let span = if index == 0 {
            self.context.span
        } else {
            let next = self.spans.get().wrapping_add(1).max(1);
            self.spans.set(next);
            next.to_be_bytes()
        };
        if index < MAX_TRIES {
            tries.push(Try {
                span,
                address: endpoint.address,
                peer: endpoint.identity.clone(),
                began: Instant::now(),
                ended: None,
            });
        }
        Trying {
            trace: Rc::clone(self),
            index,
            span,
            end: None,
        }
    }

    /// It is for a model.
    pub(crate) fn set_model(&self, api: Api, inference: &Arc<Inference>) {
        *self.model.borrow_mut() = Some((api, Arc::clone(inference)));
    }

    /// The request has ended. `started`: when it came.
    pub(crate) fn end(&self, entry: Entry, started: Instant) -> Ended {
        let tries = self.tries.take();
        let since = |at: Instant| at.saturating_duration_since(started);
        let passed_on = passed_on(&tries);
        let tries = tries.into_iter().enumerate().map(|(index, it)| {
            let over = it.ended.filter(|_| passed_on != Some(index));
            EndedTry {
                span: it.span,
                address: it.address,
                peer: it.peer,
                began: since(it.began),
                ended: over.map_or(entry.outcome.duration, |(at, _)| since(at)),
                end: it.ended.and_then(|(_, end)| end),
            }
        });
        let tries = tries.collect();
        Ended {
            trace: self.context.trace,
            span: self.context.span,
            flags: self.context.flags,
            parent: self.parent,
            around: self.spans.get().wrapping_add(1).max(1).to_be_bytes(),
            tries,
            model: self.model.take(),
            entry,
        }
    }
}

/// The try whose answer the client gets: it goes on for as long as that. The last one that answered, unless another one failed after it.
fn passed_on(tries: &[Try]) -> Option<usize> {
    let ended = tries.iter().enumerate().filter_map(|(index, it)| {
        let (at, end) = it.ended?;
        Some((at, index, end?))
    });
    match ended.max_by_key(|(at, index, _)| (*at, *index)) {
        Some((_, index, TryEnd::Answered(_))) => Some(index),
        _ => None,
    }
}

/// A try under way. Dropped, it was given up.
#[derive(Debug)]
pub(crate) struct Trying {
    trace: Rc<Trace>,
    index: usize,
    span: [u8; 8],
    end: Option<TryEnd>,
}

impl Trying {
    /// The header for this try. `None`: the request's own will do.
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        (self.index > 0).then(|| self.trace.context.with_span(self.span).header())
    }

    pub(crate) fn end(mut self, end: TryEnd) {
        self.end = Some(end);
    }
}

impl Drop for Trying {
    fn drop(&mut self) {
        if let Some(it) = self.trace.tries.borrow_mut().get_mut(self.index) {
            it.ended = Some((Instant::now(), self.end));
        }
    }
}

/// All that is told of a request.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(super) trace: [u8; 16],
    /// What the next hop, or the first of several, was told.
    pub(super) span: [u8; 8],
    pub(super) flags: u8,
    pub(super) parent: Option<[u8; 8]>,
    /// For the span around several tries.
    pub(super) around: [u8; 8],
    pub(super) tries: Vec<EndedTry>,
    pub(super) model: Option<(Api, Arc<Inference>)>,
    pub(super) entry: Entry,
}

#[derive(Debug)]
pub(super) struct EndedTry {
    pub(super) span: [u8; 8],
    pub(super) address: SocketAddr,
    pub(super) peer: Option<SpiffeId>,
    /// Since the request came.
    pub(super) began: Duration,
    pub(super) ended: Duration,
    /// `None`: it was given up.
    pub(super) end: Option<TryEnd>,
}

impl Ended {
    /// How many spans it makes.
    pub(super) fn spans(&self) -> u64 {
        match self.tries.len() {
            0 | 1 => 1,
            several => 1 + several as u64,
        }
    }
}
