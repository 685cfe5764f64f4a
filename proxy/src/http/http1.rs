//! The HTTP/1.1 server.
//!
//! hyper parses and writes; what stands here is what it leaves to others: a clock for heads that answers 408, interim
//! responses, and closing so that a broken response cannot look whole.

pub(crate) mod guard;
mod io;

use std::cell::Cell;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Version};
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::body::Source;
use super::clock::Alarm;
use super::server::{Client, Handler};
use crate::detect;
use crate::error::Reason;
use crate::listener::Stream;

use io::{Http1Io, Meter};

/// From the first byte of a head to its last. Heads come in one piece from everybody but attackers.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection without a request is closed after this time: longer than any client keeps one, so that it is never us who
/// closes the connection that a client is about to use.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);

/// Most bytes of a head, and of what is buffered for writing. nginx allows 32 KiB, Envoy 60 KiB.
///
/// The number of headers is left at hyper's 100: with any other number it allocates for each head.
const MAX_HEAD: usize = 64 * 1024;

/// How long a client's bytes are read after an answer that did not wait for them.
const LINGER: Duration = Duration::from_secs(2);

/// How long an answer to a client that stalled may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The answer to what has two readings.
const AMBIGUOUS: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\nx-outrigger-reason: bad-request\r\n\r\n";

