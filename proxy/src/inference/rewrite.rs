//! A body that is sent in place of the client's.

use http::HeaderMap;
use http::header::CONTENT_LENGTH;

use super::edit::Edits;
use super::request::ModelRequest;
use crate::http::arrival::Arrived;
use crate::http::headers;
use crate::http::replay::{RequestBody, Whole};

/// The client's body with a few bytes replaced.
#[derive(Debug)]
pub(crate) struct Edited {
    body: Whole,
    /// As the head says it; `None`: it does not.
    length: Option<u64>,
}

impl Edited {
    /// `model`: what was read of the request's body. `None`: the body is not here as a whole.
    pub(crate) fn new(arrived: &Arrived, model: &ModelRequest, edits: &Edits) -> Option<Edited> {
        let trailers = arrived.body.whole()?.into_trailers();
        Some(Edited {
            length: headers::content_length(&arrived.head.headers)
                .and_then(|length| length.checked_add_signed(edits.growth())),
            body: Whole::new(model.edited(edits), trailers),
        })
    }

    pub(crate) fn body(&self) -> RequestBody {
        self.body.body()
    }

    /// Its length, in the head of a request that has it.
    pub(crate) fn declare(&self, headers: &mut HeaderMap) {
        if let Some(length) = self.length {
            headers.insert(CONTENT_LENGTH, length.into());
        }
    }
}
