//! For a fuzzer: streams that are cut anywhere.

use bytes::Bytes;

use super::{Allowed, Events, Next, Transcript};
use crate::inference::api::Api;
use crate::policy::ContinuationMode;

/// See [`super::fuzz`].
pub(super) fn fuzz(bytes: &[u8]) {
    let (setting, bytes) = bytes.split_first().unwrap_or((&0, &[]));
    let (cut, bytes) = bytes.split_first().unwrap_or((&0, &[]));
    let at = bytes.len() * usize::from(*cut) / 256;
    let (one, two) = bytes.split_at(at);
    let api = if setting & 1 == 0 {
        Api::Chat
    } else {
        Api::Completions
    };
    let mode = [
        ContinuationMode::Auto,
        ContinuationMode::Tokens,
        ContinuationMode::Text,
    ][usize::from(setting >> 1) % 3];
    let allowed = Allowed {
        client_ids: None,
        has_text: true,
    };
    let body = Bytes::from_static(match api {
        Api::Chat => b"{\"model\":\"m\",\"messages\":[{}],\"max_tokens\":9,\"stream\":true}",
        _ => b"{\"model\":\"m\",\"prompt\":\"p\",\"max_tokens\":9,\"stream\":true}",
    });
    let run = |size: usize| {
        let mut transcript =
            Transcript::new(api, allowed, (mode, 4096), Some(9), setting & 64 != 0);
        let mut out = Vec::new();
        let mut seam = Events::default();
        let mut steps = Vec::new();
        for piece in one.chunks(size) {
            seam.push(piece);
            while let Some(event) = seam.next() {
                steps.push(transcript.event(event, &mut out));
            }
        }
        let next = transcript.broke(&mut out);
        if let Next::Ask(by) = next {
            let _ = transcript.ask(by, &body);
            let mut seam = Events::default();
            for piece in two.chunks(size) {
                seam.push(piece);
                while let Some(event) = seam.next() {
                    steps.push(transcript.event(event, &mut out));
                }
            }
        }
        (out, steps, next)
    };
    let size = usize::from(setting % 64) + 1;
    assert_eq!(run(size), run(bytes.len().max(1)));
}
