//! What an event of a completion's stream says, as far as a continuation needs it.

use std::ops::Range;

use super::super::json::{Flaw, Reader, Text};
use crate::telemetry::metrics::ContinuationResult;

/// A chunk of a chat or of a completion.
#[derive(Debug, Default)]
pub(super) struct Chunk<'a> {
    pub(super) id: Option<Range<usize>>,
    pub(super) object: Option<Range<usize>>,
    pub(super) created: Option<Range<usize>>,
    pub(super) model: Option<Range<usize>>,
    pub(super) fingerprint: Option<Range<usize>>,
    pub(super) choices: u32,
    /// The delta's, or the completion's. May be empty.
    pub(super) text: Option<Text<'a>>,
    pub(super) has_role: bool,
    /// It has something that cannot be continued.
    pub(super) refused: Option<ContinuationResult>,
    pub(super) finish: Option<Text<'a>>,
    pub(super) token_ids: Option<Vec<u32>>,
    pub(super) prompt_ids: Option<Vec<u32>>,
    pub(super) usage: Option<Usage>,
    /// A member `usage`, whatever is in it.
    pub(super) has_usage: bool,
    pub(super) is_error: bool,
    /// It has members for token ids, whatever is in them.
    pub(super) has_ids: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) input: Option<u32>,
    pub(super) output: Option<u32>,
}

pub(super) const PROMPT_IDS: &str = "prompt_token_ids";
pub(super) const TOKEN_IDS: &str = "token_ids";

pub(super) fn read(data: &[u8]) -> Result<Chunk<'_>, Flaw> {
    let mut chunk = Chunk::default();
    Reader::new(data).object(|key, value| {
        const KEYS: [&str; 10] = [
            "id",
            "object",
            "created",
            "model",
            "system_fingerprint",
            "choices",
            "usage",
            "error",
            PROMPT_IDS,
            TOKEN_IDS,
        ];
        let Some(key) = key.one_of(&KEYS) else {
            return value.skip();
        };
        match key {
            5 if value.peek() == Some(b'[') => return value.array(|item| choice(item, &mut chunk)),
            6 => {
                chunk.has_usage = true;
                if value.peek() == Some(b'{') {
                    chunk.usage = Some(usage(value)?);
                    return Ok(());
                }
            }
            7 => chunk.is_error |= value.peek() != Some(b'n'),
            8 => return prompt_ids(value, &mut chunk),
            9 => chunk.has_ids = true,
            _ => {}
        }
        let start = value.position();
        value.skip()?;
        let span = Some(start..value.end());
        match key {
            0 => chunk.id = span,
            1 => chunk.object = span,
            2 => chunk.created = span,
            3 => chunk.model = span,
            4 if data.get(start) != Some(&b'n') => chunk.fingerprint = span,
            _ => {}
        }
        Ok(())
    })?;
    if chunk.choices > 1 {
        chunk.refused = Some(ContinuationResult::Choices);
    }
    Ok(chunk)
}

fn choice<'a>(reader: &mut Reader<'a>, chunk: &mut Chunk<'a>) -> Result<(), Flaw> {
    chunk.choices += 1;
    reader.object(|key, value| {
        const KEYS: [&str; 7] = [
            "index",
            "delta",
            "text",
            "finish_reason",
            "logprobs",
            TOKEN_IDS,
            PROMPT_IDS,
        ];
        match (key.one_of(&KEYS), value.peek()) {
            (Some(0), _) => {
                if value.maybe_number()? != Some(0) {
                    chunk.refused = Some(ContinuationResult::Choices);
                }
                Ok(())
            }
            (Some(1), Some(b'{')) => delta(value, chunk),
            (Some(2), Some(b'"')) => {
                chunk.text = Some(value.text()?);
                Ok(())
            }
            (Some(3), _) => {
                chunk.finish = value.maybe_text()?;
                Ok(())
            }
            (Some(4), Some(b'{' | b'[')) => {
                chunk.refused = Some(ContinuationResult::Logprobs);
                value.skip()
            }
            (Some(5), _) => {
                chunk.has_ids = true;
                chunk.token_ids = ids(value)?;
                Ok(())
            }
            (Some(6), _) => prompt_ids(value, chunk),
            _ => value.skip(),
        }
    })
}

