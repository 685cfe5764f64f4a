//! A model's answer on its way: what is seen of it, and the clocks of its tokens.

use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use http::{Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::super::ModelRequest;
use super::budget::{Ended, Metered, Metering};
use super::clocks::Clocks;
use super::usage::UsageFilter;
use super::{Observer, Report, StreamOutcome, events};
use crate::admission::tokens::Meter;
use crate::error::Reason;
use crate::http::body::{BodyError, Source};
use crate::policy::Inference;

/// Bytes that are held back while the first token is waited for. A stream that has more without one is let go.
const MAX_HELD: usize = 64 << 10;
/// Of an answer that is no stream, to find its usage.
const MAX_WHOLE: usize = 1 << 20;

/// A body that is looked at.
#[derive(Debug)]
pub(crate) struct ModelStream {
    inner: Source,
    watched: Watched,
    report: Rc<Report>,
    /// Read before the first token, and not yet passed on.
    held: VecDeque<Frame<Bytes>>,
    held_bytes: usize,
    clocks: Option<Box<Clocks>>,
    /// `None`: it goes on; the error, until it was told.
    broken: Option<Option<BodyError>>,
    /// Its tokens are of a budget.
    metering: Option<Box<Metering>>,
}

#[derive(Debug)]
enum Watched {
    Stream {
        observer: Observer,
        /// `Some`: the client is not shown the usage that we asked for.
        filter: Option<UsageFilter>,
    },
    /// In one piece. `None`: it is too long.
    Whole(Option<Vec<Bytes>>),
}

/// Which kind of answer it is, by its head. `None`: one that is not read.
fn kind(status: StatusCode, headers: &HeaderMap) -> Option<bool> {
    if status != StatusCode::OK || headers.contains_key(CONTENT_ENCODING) {
        return None;
    }
    let kind = headers.get(CONTENT_TYPE)?.as_bytes();
    let is = |wanted: &[u8]| {
        kind.get(..wanted.len())
            .is_some_and(|kind| kind.eq_ignore_ascii_case(wanted))
    };
    if is(b"text/event-stream") {
        Some(true)
    } else {
        is(b"application/json").then_some(false)
    }
}

/// Looks at an answer from now on, and does nothing else.
pub(crate) fn watch(request: &ModelRequest, response: Response<Source>) -> Response<Source> {
    let Some(is_stream) = kind(response.status(), response.headers()) else {
        return response;
    };
    response.map(|inner| {
        Source::Model(Box::new(ModelStream {
            inner,
            watched: if is_stream {
                Watched::Stream {
                    observer: Observer::new(request.api),
                    filter: None,
                }
            } else {
                Watched::Whole(Some(Vec::new()))
            },
            report: Rc::new(Report::new(request.api, is_stream)),
            held: VecDeque::new(),
            held_bytes: 0,
            clocks: None,
            broken: None,
            metering: None,
        }))
    })
}

/// Counts a stream's tokens against the budgets that they are of, and ends it where one says so.
pub(crate) fn meter(meter: &Rc<Meter>, request: &ModelRequest, response: &mut Response<Source>) {
    let Source::Model(stream) = response.body_mut() else {
        return;
    };
    if !stream.report.is_stream {
        return;
    }
    let metering = Metering::new(Rc::clone(meter), request);
    let ends = metering.ends();
    stream.metering = Some(Box::new(metering));
    if ends {
        // It may get shorter.
        response.headers_mut().remove(CONTENT_LENGTH);
    }
}

/// As [`watch`], with what the service's policy says of streams. Where `hold` is set, waits until the first token is there, or
/// it is clear that none will come: not longer than to its moment, nor than the policy's time for keep-alive comments, which
/// need the head to be sent. `first_token`: when the first token must be there. `is_part`: what the client gets is looked at elsewhere, by
/// [`watch_whole`].
pub(crate) async fn begin(
    inference: &Inference,
    request: &ModelRequest,
    response: Response<Source>,
    hold: Option<Option<Instant>>,
    first_token: Option<Instant>,
    is_part: bool,
) -> Response<Source> {
    let mut response = watch(request, response);
    let policy = &inference.streams;
    let Source::Model(stream) = response.body_mut() else {
        return response;
    };
    let Watched::Stream { filter, .. } = &mut stream.watched else {
        return response;
    };
    if request.adds_usage(inference) && !is_part {
        *filter = Some(UsageFilter::default());
        // It gets shorter.
        response.headers_mut().remove(CONTENT_LENGTH);
    }
    let Source::Model(stream) = response.body_mut() else {
        return response;
    };
    if policy.token_idle.is_some() || policy.keep_alive.is_some() || first_token.is_some() {
        stream.clocks = Some(Box::new(Clocks {
            token_idle: policy.token_idle,
            keep_alive: policy.keep_alive,
            first_token,
            moved_at: Instant::now(),
            timer: None,
        }));
    }
    if let Some(until) = hold {
        let waiting = std::future::poll_fn(|cx| stream.poll_first(cx));
        let comment = policy
            .keep_alive
            .and_then(|after| Instant::now().checked_add(after));
        match until.into_iter().chain(comment).min() {
            Some(until) => {
                let _ = tokio::time::timeout_at(until, waiting).await;
            }
            None => waiting.await,
        }
    }
    response
}

/// Looks at an answer that is put together of parts, as the client gets it.
pub(crate) fn watch_whole(
    inference: &Inference,
    request: &ModelRequest,
    response: Response<Source>,
) -> Response<Source> {
    let mut response = watch(request, response);
    if request.adds_usage(inference)
        && let Source::Model(stream) = response.body_mut()
        && let Watched::Stream { filter, .. } = &mut stream.watched
    {
        *filter = Some(UsageFilter::default());
    }
    response
}

impl ModelStream {
    /// What is seen of it.
    pub(crate) fn report(&self) -> &Rc<Report> {
        &self.report
    }

    /// Whether it is over, or as good as over, without a token: the request can be made elsewhere.
    pub(crate) fn is_lost(&self) -> bool {
        if !self.report.is_stream || self.report.first_token().is_some() {
            return false;
        }
        let over = self.broken.is_some() || self.inner.is_end_stream();
        match self.report.outcome() {
            StreamOutcome::Error => true,
            StreamOutcome::Complete => false,
            StreamOutcome::Truncated | StreamOutcome::Empty => over,
        }
    }

    /// Ready when the first token is here, or none will come. What was read is kept.
    fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let over = self.broken.is_some() || self.inner.is_end_stream();
            let seen = self.report.seen();
            let known = seen.tokens > 0 || seen.error || seen.done || seen.finish.is_some();
            if over || known || self.held_bytes > MAX_HELD {
                return Poll::Ready(());
            }
            match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Some(frame) = self.look(frame) {
                        self.held_bytes += frame.data_ref().map_or(0, Bytes::len);
                        self.held.push_back(frame);
                    }
                }
                Some(Err(error)) => self.broken = Some(Some(error)),
                None => self.broken = Some(None),
            }
        }
    }

    /// Takes note of a frame. `None`: the client does not get it.
    fn look(&mut self, frame: Frame<Bytes>) -> Option<Frame<Bytes>> {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => return Some(frame),
        };
        match &mut self.watched {
            Watched::Stream { observer, filter } => {
                let before = observer.seen.tokens;
                let data = match filter {
                    None if self.metering.is_some() => {
                        let metered = self.metering.as_mut().map(|it| it.pass(data, observer));
                        let Metered { data, end } = metered?;
                        if let Some(end) = end {
                            // What is upstream of it is cancelled by that.
                            self.inner = Source::Empty;
                            if end == Ended::Broken {
                                let error = BodyError::Clock(Reason::TokenBudget);
                                self.broken = Some(Some(error));
                            }
                        }
                        data
                    }
                    None => {
                        observer.feed(&data);
                        data
                    }
                    Some(filter) => {
                        let mut data = filter.pass(data, observer);
                        if self.inner.is_end_stream() {
                            let rest = filter.rest();
                            if !rest.is_empty() {
                                data = [data, rest].concat().into();
                            }
                        }
                        data
                    }
                };
                if observer.seen.tokens != before {
                    self.report.moved(Instant::now());
                }
                *self.report.seen.borrow_mut() = observer.seen;
                (!data.is_empty()).then(|| Frame::data(data))
            }
            Watched::Whole(chunks) => {
                if let Some(kept) = chunks {
                    kept.push(data.clone());
                    let length: usize = kept.iter().map(Bytes::len).sum();
                    if length > MAX_WHOLE || kept.len() > 1024 {
                        *chunks = None;
                    } else if self.inner.is_end_stream() {
                        self.read_whole();
                    }
                }
                Some(Frame::data(data))
            }
        }
    }

    fn read_whole(&mut self) {
        if let Watched::Whole(chunks) = &mut self.watched
            && let Some(chunks) = chunks.take()
        {
            let mut seen = self.report.seen.borrow_mut();
            match chunks.as_slice() {
                [] => {}
                [only] => events::whole(only, &mut seen),
                many => events::whole(&many.concat(), &mut seen),
            }
        }
    }

    /// The server's side has ended.
    fn end(&mut self) -> Option<Frame<Bytes>> {
        self.read_whole();
        let rest = match (&mut self.watched, &mut self.metering) {
            (
                Watched::Stream {
                    filter: Some(filter),
                    ..
                },
                _,
            ) => filter.rest(),
            (_, Some(metering)) => metering.rest(),
            _ => return None,
        };
        (!rest.is_empty()).then(|| Frame::data(rest))
    }

    fn is_between(&self) -> bool {
        match &self.watched {
            Watched::Stream { observer, filter } => match filter {
                Some(filter) => filter.is_between(),
                None => observer.splitter.is_between(),
            },
            Watched::Whole(_) => false,
        }
    }

    /// A clock's word, while nothing comes: the comment to send, or why it is over.
    fn poll_clocks(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame<Bytes>, BodyError>> {
        let between = self.is_between();
        match &mut self.clocks {
            Some(clocks) => clocks.poll(&self.report, between, cx),
            None => Poll::Pending,
        }
    }
}

