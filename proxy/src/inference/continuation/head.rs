//! What all chunks of a stream have in common, and chunks that are made like them.

use std::ops::Range;

use super::chunk::Chunk;
use crate::inference::api::Api;

/// The members that all chunks of a stream have in common, as they stand in the first one.
#[derive(Debug, Default)]
pub(super) struct Head {
    id: Vec<u8>,
    object: Vec<u8>,
    created: Vec<u8>,
    model: Vec<u8>,
    fingerprint: Option<Vec<u8>>,
    /// Chunks have `"usage":null`.
    pub(super) has_usage: bool,
}

impl Head {
    pub(super) fn of(data: &[u8], chunk: &Chunk<'_>) -> Head {
        let part = |range: &Option<Range<usize>>| part(data, range).map(<[u8]>::to_vec);
        let or_null = |range| part(range).unwrap_or_else(|| b"null".to_vec());
        Head {
            id: or_null(&chunk.id),
            object: or_null(&chunk.object),
            created: or_null(&chunk.created),
            model: or_null(&chunk.model),
            fingerprint: part(&chunk.fingerprint),
            has_usage: chunk.has_usage && chunk.choices > 0,
        }
    }

    /// Whether a chunk is of the same model, and of the same revision where both say which.
    pub(super) fn is_same_model(&self, data: &[u8], chunk: &Chunk<'_>) -> bool {
        let model = part(data, &chunk.model);
        model.is_none_or(|model| model == self.model)
            && match (part(data, &chunk.fingerprint), &self.fingerprint) {
                (Some(new), Some(old)) => new == *old,
                _ => true,
            }
    }

    fn write_head(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"data: {\"id\":");
        out.extend_from_slice(&self.id);
        for (name, value) in [
            ("object", Some(&self.object)),
            ("created", Some(&self.created)),
            ("model", Some(&self.model)),
            ("system_fingerprint", self.fingerprint.as_ref()),
        ] {
            if let Some(value) = value {
                out.extend_from_slice(b",\"");
                out.extend_from_slice(name.as_bytes());
                out.extend_from_slice(b"\":");
                out.extend_from_slice(value);
            }
        }
    }

    pub(super) fn write_role(&self, out: &mut Vec<u8>) {
        self.write_head(out);
        out.extend_from_slice(
            b",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}]",
        );
        self.write_end(out);
    }

    /// A chunk as the first server would have made it. `text`: as it stands between quotes.
    pub(super) fn write(
        &self,
        api: Api,
        text: Option<&[u8]>,
        finish: Option<&[u8]>,
        ids: Option<&[u32]>,
        out: &mut Vec<u8>,
    ) {
        self.write_head(out);
        out.extend_from_slice(b",\"choices\":[{\"index\":0,");
        match api {
            Api::Chat => {
                out.extend_from_slice(b"\"delta\":{");
                if let Some(text) = text {
                    out.extend_from_slice(b"\"content\":\"");
                    out.extend_from_slice(text);
                    out.push(b'"');
                }
                out.push(b'}');
            }
            _ => {
                out.extend_from_slice(b"\"text\":\"");
                out.extend_from_slice(text.unwrap_or_default());
                out.push(b'"');
            }
        }
        out.extend_from_slice(b",\"logprobs\":null,\"finish_reason\":");
        out.extend_from_slice(finish.unwrap_or(b"null"));
        if let Some(ids) = ids {
            out.extend_from_slice(b",\"token_ids\":");
            out.extend_from_slice(serde_json::Value::from(ids).to_string().as_bytes());
        }
        out.extend_from_slice(b"}]");
        self.write_end(out);
    }

    fn write_end(&self, out: &mut Vec<u8>) {
        if self.has_usage {
            out.extend_from_slice(b",\"usage\":null");
        }
        out.extend_from_slice(b"}\n\n");
    }

    pub(super) fn write_usage(&self, prompt: u32, output: u32, out: &mut Vec<u8>) {
        self.write_head(out);
        let total = prompt.saturating_add(output);
        let usage = format!(
            ",\"choices\":[],\"usage\":{{\"prompt_tokens\":{prompt},\"completion_tokens\":{output},\"total_tokens\":{total}}}}}\n\n"
        );
        out.extend_from_slice(usage.as_bytes());
    }
}

fn part<'a>(data: &'a [u8], range: &Option<Range<usize>>) -> Option<&'a [u8]> {
    data.get(range.clone()?)
}
