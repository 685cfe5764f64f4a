//! A request's body that can be sent more than once.
//!
//! What the client sent is kept while it is passed on, up to a cap, until the response's head arrives. Chunks are reference
//! counted: keeping them copies nothing.

mod whole;

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::body::{BodyError, Source};
use super::pump::PumpBody;
use super::tee::{Fate, Tap, TeeSource, tee};
use crate::telemetry::metrics::MirrorMetrics;
use whole::Copy;

pub(crate) use whole::Whole;

/// The request's side: hands out a body for each try.
#[derive(Clone, Debug)]
pub(crate) struct Replay {
    shared: Option<Rc<Shared>>,
}

/// One try's body.
#[derive(Debug)]
pub(crate) struct RequestBody {
    shared: Option<Rc<Shared>>,
    turn: u32,
    /// It has all of it for itself, and no turn.
    copy: Option<Box<Copy>>,
}

/// What came of reading a body ahead.
#[derive(Debug)]
pub(crate) enum Filled {
    /// All of it, in one piece.
    Whole(Bytes),
    /// It is longer.
    Longer,
    /// The client's side of the request broke.
    Broken,
}

#[derive(Debug)]
struct Shared {
    body: RefCell<Kept>,
    /// From the client so far.
    bytes: Cell<u64>,
    /// The client's side of the request broke.
    broken: Cell<bool>,
}

#[derive(Debug)]
struct Kept {
    source: Source,
    chunks: Vec<Bytes>,
    trailers: Option<HeaderMap>,
    /// All was read from the source.
    ended: bool,
    keep: Keep,
    kept: usize,
    /// Which try's body is the valid one.
    turn: u32,
    /// Copies get what comes from the source, once.
    taps: Vec<Tap>,
    /// The kept chunk that it gets next; one past the number of chunks when it has got the end as well.
    next: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    /// At most so many bytes.
    UpTo(usize),
    /// No more: a chunk was passed on that was not kept.
    Lost,
}

impl Replay {
    /// Keeps nothing until [`keep`](Self::keep) says how much.
    pub(crate) fn new(source: Source) -> Replay {
        if source.is_end_stream() {
            return Replay { shared: None };
        }
        Replay {
            shared: Some(Rc::new(Shared {
                body: RefCell::new(Kept {
                    source,
                    chunks: Vec::new(),
                    trailers: None,
                    ended: false,
                    keep: Keep::UpTo(0),
                    kept: 0,
                    turn: 0,
                    taps: Vec::new(),
                    next: 0,
                }),
                bytes: Cell::new(0),
                broken: Cell::new(false),
            })),
        }
    }

    /// `cap`: the most bytes that are kept. `length`: the body's length where it is known; a longer one is not kept at all. To
    /// be called before the first try.
    pub(crate) fn keep(&self, cap: usize, length: Option<u64>) {
        if let Some(shared) = &self.shared {
            let fits = |length| usize::try_from(length).is_ok_and(|length| length <= cap);
            let mut body = shared.body.borrow_mut();
            let cap = match length {
                // It was read ahead, and is here as it is.
                _ if body.ended => cap.max(body.kept),
                None => cap,
                Some(length) if fits(length) => cap,
                Some(_) => 0,
            };
            body.keep = Keep::UpTo(cap);
        }
    }

    /// Has all that is read copied. `None`: there is nothing to copy. To be called before the first try.
    pub(crate) fn tap(&self, budget: &Arc<MirrorMetrics>) -> Option<(TeeSource, Fate)> {
        let shared = self.shared.as_ref()?;
        let (tap, source, fate) = tee(budget);
        let mut body = shared.body.borrow_mut();
        for chunk in &body.chunks {
            tap.push(chunk);
        }
        if body.ended {
            tap.end(body.trailers.as_ref());
        } else {
            body.taps.push(tap);
        }
        Some((source, fate))
    }

    /// Reads the body ahead, for somebody who looks at it before it is sent: all of it where it has at most `cap` bytes. What
    /// was read goes to the tries as it would have. To be called before the first try, and before [`keep`](Self::keep).
    pub(crate) fn poll_fill(&self, cap: usize, cx: &mut Context<'_>) -> Poll<Filled> {
        let Some(shared) = &self.shared else {
            return Poll::Ready(Filled::Whole(Bytes::new()));
        };
        let mut body = shared.body.borrow_mut();
        loop {
            if body.kept > cap {
                return Poll::Ready(Filled::Longer);
            }
            if body.ended {
                return Poll::Ready(Filled::Whole(body.join()));
            }
            if ready!(shared.poll_ahead(&mut body, cx)).is_err() {
                return Poll::Ready(Filled::Broken);
            }
        }
    }