/// Serves a connection to its end.
pub(crate) async fn serve<H: Handler>(stream: Stream, handler: Rc<H>) {
    let meter = Arc::new(Meter::default());
    let io = TokioIo::new(Http1Io::new(stream, Arc::clone(&meter)));
    let client = Rc::clone(handler.client());
    let http10 = Rc::new(Cell::new(false));
    let service = {
        let handler = Rc::clone(&handler);
        let meter = Arc::clone(&meter);
        let http10 = Rc::clone(&http10);
        service_fn(move |request: Request<Incoming>| {
            meter.head_done();
            http10.set(request.version() == Version::HTTP_10);
            let request = request.map(Source::http1);
            let answer = Rc::clone(&handler).handle(request, Arc::clone(&meter.interim));
            // Boxed: hyper keeps its place for as long as the connection lives, most of the time for nothing.
            Box::pin(async move { Ok::<_, Infallible>(answer.await) })
        })
    };
    let mut connection = Builder::new()
        .max_buf_size(MAX_HEAD)
        // A token is three pieces, and copying them costs less than what writev does for each. A larger body is copied in
        // pieces of at most a frame.
        .writev(false)
        .max_header_size(MAX_HEAD)
        // A client that closes its side has gone: clients of HTTP do not close halfway, and a model must not go on for
        // nobody. (nginx and Envoy see it the same way.)
        .half_close(false)
        .serve_connection(io, service)
        .with_upgrades();

    // What each poll looks at is here, not behind a pointer: it is cold when a stream's next piece comes.
    let worker = Rc::clone(&client.worker);
    let mut clock = HeadClock::default();
    let mut age = client.worker.age_limit(handler.max_age());
    let mut draining = false;
    let mut registered = false;
    let end = std::future::poll_fn(|cx| {
        if !draining && (worker.draining.get() || age.is_over(cx)) {
            draining = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        if !registered {
            registered = true;
            client.connection.register(cx);
            meter.interim.register(cx.waker());
        }
        if let Poll::Ready(result) = Pin::new(&mut connection).poll(cx) {
            return Poll::Ready(End::Closed(result));
        }
        if client.is_idle() && meter.is_ambiguous() {
            return Poll::Ready(End::Ambiguous);
        }
        clock.poll(&client, &meter, cx).map(|()| End::Stalled)
    })
    .await;

    match end {
        End::Ambiguous => {
            handler.refused(Reason::BadRequest);
            if let Some(parts) = connection.into_parts() {
                let mut stream = parts.io.into_inner().into_stream();
                let answer = async {
                    stream.write_all(AMBIGUOUS).await?;
                    stream.shutdown().await
                };
                if let Ok(Ok(())) = tokio::time::timeout(LAST_WORDS, answer).await {
                    linger(stream).await;
                }
            }
        }
        End::Closed(Ok(())) if client.left_unread() => {
            if let Some(parts) = connection.into_parts() {
                linger(parts.io.into_inner().into_stream()).await;
            }
        }
        End::Closed(Ok(())) => {}
        End::Closed(Err(error)) => {
            if error.is_parse_too_large() {
                handler.refused(Reason::HeadTooLarge);
            } else if error.is_parse() {
                handler.refused(Reason::BadRequest);
            } else if error.is_user() && http10.get() {
                // The end of the connection is the end of the body in HTTP/1.0.
                if let Some(parts) = connection.into_parts() {
                    parts.io.inner().stream().reset_on_close();
                }
            }
        }
        End::Stalled if !client.is_idle() => {
            // The rest of the response, which is dropped with the connection, asks why.
            client.cut(Reason::StreamIdleTimeout);
            if let Some(parts) = connection.into_parts() {
                parts.io.inner().stream().reset_on_close();
            }
        }
        End::Stalled if meter.is_in_head() => {
            handler.refused(Reason::HeadTimeout);
            if let Some(parts) = connection.into_parts() {
                let mut stream = parts.io.into_inner().into_stream();
                let answer = async {
                    stream.write_all(&detect::STALLED).await?;
                    stream.shutdown().await
                };
                // Whoever sends slowly may read slowly.
                let _ = tokio::time::timeout(LAST_WORDS, answer).await;
            }
        }
        End::Stalled => {}
    }
}

/// The answer is written, and the client may still be sending: closing now would make the kernel reset the connection, and
/// the client would lose the answer. Reads on for a moment (RFC 9112, section 9.6).
async fn linger(mut stream: Stream) {
    let mut nowhere = vec![0; 16 * 1024];
    let reading = async { while let Ok(1..) = stream.read(&mut nowhere).await {} };
    // Whoever has more to send than this has not looked for an answer.
    let _ = tokio::time::timeout(LINGER, reading).await;
}

enum End {
    Closed(hyper::Result<()>),
    /// The next head has two readings.
    Ambiguous,
    /// A head did not come to its end, nothing came for too long, or a response was not taken.
    Stalled,
}

/// Watches the time between requests. One timer for each connection, set when it may be needed and corrected when it fires:
/// a request costs nothing.
#[derive(Default)]
struct HeadClock {
    timer: Option<Alarm>,
    /// Which request's end we are counting from, and since when.
    waiting: Option<(u64, Instant)>,
    /// Since when a head is under way.
    in_head: Option<Instant>,
    /// The request after which bytes count as those of the next head.
    ended: u64,
    /// How much of a response was taken, and since when it is no more.
    taken: Option<(u64, Instant)>,
    /// The timer is set for the end of a connection without requests: later than anything else needs it.
    far: bool,
}

impl HeadClock {
    fn poll(&mut self, client: &Client, meter: &Meter, cx: &mut Context<'_>) -> Poll<()> {
        if !client.is_idle() {
            self.in_head = None;
            match &mut self.timer {
                None if client.patience().is_none() => return Poll::Pending,
                Some(timer) if self.far => {
                    self.far = false;
                    timer.set(Instant::now() + HEAD_TIMEOUT);
                }
                _ => {}
            }
        } else if self.ended != client.begun() {
            // What was read last was the body of the request that has just ended.
            self.ended = client.begun();
            self.in_head = None;
            meter.head_done();
        } else if !meter.is_in_head() {
            self.in_head = None;
        } else if self.in_head.is_none() {
            let now = Instant::now();
            self.in_head = Some(now);
            if let Some(timer) = &mut self.timer
                && self.far
            {
                self.far = false;
                timer.set(now + HEAD_TIMEOUT);
            }
        }
        let mut now = Instant::now();
        let timer = self
            .timer
            .get_or_insert_with(|| Alarm::new(now + HEAD_TIMEOUT));
        while timer.poll(now, cx).is_ready() {
            now = Instant::now();
            let next = if !client.is_idle() {
                self.waiting = None;
                let end = taken_until(&mut self.taken, client, now);
                end.map_or(now + HEAD_TIMEOUT, |end| end.min(now + HEAD_TIMEOUT))
            } else if let Some(since) = self.in_head {
                since + HEAD_TIMEOUT
            } else {
                match self.waiting {
                    Some((request, since)) if request == client.begun() => since + IDLE_TIMEOUT,
                    _ => {
                        self.waiting = Some((client.begun(), now));
                        now + IDLE_TIMEOUT
                    }
                }
            };
            if next <= now {
                return Poll::Ready(());
            }
            self.far = next > now + HEAD_TIMEOUT;
            timer.set(next);
        }
        Poll::Pending
    }
}

/// When the reader of a response has run out of time, as far as is known now.
fn taken_until(
    taken: &mut Option<(u64, Instant)>,
    client: &Client,
    now: Instant,
) -> Option<Instant> {
    let patience = client.patience()?;
    match *taken {
        Some((count, since)) if count == client.taken() => since.checked_add(patience),
        _ => {
            *taken = Some((client.taken(), now));
            now.checked_add(patience)
        }
    }
}
