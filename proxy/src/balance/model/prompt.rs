//! How long a prompt is, and which prefixes it begins with: what the choice of a replica needs to know of it.
//!
//! An engine keeps the KV cache of what it has read and reads a prompt only from where no cached prefix covers it. Two requests
//! share work as far as their prompts are the same from the start. So a prompt is told by a few [`Mark`]s, the hashes of its
//! prefixes: one for the model alone, one behind each of the first messages (system prompt, first question: what stays the same
//! while a conversation grows), and one where 512, 1024, 2048, … bytes end. All sidecars find the same marks for the same
//! prompt, without a word to each other.

use std::hash::Hasher;

use twox_hash::XxHash64;

/// Bytes of text that make a token, on average, in English and in code with the usual vocabularies. The engine's own count
/// comes with its answer: too late to choose a replica by.
pub const BYTES_PER_TOKEN: u64 = 4;

/// The first prefix by length, bytes; each next one is twice as long. Shorter ones save an engine next to nothing.
pub const FIRST_LENGTH: u64 = 512;

/// Messages with a mark behind them.
pub const MARKED_MESSAGES: usize = 3;

/// Marks of one prompt, at most: the model, the messages, eleven lengths (512 KiB), and the whole.
pub const MAX_MARKS: usize = 16;

/// The longest prefix that has a mark by its length: the same eleven lengths.
const LAST_LENGTH: u64 = FIRST_LENGTH << (MAX_MARKS - MARKED_MESSAGES - 3);

/// A prefix of a prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Of the model's name and all bytes up to here (XXH64, seed 0): the same in all sidecars of a mesh and in all versions.
    pub hash: u64,
    /// Estimated length of the prefix.
    pub tokens: u32,
}

/// A prompt as the choice of a replica sees it. Of fixed size, whatever the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prompt {
    tokens: u32,
    len: u8,
    marks: [Mark; MAX_MARKS],
}

impl Prompt {
    /// Estimated tokens of the whole.
    pub fn tokens(&self) -> u32 {
        self.tokens
    }

    /// From the shortest prefix (the model alone, no text) to the longest. Never empty.
    pub fn marks(&self) -> &[Mark] {
        &self.marks[..usize::from(self.len)]
    }
}

/// Reads a prompt piece by piece, in the order in which the model reads it. Allocates nothing.
#[derive(Clone, Debug)]
pub struct PromptReader {
    hasher: XxHash64,
    bytes: u64,
    messages: usize,
    /// Where the next mark by length is due.
    next: u64,
    len: usize,
    marks: [Mark; MAX_MARKS],
}

impl PromptReader {
    /// `model`: the name in the request, or that of the adapter. Engines keep an adapter's cache apart from all others.
    pub fn new(model: &[u8]) -> PromptReader {
        let mut reader = PromptReader {
            hasher: XxHash64::with_seed(0),
            bytes: 0,
            messages: 0,
            next: FIRST_LENGTH,
            len: 0,
            marks: [Mark::default(); MAX_MARKS],
        };
        reader.hasher.write(model);
        reader.separate();
        reader.mark();
        reader
    }

    /// The next text, in whatever pieces.
    pub fn text(&mut self, mut bytes: &[u8]) {
        while self.next <= LAST_LENGTH && self.bytes + bytes.len() as u64 >= self.next {
            let (before, after) = bytes.split_at((self.next - self.bytes) as usize);
            self.add(before);
            self.mark();
            self.next *= 2;
            bytes = after;
        }
        self.add(bytes);
    }

    /// A message, a tool's description, or another part of the prompt ends here.
    pub fn end_of_message(&mut self) {
        self.separate();
        self.messages += 1;
        if self.messages <= MARKED_MESSAGES {
            self.mark();
        }
    }

    /// `tokens`: of the whole; the estimate of whoever understands more of it than its bytes.
    pub fn finish(mut self, tokens: u32) -> Prompt {
        self.mark();
        Prompt {
            tokens,
            // At most MAX_MARKS.
            len: self.len as u8,
            marks: self.marks,
        }
    }

    #[cfg(test)]
    pub(crate) fn finish_by_bytes(self) -> Prompt {
        let tokens = tokens(self.bytes);
        self.finish(tokens)
    }

    fn add(&mut self, bytes: &[u8]) {
        self.hasher.write(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// "ab", "c" is not "a", "bc": no text has this byte.
    fn separate(&mut self) {
        self.hasher.write(&[0xff]);
    }

    /// A mark here, unless there is one.
    fn mark(&mut self) {
        let mark = Mark {
            hash: self.hasher.finish(),
            tokens: tokens(self.bytes),
        };
        let is_new = self.len == 0 || self.marks[self.len - 1].hash != mark.hash;
        if is_new && self.len < MAX_MARKS {
            self.marks[self.len] = mark;
            self.len += 1;
        }
    }
}

/// Rounded up: a text is at least one token.
fn tokens(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(BYTES_PER_TOKEN)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