    /// As [`poll_fill`](Self::poll_fill), for the first message of a stream: no further than to its end. `length`: how long it is
    /// with its prefix, by that. What is there may be more than it; less where the body has ended.
    pub(crate) fn poll_message<const PREFIX: usize>(
        &self,
        cap: usize,
        length: impl Fn([u8; PREFIX]) -> u64,
        cx: &mut Context<'_>,
    ) -> Poll<Filled> {
        let Some(shared) = &self.shared else {
            return Poll::Ready(Filled::Whole(Bytes::new()));
        };
        let mut body = shared.body.borrow_mut();
        loop {
            if let Some(length) = body.prefix().map(&length) {
                if length > cap as u64 {
                    return Poll::Ready(Filled::Longer);
                }
                if body.kept as u64 >= length {
                    return Poll::Ready(Filled::Whole(body.join()));
                }
            }
            if body.ended {
                return Poll::Ready(Filled::Whole(body.join()));
            }
            if ready!(shared.poll_ahead(&mut body, cx)).is_err() {
                return Poll::Ready(Filled::Broken);
            }
        }
    }

    /// The body for the next try; the one before is void from now on.
    pub(crate) fn body(&self) -> RequestBody {
        let turn = self.shared.as_ref().map_or(0, |shared| {
            let mut body = shared.body.borrow_mut();
            body.turn += 1;
            body.next = 0;
            body.turn
        });
        RequestBody {
            shared: self.shared.clone(),
            turn,
            copy: None,
        }
    }

    /// The body as a whole. `None`: some of it is not here yet, or was not kept.
    pub(crate) fn whole(&self) -> Option<Whole> {
        let Some(shared) = &self.shared else {
            return Some(Whole::default());
        };
        let body = shared.body.borrow();
        let complete = body.ended && body.keep != Keep::Lost && !shared.broken.get();
        complete.then(|| Whole {
            chunks: body.chunks.clone(),
            trailers: body.trailers.clone(),
        })
    }

    /// Whether it is known that the request has no body.
    pub(crate) fn is_empty(&self) -> bool {
        self.shared.is_none()
    }

    /// Whether another try would see all of the body.
    pub(crate) fn can_repeat(&self) -> bool {
        self.shared
            .as_ref()
            .is_none_or(|shared| shared.body.borrow().keep != Keep::Lost && !shared.broken.get())
    }

    /// Whether the last byte was handed out.
    pub(crate) fn is_sent(&self) -> bool {
        self.shared
            .as_ref()
            .is_none_or(|shared| shared.body.borrow().ended)
    }

    /// There will be no other try: nothing needs to be kept.
    pub(crate) fn seal(&self) {
        if let Some(shared) = &self.shared {
            let mut body = shared.body.borrow_mut();
            let body = &mut *body;
            body.keep = Keep::Lost;
            // It was read ahead, and another one was sent in its place.
            let unused = body.turn == 0 && body.ended;
            let done = if unused { body.chunks.len() } else { body.next };
            for chunk in body.chunks.iter_mut().take(done) {
                *chunk = Bytes::new();
            }
        }
    }

    /// Body bytes from the client so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.shared.as_ref().map_or(0, |shared| shared.bytes.get())
    }

    /// Whether the client's side of the request broke.
    pub(crate) fn is_broken(&self) -> bool {
        self.shared
            .as_ref()
            .is_some_and(|shared| shared.broken.get())
    }
}

/// The client's side of the request broke.
struct Broken;

