//! A request, and the head of its response, on one connection.

use std::io;
use std::sync::Arc;
use std::task::{Poll, ready};

use bytes::Bytes;

use super::body::Incoming;
use super::head::{Framing, Head, HeadReader, Malformed};
use super::request::{Outgoing, SendError};
use super::socket::Socket;
use crate::http::interim::Interim;

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExchangeError {
    /// The connection ended before the server said anything.
    #[error("the server closed the connection")]
    Closed,
    #[error("the server broke the connection in the middle of a head")]
    Truncated,
    #[error("no answer of HTTP/1.1: {0}")]
    Malformed(#[from] Malformed),
    /// The request's own body broke.
    #[error("the request did not come to its end")]
    Request,
}

/// What came of an exchange.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) head: Head,
    /// What was read of the body with the head.
    pub(super) incoming: Incoming,
    /// What was read of the other protocol, where there is one from now on.
    pub(super) beyond: Bytes,
    /// The request was sent to its end.
    pub(super) is_sent: bool,
}

/// Sends a request until its response begins. The rest of the request is the caller's.
pub(super) async fn exchange(
    socket: &Socket,
    outgoing: &mut Outgoing,
    interim: Option<&Arc<Interim>>,
) -> Result<Answer, ExchangeError> {
    let mut reader = HeadReader::default();
    let mut is_sent = false;
    let mut is_broken = false;
    std::future::poll_fn(|cx| {
        if !is_sent && !is_broken {
            match outgoing.poll_send(socket, cx) {
                Poll::Ready(Ok(())) => is_sent = true,
                Poll::Ready(Err(SendError::Body)) => {
                    return Poll::Ready(Err(ExchangeError::Request));
                }
                Poll::Ready(Err(SendError::Io(error))) => {
                    tracing::debug!(%error, "request not sent to its end");
                    // A server may answer and close without having read everything.
                    is_broken = true;
                }
                Poll::Pending => {}
            }
        }
        let asked = outgoing.asked();
        loop {
            let read = socket.poll_read(cx, |mut input| {
                if input.is_empty() {
                    return Err(closed(&reader));
                }
                while !input.is_empty() {
                    let Some(head) = reader.next(&mut input, asked)? else {
                        break;
                    };
                    if !head.is_interim() {
                        return Ok(Some(answer(head, input)?));
                    }
                    if let Some(interim) = interim {
                        interim.push(head.parts.status, &head.parts.headers);
                    }
                }
                Ok(None)
            });
            let read: io::Result<_> = ready!(read);
            match read.unwrap_or_else(|_| Err(closed(&reader))) {
                Ok(None) => {}
                Ok(Some(answer)) => {
                    return Poll::Ready(Ok(Answer { is_sent, ..answer }));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    })
    .await
}

fn closed(reader: &HeadReader) -> ExchangeError {
    if reader.has_begun() {
        ExchangeError::Truncated
    } else {
        ExchangeError::Closed
    }
}

/// `rest`: what was read behind the head.
fn answer(head: Head, rest: &[u8]) -> Result<Answer, Malformed> {
    let mut incoming = Incoming::new(head.framing);
    let mut beyond = Bytes::new();
    if head.framing == Framing::Upgrade {
        beyond = Bytes::copy_from_slice(rest);
    } else {
        incoming.read(rest)?;
    }
    Ok(Answer {
        head,
        incoming,
        beyond,
        is_sent: false,
    })
}
