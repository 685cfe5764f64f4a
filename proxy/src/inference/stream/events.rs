//! What an event of a token stream says.

use super::super::api::Api;
use super::super::json::{Flaw, Reader};
use super::{Finish, Seen, Usage};

/// What one event has added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    /// Pieces of text, reasoning, refusal or tool calls that are not empty.
    pub(super) tokens: u32,
    /// Nothing but usage.
    pub(super) is_usage_only: bool,
    /// A member `usage` that is null: from its key to its end.
    pub(super) null_usage: Option<(usize, usize)>,
}

/// Reads the data of one event. `name`: the event's, empty where there is none.
pub(super) fn read(api: Api, name: &[u8], data: &[u8], seen: &mut Seen) -> Event {
    seen.events = seen.events.saturating_add(1);
    if data == b"[DONE]" {
        seen.done = true;
        return Event::default();
    }
    let mut event = Event::default();
    let mut reader = Reader::new(data);
    let read = match api {
        Api::Responses => responses(&mut reader, name, seen, &mut event),
        Api::Messages => messages(&mut reader, name, seen, &mut event),
        _ => chunk(&mut reader, seen, &mut event),
    };
    if read.is_err() {
        seen.unreadable = seen.unreadable.saturating_add(1);
    }
    seen.tokens = seen.tokens.saturating_add(event.tokens);
    event
}

/// Whether a string with something in it follows.
fn has_text(reader: &mut Reader<'_>) -> Result<bool, Flaw> {
    Ok(reader.maybe_text()?.is_some_and(|text| text.len() > 0))
}

/// Passes over a value, and says whether it is anything but null.
fn is_something(reader: &mut Reader<'_>) -> Result<bool, Flaw> {
    let is_null = reader.peek() == Some(b'n');
    reader.skip()?;
    Ok(!is_null)
}

/// OpenAI's chat and completion chunks, and what looks like them (`text_output`: Triton's `generate_stream`).
fn chunk(reader: &mut Reader<'_>, seen: &mut Seen, event: &mut Event) -> Result<(), Flaw> {
    let (mut choices, mut has_choices, mut has_usage) = (0_u32, false, false);
    // Up to where a member that is taken out reaches back.
    let mut before = reader.position() + 1;
    reader.object(|key, value| {
        match key.one_of(&["choices", "usage", "error", "text_output"]) {
            Some(0) if value.peek() == Some(b'[') => {
                has_choices = true;
                value.array(|value| {
                    choices += 1;
                    choice(value, seen, event)
                })?;
            }
            Some(1) => {
                if value.peek() == Some(b'{') {
                    has_usage = true;
                    usage(value, seen)?;
                } else {
                    value.skip()?;
                    // With the comma before it, or after it where it is the first one.
                    event.null_usage = Some((before, value.end()));
                }
            }
            Some(2) => seen.error |= is_something(value)?,
            Some(3) => event.tokens += u32::from(has_text(value)?),
            _ => value.skip()?,
        }
        before = value.end();
        Ok(())
    })?;
    event.is_usage_only = has_usage && has_choices && choices == 0;
    Ok(())
}

fn choice(reader: &mut Reader<'_>, seen: &mut Seen, event: &mut Event) -> Result<(), Flaw> {
    reader.object(
        |key, value| match key.one_of(&["delta", "text", "finish_reason", "message"]) {
            Some(0 | 3) if value.peek() == Some(b'{') => {
                event.tokens += u32::from(delta(value)?);
                Ok(())
            }
            Some(1) => {
                event.tokens += u32::from(has_text(value)?);
                Ok(())
            }
            Some(2) => finish(value, seen),
            _ => value.skip(),
        },
    )
}

fn delta(reader: &mut Reader<'_>) -> Result<bool, Flaw> {
    let mut found = false;
    reader.object(|key, value| {
        const TEXTS: [&str; 6] = [
            "content",
            "reasoning_content",
            "reasoning",
            "refusal",
            "tool_calls",
            "function_call",
        ];
        match (key.one_of(&TEXTS), value.peek()) {
            (Some(0..=3), Some(b'"')) => found |= has_text(value)?,
            (Some(_), Some(b'[' | b'{')) => {
                let start = value.position();
                value.skip()?;
                // More than the brackets.
                found |= value.end() - start > 2;
            }
            _ => value.skip()?,
        }
        Ok(())
    })?;
    Ok(found)
}

fn finish(reader: &mut Reader<'_>, seen: &mut Seen) -> Result<(), Flaw> {
    const REASONS: [(&str, Finish); 14] = [
        ("stop", Finish::Stop),
        ("end_turn", Finish::Stop),
        ("stop_sequence", Finish::Stop),
        ("completed", Finish::Stop),
        ("length", Finish::Length),
        ("max_tokens", Finish::Length),
        ("incomplete", Finish::Length),
        ("tool_calls", Finish::Tool),
        ("function_call", Finish::Tool),
        ("tool_use", Finish::Tool),
        ("content_filter", Finish::Filter),
        ("abort", Finish::Abort),
        ("error", Finish::Error),
        ("refusal", Finish::Filter),
    ];
    if let Some(text) = reader.maybe_text()? {
        let known = REASONS.iter().find(|(word, _)| text.is(word));
        seen.finish = Some(known.map_or(Finish::Other, |(_, finish)| *finish));
    }
    Ok(())
}