impl Shared {
    /// Reads a piece before any try does.
    fn poll_ahead(&self, body: &mut Kept, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let frame = match ready!(Pin::new(&mut body.source).poll_frame(cx)) {
            None => {
                body.end(None);
                return Poll::Ready(Ok(()));
            }
            Some(Err(_)) => {
                self.broken.set(true);
                return Poll::Ready(Err(Broken));
            }
            Some(Ok(frame)) => frame,
        };
        match frame.into_data() {
            Ok(data) => {
                self.bytes.set(self.bytes.get() + data.len() as u64);
                body.kept += data.len();
                if !data.is_empty() {
                    body.chunks.push(data);
                }
                if body.source.is_end_stream() {
                    body.end(None);
                }
            }
            Err(frame) => {
                body.trailers = frame.into_trailers().ok();
                body.end(None);
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll(
        &self,
        turn: u32,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut body = self.body.borrow_mut();
        let body = &mut *body;
        if body.turn != turn {
            return Poll::Ready(Some(Err(BodyError::Superseded)));
        }
        if let Some(chunk) = body.chunks.get_mut(body.next) {
            body.next += 1;
            // Nobody will ask for it again where no more is kept.
            let chunk = match body.keep {
                Keep::UpTo(_) => chunk.clone(),
                Keep::Lost => std::mem::take(chunk),
            };
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        if body.ended {
            if body.next == body.chunks.len() {
                body.next += 1;
                if let Some(trailers) = &body.trailers {
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers.clone()))));
                }
            }
            return Poll::Ready(None);
        }
        let frame = match ready!(Pin::new(&mut body.source).poll_frame(cx)) {
            None => {
                body.end(None);
                body.next = body.chunks.len() + 1;
                return Poll::Ready(None);
            }
            Some(Err(error)) => {
                self.broken.set(true);
                body.taps = Vec::new();
                return Poll::Ready(Some(Err(error)));
            }
            Some(Ok(frame)) => frame,
        };
        match frame.into_data() {
            Ok(data) => {
                self.bytes.set(self.bytes.get() + data.len() as u64);
                body.keep(&data);
                for tap in &body.taps {
                    tap.push(&data);
                }
                if body.source.is_end_stream() {
                    body.end(None);
                }
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Err(frame) => {
                if let Some(trailers) = frame.trailers_ref() {
                    body.trailers = Some(trailers.clone());
                }
                body.end(frame.trailers_ref());
                body.next = body.chunks.len() + 1;
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }
}

impl Kept {
    /// All was read from the source.
    fn end(&mut self, trailers: Option<&HeaderMap>) {
        self.ended = true;
        for tap in &self.taps {
            tap.end(trailers);
        }
        self.taps = Vec::new();
    }

    /// The first bytes. `None`: not all of them are here.
    fn prefix<const LENGTH: usize>(&self) -> Option<[u8; LENGTH]> {
        let mut bytes = self.chunks.iter().flatten();
        let mut prefix = [0; LENGTH];
        for place in &mut prefix {
            *place = *bytes.next()?;
        }
        Some(prefix)
    }

    /// All chunks as one.
    fn join(&mut self) -> Bytes {
        if let [only] = self.chunks.as_slice() {
            return only.clone();
        }
        let mut joined = Vec::with_capacity(self.kept);
        for chunk in &self.chunks {
            joined.extend_from_slice(chunk);
        }
        let joined = Bytes::from(joined);
        if !joined.is_empty() {
            self.chunks = vec![joined.clone()];
        }
        joined
    }

    fn keep(&mut self, data: &Bytes) {
        let Keep::UpTo(cap) = self.keep else {
            return;
        };
        if self.kept + data.len() > cap {
            self.keep = Keep::Lost;
            self.chunks = Vec::new();
            self.next = 0;
            return;
        }
        self.kept += data.len();
        self.chunks.push(data.clone());
        self.next = self.chunks.len();
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(copy) = &mut self.copy {
            return Poll::Ready(copy.next().map(Ok));
        }
        match &self.shared {
            None => Poll::Ready(None),
            Some(shared) => shared.poll(self.turn, cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        if let Some(copy) = &self.copy {
            return copy.is_at_end();
        }
        self.shared.as_ref().is_none_or(|shared| {
            let body = shared.body.borrow();
            // A body that was superseded has no end: its connection must not take it for a whole one.
            body.turn == self.turn
                && body.ended
                && (body.next > body.chunks.len()
                    || (body.next == body.chunks.len() && body.trailers.is_none()))
        })
    }

    fn size_hint(&self) -> SizeHint {
        if let Some(copy) = &self.copy {
            return SizeHint::with_exact(copy.bytes());
        }
        match &self.shared {
            None => SizeHint::with_exact(0),
            Some(shared) => {
                let body = shared.body.borrow();
                // In a later try the source's hint is about what is left; the header says the whole.
                if body.turn == 1 && body.next == 0 && body.chunks.is_empty() {
                    body.source.size_hint()
                } else {
                    SizeHint::default()
                }
            }
        }
    }
}

/// Whether the upstream takes what it is sent is watched by the response's clocks.
impl PumpBody for RequestBody {}

#[cfg(test)]
mod tests;
