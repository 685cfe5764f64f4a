//! A token stream that goes on elsewhere where it breaks.

use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context as TaskContext, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::Context;
use crate::balance::InFlight;
use crate::http::body::{BodyError, Source};
use crate::inference::continuation::{Breaks, Events, Next, Step, Transcript};
use crate::resilience::outlier::Fault;
use crate::telemetry::metrics::{ContinuationResult, ContinuedBy};

/// What the client sees where a stream goes on elsewhere. Comments are no events: clients pass over them.
const MARK: &[u8] = b": outrigger-continued\n\n";

type Resumed = Result<(Source, InFlight), ContinuationResult>;
type Resuming = Pin<Box<dyn Future<Output = (Box<Context>, Resumed)>>>;

/// Passes whole events on. Dropping it cancels whatever is under way for it.
pub(crate) struct ContinuedStream {
    now: Now,
    /// `None` while the rest is asked for.
    context: Option<Box<Context>>,
    /// At whoever answers.
    in_flight: Option<InFlight>,
    transcript: Transcript,
    events: Events,
    /// For the client.
    out: Vec<u8>,
    trailers: Option<Frame<Bytes>>,
    /// Events are not looked at any more.
    is_raw: bool,
    /// How the last break looked: what the client gets where nobody goes on.
    broken: (Vec<u8>, Option<BodyError>),
    by: ContinuedBy,
    /// Requests for the rest.
    attempts: u32,
    most: u32,
    /// The last one of them failed.
    failed: bool,
    breaks: Rc<Breaks>,
}

enum Now {
    Reading(Source),
    Resuming(Resuming),
    /// The error, until it was told.
    Ended(Option<BodyError>),
}

impl fmt::Debug for ContinuedStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContinuedStream")
            .field("transcript", &self.transcript)
            .field("attempts", &self.attempts)
            .finish_non_exhaustive()
    }
}

impl ContinuedStream {
    pub(super) fn new(
        leg: Source,
        in_flight: InFlight,
        transcript: Transcript,
        context: Box<Context>,
        most: u32,
        breaks: Rc<Breaks>,
    ) -> ContinuedStream {
        ContinuedStream {
            now: Now::Reading(leg),
            context: Some(context),
            in_flight: Some(in_flight),
            transcript,
            events: Events::default(),
            out: Vec::new(),
            trailers: None,
            is_raw: false,
            broken: (Vec::new(), None),
            by: ContinuedBy::None,
            attempts: 0,
            most,
            failed: false,
            breaks,
        }
    }

    /// Bytes from whoever answers.
    fn take(&mut self, data: &[u8]) {
        if self.is_raw {
            self.out.extend_from_slice(data);
            return;
        }
        self.events.push(data);
        while let Some(event) = self.events.next() {
            match self.transcript.event(event, &mut self.out) {
                Step::Go => {}
                Step::Broken => {
                    let event = event.to_vec();
                    return self.broke(event, None, true);
                }
                Step::OtherModel => {
                    self.in_flight = None;
                    return self.fail(ContinuationResult::OtherModel);
                }
            }
        }
        if let Some(in_flight) = &mut self.in_flight {
            if self.transcript.has_begun() {
                in_flight.first_token();
            }
            if self.transcript.is_done() {
                // Many clients go away at this, before the end of the body.
                in_flight.succeeded();
                self.in_flight = None;
            }
        }
        if self.events.is_too_large() {
            self.transcript.give_up(ContinuationResult::TooLong);
            self.pass_on();
        }
    }

    /// Looks at nothing any more.
    fn pass_on(&mut self) {
        self.is_raw = true;
        self.out.append(&mut self.events.rest());
    }

    /// The server's side has come to its end.
    fn ended(&mut self) {
        if self.transcript.is_done() || self.transcript.is_finished() || self.is_raw {
            if let Some(in_flight) = &mut self.in_flight {
                in_flight.succeeded();
            }
            self.in_flight = None;
            self.out.append(&mut self.events.rest());
            self.now = Now::Ended(None);
            return;
        }
        self.broke(Vec::new(), None, false);
    }