/// OpenAI's and Anthropic's words for the same. What was known stays where it is not told again.
pub(super) fn usage(reader: &mut Reader<'_>, seen: &mut Seen) -> Result<(), Flaw> {
    let mut found = seen.usage.unwrap_or_default();
    reader.object(|key, value| {
        const KEYS: [&str; 6] = [
            "prompt_tokens",
            "input_tokens",
            "completion_tokens",
            "output_tokens",
            "prompt_tokens_details",
            "input_tokens_details",
        ];
        match key.one_of(&KEYS) {
            Some(0 | 1) => found.input = value.maybe_number()?.or(found.input),
            Some(2 | 3) => found.output = value.maybe_number()?.or(found.output),
            Some(_) if value.peek() == Some(b'{') => value.object(|key, value| {
                if key.is("cached_tokens") {
                    found.cached = value.maybe_number()?;
                    return Ok(());
                }
                value.skip()
            })?,
            _ => value.skip()?,
        }
        Ok(())
    })?;
    if found != Usage::default() {
        seen.usage = Some(found);
    }
    Ok(())
}

/// OpenAI's responses: named events, whose data has the name as `type` too.
fn responses(
    reader: &mut Reader<'_>,
    name: &[u8],
    seen: &mut Seen,
    event: &mut Event,
) -> Result<(), Flaw> {
    let mut found = kind(name);
    let (mut has_delta, mut has_error) = (false, false);
    reader.object(|key, value| {
        match key.one_of(&["type", "delta", "response", "error"]) {
            Some(0) => {
                if let Some(text) = value.maybe_text()?
                    && let Some(text) = text.plain()
                {
                    found = kind(text);
                }
            }
            Some(1) if value.peek() == Some(b'"') => has_delta = has_text(value)?,
            Some(2) if value.peek() == Some(b'{') => {
                value.object(|key, value| match key.one_of(&["usage", "status"]) {
                    Some(0) if value.peek() == Some(b'{') => usage(value, seen),
                    _ => value.skip(),
                })?
            }
            Some(3) => has_error = is_something(value)?,
            _ => value.skip()?,
        }
        Ok(())
    })?;
    match found {
        Kind::Delta => event.tokens += u32::from(has_delta),
        Kind::Completed => {
            seen.done = true;
            seen.finish = Some(Finish::Stop);
        }
        Kind::Incomplete => {
            seen.done = true;
            seen.finish = Some(Finish::Length);
        }
        Kind::Failed => seen.error = true,
        Kind::Other => seen.error |= has_error,
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Kind {
    Delta,
    Completed,
    Incomplete,
    Failed,
    Other,
}

/// By an event's name.
fn kind(name: &[u8]) -> Kind {
    match name {
        b"response.completed" => Kind::Completed,
        b"response.incomplete" => Kind::Incomplete,
        b"response.failed" | b"error" => Kind::Failed,
        kind if kind.ends_with(b".delta") => Kind::Delta,
        _ => Kind::Other,
    }
}

/// Anthropic's messages: named events as well.
fn messages(
    reader: &mut Reader<'_>,
    name: &[u8],
    seen: &mut Seen,
    event: &mut Event,
) -> Result<(), Flaw> {
    match name {
        b"message_stop" => seen.done = true,
        b"error" => seen.error = true,
        _ => {}
    }
    reader.object(|key, value| {
        match (
            key.one_of(&["type", "message", "delta", "usage"]),
            value.peek(),
        ) {
            (Some(0), _) => {
                if let Some(text) = value.maybe_text()? {
                    match text.plain() {
                        Some(b"message_stop") => seen.done = true,
                        Some(b"error") => seen.error = true,
                        _ => {}
                    }
                }
                Ok(())
            }
            (Some(1), Some(b'{')) => value.object(|key, value| {
                if key.is("usage") && value.peek() == Some(b'{') {
                    return usage(value, seen);
                }
                value.skip()
            }),
            (Some(2), Some(b'{')) => value.object(|key, value| {
                match key.one_of(&["stop_reason", "text", "partial_json", "thinking"]) {
                    Some(0) => finish(value, seen),
                    Some(_) => {
                        event.tokens += u32::from(has_text(value)?);
                        Ok(())
                    }
                    None => value.skip(),
                }
            }),
            (Some(3), Some(b'{')) => usage(value, seen),
            _ => value.skip(),
        }
    })
}

/// The usage, and how it ended, in an answer that is no stream.
pub(super) fn whole(data: &[u8], seen: &mut Seen) {
    let mut reader = Reader::new(data);
    let read = reader.object(|key, value| {
        match (
            key.one_of(&["usage", "choices", "error", "stop_reason", "status"]),
            value.peek(),
        ) {
            (Some(0), Some(b'{')) => usage(value, seen),
            (Some(1), Some(b'[')) => {
                value.array(|value| choice(value, seen, &mut Event::default()))
            }
            (Some(2), _) => {
                seen.error |= is_something(value)?;
                Ok(())
            }
            (Some(3 | 4), Some(b'"')) => finish(value, seen),
            _ => value.skip(),
        }
    });
    if read.is_err() {
        seen.unreadable = seen.unreadable.saturating_add(1);
    }
}

#[cfg(test)]
mod tests;
