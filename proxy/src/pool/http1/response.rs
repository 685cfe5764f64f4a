//! A response's body, read from its connection by whoever wants it: no task and no queue stand in between.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::task::AbortHandle;

use super::Http1Lease;
use super::body::{End, Incoming};
use super::head::Malformed;
use super::request::Outgoing;
use super::socket::Socket;

/// Why a response's body ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResponseError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("the connection was closed before the end")]
    Truncated,
}

/// What a response comes from.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: Socket,
    /// For another request. `None`: it is of no use for one.
    pub(super) lease: Option<Http1Lease>,
    /// `None`: the request was sent to its end before the response began.
    pub(super) sending: Option<Sending>,
}

impl Connection {
    /// The response has ended.
    pub(super) fn end(self, end: End) {
        let is_sent = self.sending.is_none_or(|sending| sending.is_sent.get());
        if let Some(lease) = self.lease
            && is_sent
            && end == End::Clean
        {
            lease.give_back(self.socket);
        }
    }
}

/// A task that sends the rest of a request. It ends with this.
#[derive(Debug)]
pub(super) struct Sending {
    task: AbortHandle,
    is_sent: Rc<Cell<bool>>,
}

impl Sending {
    pub(super) fn start(mut outgoing: Outgoing, socket: Socket) -> Sending {
        let is_sent = Rc::new(Cell::new(false));
        let told = Rc::clone(&is_sent);
        let task = tokio::task::spawn_local(async move {
            // A request that cannot be sent to its end is the response's matter.
            let sent = std::future::poll_fn(|cx| outgoing.poll_send(&socket, cx)).await;
            told.set(sent.is_ok());
        });
        Sending {
            task: task.abort_handle(),
            is_sent,
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A response's body on its way. Dropping it closes the connection.
#[derive(Debug)]
pub(crate) struct Http1Response {
    incoming: Incoming,
    /// `None` after the end, and after an error.
    connection: Option<Connection>,
}

impl Http1Response {
    /// `connection`: `None` where the body was read to its end.
    pub(super) fn new(incoming: Incoming, connection: Option<Connection>) -> Http1Response {
        Http1Response {
            incoming,
            connection,
        }
    }

    fn poll_read(
        &mut self,
        socket: &Socket,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), ResponseError>> {
        let incoming = &mut self.incoming;
        let read = socket.poll_read(cx, |bytes| {
            if !bytes.is_empty() {
                incoming.read(bytes)?;
            } else if !incoming.close() {
                return Err(ResponseError::Truncated);
            }
            Ok(())
        });
        Poll::Ready(ready!(read)?)
    }
}

impl Body for Http1Response {
    type Data = Bytes;
    type Error = ResponseError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        let me = &mut *self;
        loop {
            if !me.incoming.data.is_empty() {
                let data = std::mem::take(&mut me.incoming.data);
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            if let Some(trailers) = me.incoming.trailers.take() {
                return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
            }
            let Some(connection) = me.connection.take() else {
                return Poll::Ready(None);
            };
            match me.poll_read(&connection.socket, cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error))),
                Poll::Pending => {
                    me.connection = Some(connection);
                    return Poll::Pending;
                }
            }
            match me.incoming.end {
                Some(end) => connection.end(end),
                None => me.connection = Some(connection),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.incoming.left();
        left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