    /// It is no good. `event`: what the client has not got of it; `more`: it could be read on.
    fn broke(&mut self, event: Vec<u8>, error: Option<BodyError>, more: bool) {
        if let Some(mut in_flight) = self.in_flight.take() {
            in_flight.failed();
            in_flight.fault(Fault::Gateway);
        }
        match self.transcript.broke(&mut self.out) {
            Next::Complete => {
                let by = ContinuedBy::None;
                self.breaks.count(by, ContinuationResult::Completed);
                self.now = Now::Ended(None);
            }
            Next::Refuse(why) => {
                self.breaks.count(ContinuedBy::None, why);
                self.out.extend_from_slice(&event);
                if more {
                    self.pass_on();
                } else {
                    self.now = Now::Ended(error);
                }
            }
            Next::Ask(by) => {
                self.events.rest();
                self.broken = (event, error);
                self.by = by;
                self.ask();
            }
        }
    }

    /// Asks for the rest.
    fn ask(&mut self) {
        // What is no good is given up at once.
        self.now = Now::Ended(None);
        if self.attempts >= self.most {
            return self.fail(if self.failed {
                ContinuationResult::Failed
            } else {
                ContinuationResult::Attempts
            });
        }
        let Some(mut context) = self.context.take() else {
            return self.fail(ContinuationResult::Failed);
        };
        let Some(asked) = self.transcript.ask(self.by, &context.body) else {
            return self.fail(ContinuationResult::Unread);
        };
        self.attempts += 1;
        let number = self.attempts;
        self.now = Now::Resuming(Box::pin(async move {
            let resumed = context.resume(asked, number).await;
            (context, resumed)
        }));
    }

    fn resumed(&mut self, resumed: Resumed) {
        match resumed {
            Ok((leg, in_flight)) => {
                self.breaks.count(self.by, ContinuationResult::Continued);
                self.failed = false;
                self.in_flight = Some(in_flight);
                self.out.extend_from_slice(MARK);
                self.now = Now::Reading(leg);
            }
            Err(ContinuationResult::Failed) => {
                self.failed = true;
                self.ask();
            }
            Err(why) => self.fail(why),
        }
    }

    /// Nobody goes on with it: the client gets what it would have got.
    fn fail(&mut self, why: ContinuationResult) {
        self.breaks.count(self.by, why);
        let (event, error) = std::mem::take(&mut self.broken);
        self.out.extend_from_slice(&event);
        self.now = Now::Ended(error);
    }
}

impl Body for ContinuedStream {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let me = &mut *self;
        loop {
            if !me.out.is_empty() {
                let out = std::mem::take(&mut me.out);
                return Poll::Ready(Some(Ok(Frame::data(out.into()))));
            }
            match &mut me.now {
                Now::Reading(leg) => match ready!(Pin::new(leg).poll_frame(cx)) {
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => me.take(&data),
                        Err(frame) => me.trailers = Some(frame),
                    },
                    // The client has all there is.
                    Some(Err(_)) if me.transcript.is_done() => me.ended(),
                    Some(Err(error)) => me.broke(Vec::new(), Some(error), false),
                    None => me.ended(),
                },
                Now::Resuming(resuming) => {
                    let (context, resumed) = ready!(resuming.as_mut().poll(cx));
                    me.context = Some(context);
                    me.resumed(resumed);
                }
                Now::Ended(error) => {
                    return Poll::Ready(match (error.take(), me.trailers.take()) {
                        (Some(error), _) => Some(Err(error)),
                        (None, Some(trailers)) => Some(Ok(trailers)),
                        (None, None) => None,
                    });
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.now, Now::Ended(None)) && self.out.is_empty() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
