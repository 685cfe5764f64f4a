//! Responses before the response (1xx): from the upstream's connection to the client's.

use std::sync::atomic::Ordering::{AcqRel, Acquire};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Mutex, OnceLock};
use std::task::Waker;

use http::{HeaderMap, Response, StatusCode};

/// Interim responses of one request that may wait for their way to the client. A server has no use for more; what is
/// beyond is dropped, as a client may ignore all of them.
const MOST: usize = 16;

/// How many requests have interim responses that wait, in all of the process: almost always none, which is cheaper to see
/// here than in each connection's memory.
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// Interim responses on their way to the client. Shared with upstream connections, whose callbacks must be `Send`; the lock
/// is taken only when there is such a response, which is rare.
#[derive(Debug, Default)]
pub(crate) struct Interim {
    waiting: AtomicBool,
    responses: Mutex<Vec<Response<()>>>,
    /// It stays the same.
    task: OnceLock<Waker>,
}

impl Interim {
    /// Passes one on. `100 Continue` is not: the sidecar has answered the expectation itself when it began to read the
    /// body. Nor is `101`, which is no interim response.
    pub(crate) fn push(&self, status: StatusCode, headers: &HeaderMap) {
        if status == StatusCode::CONTINUE
            || status == StatusCode::SWITCHING_PROTOCOLS
            || !status.is_informational()
        {
            return;
        }
        let Ok(mut responses) = self.responses.lock() else {
            return;
        };
        if responses.len() >= MOST {
            return;
        }
        let mut response = Response::new(());
        *response.status_mut() = status;
        *response.headers_mut() = headers.clone();
        super::headers::strip_interim(response.headers_mut());
        responses.push(response);
        drop(responses);
        if !self.waiting.swap(true, AcqRel) {
            WAITING.fetch_add(1, AcqRel);
        }
        if let Some(task) = self.task.get() {
            task.wake_by_ref();
        }
    }

    /// Whose task writes to the client. A connection, or a stream, has one task from its first turn to its last.
    pub(crate) fn register(&self, task: &Waker) {
        self.task.get_or_init(|| task.clone());
    }

    pub(crate) fn is_waiting(&self) -> bool {
        WAITING.load(Acquire) > 0 && self.waiting.load(Acquire)
    }

    /// All that wait.
    pub(crate) fn take(&self) -> Vec<Response<()>> {
        self.nothing_waits();
        match self.responses.lock() {
            Ok(mut responses) => std::mem::take(&mut *responses),
            Err(_) => Vec::new(),
        }
    }
}

impl Interim {
    fn nothing_waits(&self) {
        if self.waiting.swap(false, AcqRel) {
            WAITING.fetch_sub(1, AcqRel);
        }
    }
}

impl Drop for Interim {
    fn drop(&mut self) {
        self.nothing_waits();
    }
}

/// As HTTP/1.1 has it on the wire.
pub(crate) fn encode(response: &Response<()>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(response.status().as_str().as_bytes());
    out.push(b' ');
    let reason = response.status().canonical_reason().unwrap_or("Interim");
    out.extend_from_slice(reason.as_bytes());
    out.extend_from_slice(b"\r\n");
    for (name, value) in response.headers() {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Interim, MOST, encode};
    use http::{HeaderMap, HeaderValue, StatusCode, header};

    #[test]
    fn passes_hints_on_and_no_continue() {
        let interim = Interim::default();
        let mut headers = HeaderMap::new();
        headers.insert(
            header::LINK,
            HeaderValue::from_static("</a.css>; rel=preload"),
        );
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        interim.push(StatusCode::CONTINUE, &headers);
        assert!(!interim.is_waiting());
        interim.push(StatusCode::EARLY_HINTS, &headers);
        assert!(interim.is_waiting());
        let taken = interim.take();
        assert_eq!(taken.len(), 1);
        assert!(!interim.is_waiting());
        let mut bytes = Vec::new();
        encode(&taken[0], &mut bytes);
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n"
        );
    }

    #[test]
    fn is_bounded() {
        let interim = Interim::default();
        for _ in 0..10 * MOST {
            interim.push(StatusCode::PROCESSING, &HeaderMap::new());
        }
        assert_eq!(interim.take().len(), MOST);
    }
}
