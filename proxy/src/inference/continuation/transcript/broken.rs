//! A stream that broke: what is asked of the next server, and how its answer joins on.

use bytes::Bytes;

use super::super::chunk::{Chunk, Usage};
use super::super::{self as continuation, Rest};
use super::{Leg, Next, Transcript};
use crate::inference::api::Api;
use crate::inference::json::Text;
use crate::policy::ContinuationMode;
use crate::telemetry::metrics::{ContinuationResult, ContinuedBy};

impl Transcript {
    /// The stream broke: what is to be done. What the client is to get then is appended.
    pub(crate) fn broke(&mut self, out: &mut Vec<u8>) -> Next {
        self.pending.clear();
        if let Some(why) = self.refused {
            return Next::Refuse(why);
        }
        let generated = self.generated();
        let all_here = self.max_tokens.is_some_and(|most| generated >= most);
        if self.finished || (all_here && self.has_begun()) {
            let lacks_usage = self.wants_usage && !self.usage_sent;
            if lacks_usage && self.prompt_count().is_none() {
                return self.way().map_or_else(Next::Refuse, Next::Ask);
            }
            if !self.finished {
                self.finished = true;
                self.write(None, Some(b"\"length\""), None, out);
            }
            if lacks_usage && let Some(prompt) = self.prompt_count() {
                self.write_usage(prompt, generated, out);
            }
            out.extend_from_slice(b"data: [DONE]\n\n");
            self.done = true;
            return Next::Complete;
        }
        self.way().map_or_else(Next::Refuse, Next::Ask)
    }

    /// How the next server is told where it was.
    fn way(&self) -> Result<ContinuedBy, ContinuationResult> {
        if !self.has_begun() {
            return Ok(match self.mode {
                ContinuationMode::Text => ContinuedBy::Text,
                _ => ContinuedBy::Tokens,
            });
        }
        let has_ids = self.ids.is_some() && self.prompt_ids.is_some();
        match self.mode {
            ContinuationMode::Auto | ContinuationMode::Tokens if has_ids => Ok(ContinuedBy::Tokens),
            ContinuationMode::Tokens => Err(ContinuationResult::NoTokenIds),
            _ if !self.allowed.has_text => Err(ContinuationResult::NoTokenIds),
            _ => Ok(ContinuedBy::Text),
        }
    }

    /// The body of the request for the rest, after [`broke`](Self::broke) has said so, and for which interface it is; what comes next
    /// is the answer to it.
    pub(crate) fn ask(&mut self, by: ContinuedBy, body: &Bytes) -> Option<(Api, Bytes)> {
        let generated = self.generated();
        let all_here = self.max_tokens.is_some_and(|most| generated >= most);
        let counts_only = self.finished || (self.has_begun() && all_here);
        let (api, rest) = match (&self.prompt_ids, &self.ids) {
            _ if !self.has_begun() => {
                let ids = self.allowed.asks_for_ids(self.mode);
                (self.api, Rest::Again { ids })
            }
            (Some(prompt), Some(generated)) if by == ContinuedBy::Tokens => {
                (Api::Completions, Rest::Tokens { prompt, generated })
            }
            _ => (self.api, Rest::Text(&self.text)),
        };
        let most = self.max_tokens;
        let body = continuation::rest(self.api, body, &rest, most, generated, counts_only)?;
        self.leg = Leg::Next {
            before: generated,
            by,
            counts_only,
        };
        // What is counted from here on comes on top.
        self.deltas = generated;
        self.output_tokens = None;
        Some((api, body))
    }

    /// A chunk of a later part.
    pub(super) fn rest(
        &mut self,
        data: &[u8],
        chunk: &Chunk<'_>,
        (before, by, counts_only): (u32, ContinuedBy, bool),
        out: &mut Vec<u8>,
    ) {
        if self.head.is_none() {
            self.note_head(data, chunk);
        }
        if before == 0 && by == ContinuedBy::Tokens && self.prompt_ids.is_none() {
            // It was asked once more.
            self.prompt_ids.clone_from(&chunk.prompt_ids);
        }
        // What has begun without goes on without.
        if self.api == Api::Chat && !self.role_sent && !self.has_begun() {
            self.role_sent = true;
            if let Some(head) = &self.head {
                head.write_role(out);
            }
        }
        let raw = |text: &Text<'_>| data.get(text.span()).unwrap_or_default();
        let (mut text, mut finish) = (None, None);
        if counts_only {
            if chunk.finish.is_some() && !self.finished {
                self.finished = true;
                finish = Some(&b"\"length\""[..]);
            }
        } else if !self.finished {
            self.take(chunk);
            text = chunk.text.as_ref().map(raw).filter(|text| !text.is_empty());
            if let Some(found) = &chunk.finish {
                self.finished = true;
                let span = found.span();
                finish = data.get(span.start - 1..span.end + 1);
            }
        }
        if text.is_some() || finish.is_some() {
            let ids = chunk
                .token_ids
                .as_deref()
                .filter(|_| self.allowed.client_ids == Some(true));
            self.write(text, finish, ids, out);
        }
        if let Some(usage) = chunk.usage
            && chunk.choices == 0
            && !self.usage_sent
        {
            let (prompt, output) = self.whole_usage(usage, before, counts_only);
            self.write_usage(prompt, output, out);
        }
    }

    /// The original prompt, and all tokens. The next server's prompt is the first one's and the answer so far.
    fn whole_usage(&self, usage: Usage, before: u32, counts_only: bool) -> (u32, u32) {
        let prompt = usage.input.unwrap_or_default().saturating_sub(before);
        let own = if counts_only {
            0
        } else {
            usage.output.unwrap_or_default()
        };
        (
            self.prompt_count().unwrap_or(prompt),
            before.saturating_add(own),
        )
    }
}
