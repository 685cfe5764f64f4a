//! An estimate of a prompt's tokens, without the model's tokenizer.
//!
//! Text: a token for each [`BYTES_PER_TOKEN`] bytes, rounded up (the rule of thumb of OpenAI's documentation for English; bytes
//! and not characters, because tokenizers have about as many tokens for other scripts as these have bytes more). Token ids: one
//! each. A picture: [`IMAGE_TOKENS`]. A message: [`MESSAGE_TOKENS`] more, for what a chat template puts around it.

use super::json::{Flaw, Reader};

/// <https://help.openai.com/en/articles/4936856-what-are-tokens-and-how-to-count-them>
const BYTES_PER_TOKEN: u64 = 4;
/// What OpenAI counts for a picture of 1024 × 1024 in high detail: 765. Others lie between 85 and some thousands.
const IMAGE_TOKENS: u64 = 765;
const MESSAGE_TOKENS: u64 = 4;
/// Levels in which text is looked for: a message's content's parts' results' parts. What lies deeper is counted as it stands.
const LEVELS: u32 = 8;

/// What was found so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Count {
    bytes: u64,
    tokens: u64,
}

impl Count {
    /// The estimate.
    pub(super) fn tokens(self) -> u32 {
        let tokens = self.bytes.div_ceil(BYTES_PER_TOKEN) + self.tokens;
        u32::try_from(tokens).unwrap_or(u32::MAX)
    }

    /// Reads a prompt: a text, token ids, lists of both, or messages.
    pub(super) fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), Flaw> {
        self.value(reader, LEVELS)
    }

    fn value(&mut self, reader: &mut Reader<'_>, levels: u32) -> Result<(), Flaw> {
        let start = reader.position();
        match reader.peek() {
            Some(b'"') => {
                self.bytes += reader.text()?.len() as u64;
                Ok(())
            }
            Some(b'{' | b'[') if levels == 0 => {
                reader.skip()?;
                self.bytes += (reader.end() - start) as u64;
                Ok(())
            }
            Some(b'[') => reader.array(|reader| self.value(reader, levels - 1)),
            Some(b'{') => reader.object(|key, reader| {
                const KEYS: [&str; 15] = [
                    "role",
                    "type",
                    "id",
                    "name",
                    "tool_call_id",
                    "cache_control",
                    "detail",
                    "status",
                    "image_url",
                    "image",
                    "source",
                    "input_audio",
                    "audio",
                    "file",
                    "video_url",
                ];
                match key.one_of(&KEYS) {
                    Some(0) => self.tokens += MESSAGE_TOKENS,
                    Some(1..8) => {}
                    Some(_) => self.tokens += IMAGE_TOKENS,
                    None => return self.value(reader, levels - 1),
                }
                reader.skip()
            }),
            Some(b'0'..=b'9') => {
                self.tokens += 1;
                reader.skip()
            }
            _ => reader.skip(),
        }
    }
}
