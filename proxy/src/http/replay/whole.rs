//! All of a body, for a request that is sent beside another one.

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;

use super::RequestBody;

/// All of a body, for a request that is sent beside another one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Whole {
    pub(super) chunks: Vec<Bytes>,
    pub(super) trailers: Option<HeaderMap>,
}

#[derive(Debug)]
pub(super) struct Copy {
    pub(super) chunks: std::vec::IntoIter<Bytes>,
    pub(super) trailers: Option<HeaderMap>,
}

impl Whole {
    /// Of pieces that are here.
    pub(crate) fn new(chunks: Vec<Bytes>, trailers: Option<HeaderMap>) -> Whole {
        Whole { chunks, trailers }
    }

    pub(crate) fn into_trailers(self) -> Option<HeaderMap> {
        self.trailers
    }

    pub(crate) fn body(&self) -> RequestBody {
        let empty = self.chunks.is_empty() && self.trailers.is_none();
        RequestBody {
            shared: None,
            turn: 0,
            copy: (!empty).then(|| {
                Box::new(Copy {
                    chunks: self.chunks.clone().into_iter(),
                    trailers: self.trailers.clone(),
                })
            }),
        }
    }
}

impl Copy {
    pub(super) fn next(&mut self) -> Option<Frame<Bytes>> {
        match self.chunks.next() {
            Some(chunk) => Some(Frame::data(chunk)),
            None => self.trailers.take().map(Frame::trailers),
        }
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.chunks.as_slice().is_empty() && self.trailers.is_none()
    }

    pub(super) fn bytes(&self) -> u64 {
        let chunks = self.chunks.as_slice().iter();
        chunks.map(|chunk| chunk.len() as u64).sum()
    }
}
