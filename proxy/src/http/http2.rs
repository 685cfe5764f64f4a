//! The HTTP/2 server, on h2 itself: interim responses, reset codes and the moment of each reset are ours to choose.

mod ping;

use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Reason as Code, RecvStream};
use http::{Method, Request, Response};
use http_body::Body;
use std::pin::pin;

use super::body::Source;
use super::interim::Interim;
use super::pump::Pump;
use super::response::ResponseBody;
use super::server::Handler;
use crate::listener::{Stream, gather};
use crate::policy::KeepAlive;

pub(crate) use ping::Pinger;

/// Bytes that a peer may send on a stream before they are taken: the bandwidth-delay product of 1 Gbit/s × 0.5 ms, and the
/// most that a slow reader makes us hold.
pub(crate) const STREAM_WINDOW: u32 = 64 * 1024;

/// The same for a connection, all streams together: as much as all streams may have, so that readers that stand still,
/// however many, never stop the streams of others on the same connection.
pub(crate) const CONNECTION_WINDOW: u32 = MAX_STREAMS * STREAM_WINDOW;

/// Bytes of a stream's data that wait in h2 for being written.
pub(crate) const SEND_BUFFER: usize = 64 * 1024;

/// Requests at the same time on a connection. A client with more opens another connection, and what is written to two of them
/// is two records and two packets: between sidecars, that is most of what a token costs. Envoy's default as well.
pub(crate) const MAX_STREAMS: u32 = 1024;

/// Size of a head, as HTTP/2 counts it. As for HTTP/1.1.
pub(crate) const MAX_HEAD: u32 = 64 * 1024;

/// Streams that the peer has reset and we have not accepted yet (CVE-2023-44487, rapid reset). h2's default.
pub(crate) const MAX_PENDING_RESETS: usize = 20;

/// Streams that we had to reset for the peer's mistakes, over a connection's life (CVE-2025-8671). h2's default.
pub(crate) const MAX_ERROR_RESETS: usize = 1024;

/// What h2 allows for the overhead of small frames that wait, in bytes: it counts 256 less a frame's length for each. A
/// full connection window of 40-byte frames must fit, for that is what a stream of tokens looks like when its reader is
/// slow; h2's own limit would end the connection, with all streams, after a few such readers.
pub(crate) const FRAME_BUDGET: usize = 8 * CONNECTION_WINDOW as usize;

/// For the preface and the settings.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves a connection to its end.
pub(crate) async fn serve<H: Handler>(stream: Stream, handler: Rc<H>) {
    let (stream, gathering) = gather(stream);
    let handshake = Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD)
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(Some(MAX_ERROR_RESETS))
        .data_frame_budget(FRAME_BUDGET)
        .handshake::<_, Bytes>(stream);
    let mut handshake = Box::pin(handshake);
    let handshake = std::future::poll_fn(|cx| {
        let polled = handshake.as_mut().poll(cx);
        gathering.poll(cx);
        polled
    });
    let Ok(Ok(mut connection)) = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await else {
        return;
    };
    let pings = connection.ping_pong();
    let mut pinger = pings.map(|pings| Pinger::new(pings, KeepAlive::default()));
    let client = Rc::clone(handler.client());
    let mut age = client.worker.age_limit(handler.max_age());
    let worker = Rc::clone(&client.worker);
    let mut draining = false;
    let mut registered = false;
    std::future::poll_fn(|cx| {
        if !registered {
            registered = true;
            client.connection.register(cx);
        }
        if !draining && (worker.draining.get() || age.is_over(cx)) {
            draining = true;
            connection.graceful_shutdown();
        }
        loop {
            match connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    tokio::task::spawn_local(answer(Rc::clone(&handler), request, respond));
                }
                // h2 has told the peer what was wrong.
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        gathering.poll(cx);
        match &mut pinger {
            // The peer is gone without a word; so are its requests.
            Some(pinger) => pinger.poll(cx, gathering.heard(), !client.is_idle()),
            None => Poll::Pending,
        }
    })
    .await;
}

/// Answers one request.
async fn answer<H: Handler>(
    handler: Rc<H>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let head_only = request.method() == Method::HEAD;
    let Some(response) = respond_to(handler, request, &mut respond).await else {
        return;
    };
    let (parts, body) = response.into_parts();
    let end = head_only || body.is_end_stream();
    match respond.send_response(Response::from_parts(parts, ()), end) {
        Ok(_) if end => {}
        Ok(stream) => {
            // How it ended is known to the body.
            let _ = Pump::new(body, stream).await;
        }
        // A head that cannot be sent as HTTP/2, or a stream that is gone.
        Err(_) => respond.send_reset(Code::INTERNAL_ERROR),
    }
}

/// `None`: the client has reset the stream; the request was given up.
async fn respond_to<H: Handler>(
    handler: Rc<H>,
    request: Request<RecvStream>,
    respond: &mut SendResponse<Bytes>,
) -> Option<Response<ResponseBody>> {
    let interim = Arc::new(Interim::default());
    let request = request.map(|stream| Source::http2(stream, None));
    let mut handling = pin!(handler.handle(request, Arc::clone(&interim)));
    let mut registered = false;
    std::future::poll_fn(|cx| {
        if !registered {
            registered = true;
            interim.register(cx.waker());
        }
        let polled = handling.as_mut().poll(cx);
        if interim.is_waiting() {
            for response in interim.take() {
                // Fails only on a stream that is gone.
                let _ = respond.send_informational(response);
            }
        }
        match polled {
            Poll::Ready(response) => Poll::Ready(Some(response)),
            Poll::Pending => respond.poll_reset(cx).map(|_| None),
        }
    })
    .await
}