fn delta<'a>(reader: &mut Reader<'a>, chunk: &mut Chunk<'a>) -> Result<(), Flaw> {
    reader.object(|key, value| {
        const KEYS: [&str; 8] = [
            "content",
            "role",
            "reasoning_content",
            "reasoning",
            "refusal",
            "tool_calls",
            "function_call",
            "audio",
        ];
        let key = key.one_of(&KEYS);
        match (key, value.peek()) {
            (Some(0), Some(b'"')) => {
                chunk.text = Some(value.text()?);
                return Ok(());
            }
            (Some(1), Some(b'"')) => chunk.has_role = true,
            _ => {}
        }
        let start = value.position();
        value.skip()?;
        let has_something = value.end() - start > 2 && !value.ended_with(b"null");
        if has_something {
            match key {
                Some(2 | 3) => chunk.refused = Some(ContinuationResult::Reasoning),
                Some(0 | 4 | 7) => chunk.refused = Some(ContinuationResult::NoText),
                Some(5 | 6) => chunk.refused = Some(ContinuationResult::Tools),
                _ => {}
            }
        }
        Ok(())
    })
}

fn prompt_ids(value: &mut Reader<'_>, chunk: &mut Chunk<'_>) -> Result<(), Flaw> {
    chunk.has_ids = true;
    chunk.prompt_ids = ids(value)?;
    Ok(())
}

/// `None`: it is no list of token ids.
fn ids(reader: &mut Reader<'_>) -> Result<Option<Vec<u32>>, Flaw> {
    if reader.peek() != Some(b'[') {
        return reader.skip().map(|()| None);
    }
    let (mut ids, mut known) = (Vec::new(), true);
    reader.array(|item| {
        match item.maybe_number()? {
            Some(id) => ids.push(id),
            None => known = false,
        }
        Ok(())
    })?;
    Ok(known.then_some(ids))
}

fn usage(reader: &mut Reader<'_>) -> Result<Usage, Flaw> {
    let mut usage = Usage::default();
    reader.object(|key, value| {
        match key.one_of(&["prompt_tokens", "completion_tokens"]) {
            Some(0) => usage.input = value.maybe_number()?,
            Some(_) => usage.output = value.maybe_number()?,
            None => value.skip()?,
        }
        Ok(())
    })?;
    Ok(usage)
}

/// The data without the members for token ids.
pub(super) fn without_ids(data: &[u8], out: &mut Vec<u8>) -> Result<(), Flaw> {
    copy(&mut Reader::new(data), data, true, out)
}

fn copy(reader: &mut Reader<'_>, data: &[u8], is_top: bool, out: &mut Vec<u8>) -> Result<(), Flaw> {
    out.push(b'{');
    let mut is_first = true;
    reader.object(|key, value| {
        if key.one_of(&[TOKEN_IDS, PROMPT_IDS]).is_some() {
            return value.skip();
        }
        if !std::mem::take(&mut is_first) {
            out.push(b',');
        }
        out.push(b'"');
        out.extend_from_slice(data.get(key.span()).unwrap_or_default());
        out.extend_from_slice(b"\":");
        if !(is_top && key.is("choices") && value.peek() == Some(b'[')) {
            let start = value.position();
            value.skip()?;
            out.extend_from_slice(data.get(start..value.end()).unwrap_or_default());
            return Ok(());
        }
        out.push(b'[');
        let mut is_first = true;
        value.array(|item| {
            if !std::mem::take(&mut is_first) {
                out.push(b',');
            }
            copy(item, data, false, out)
        })?;
        out.push(b']');
        Ok(())
    })?;
    out.push(b'}');
    Ok(())
}