impl Body for ModelStream {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let me = &mut *self;
        if let Some(frame) = me.held.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
        }
        if let Some(error) = &mut me.broken {
            return Poll::Ready(match error.take() {
                Some(error) => Some(Err(error)),
                None => me.end().map(Ok),
            });
        }
        loop {
            match Pin::new(&mut me.inner).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    if let Some(clocks) = &mut me.clocks {
                        clocks.moved_at = Instant::now();
                    }
                    if let Some(frame) = me.look(frame) {
                        return Poll::Ready(Some(Ok(frame)));
                    }
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => return Poll::Ready(me.end().map(Ok)),
                Poll::Pending => return me.poll_clocks(cx).map(Some),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let filtered = match &self.watched {
            Watched::Stream {
                filter: Some(filter),
                ..
            } => filter.is_empty(),
            _ => self.metering.as_ref().is_none_or(|it| it.is_empty()),
        };
        let broken = matches!(self.broken, Some(Some(_)));
        self.held.is_empty() && filtered && !broken && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let is_filtered = matches!(
            &self.watched,
            Watched::Stream {
                filter: Some(_),
                ..
            }
        );
        let may_end = self.metering.as_ref().is_some_and(|it| it.ends());
        if is_filtered || may_end || !self.held.is_empty() {
            return SizeHint::default();
        }
        self.inner.size_hint()
    }
}
