//! What a JSON body asks a model for.

use bytes::Bytes;

use super::json::{Flaw, Reader};
use super::prompt::Count;
use super::request::{ModelRequest, OptionsSpan, Spans, Unread};

/// Longer names of models and users are nobody's.
const MAX_NAME: usize = 512;

/// Members that are read. Any of them that stands twice, in whatever case, makes a request ambiguous: which of the two counts
/// differs between the libraries that read it.
const KEYS: [&str; 18] = [
    "model",
    "stream",
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "n",
    "user",
    "safety_identifier",
    "metadata",
    "stream_options",
    "messages",
    "prompt",
    "input",
    "system",
    "instructions",
    "tools",
    "text_input",
    "cache_salt",
];

/// A member that stands twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Duplicate(pub(super) &'static str);

/// Reads a body into the request. What is no JSON leaves it as it is, but for the note that it was not read.
pub(super) fn read(request: &mut ModelRequest, body: &Bytes) -> Result<(), Duplicate> {
    let mut found = Found::default();
    let mut reader = Reader::new(body);
    let read = found.object(&mut reader).and_then(|()| {
        if reader.is_done() {
            Ok(())
        } else {
            Err(Flaw::Malformed)
        }
    });
    if let Some(key) = found.twice {
        return Err(Duplicate(key));
    }
    match read {
        Ok(()) => found.into_request(request, body),
        Err(Flaw::Malformed) => request.unread = Some(Unread::Malformed),
        Err(Flaw::TooDeep) => request.unread = Some(Unread::TooDeep),
    }
    Ok(())
}

#[derive(Debug, Default)]
struct Found {
    /// One bit for each of the keys.
    seen: u32,
    twice: Option<&'static str>,
    spans: Spans,
    model: Option<Box<str>>,
    stream: bool,
    max_tokens: [Option<u32>; 3],
    n: Option<u32>,
    user: Option<Box<str>>,
    safety_identifier: Option<Box<str>>,
    user_id: Option<Box<str>>,
    wants_usage: bool,
    prompt: Count,
    has_prompt: bool,
}

impl Found {
    fn object(&mut self, reader: &mut Reader<'_>) -> Result<(), Flaw> {
        self.spans.open = reader.position() + 1;
        reader.object(|key, value| {
            self.spans.has_members = true;
            let Some(index) = self.key(&key) else {
                return value.skip();
            };
            match KEYS[index] {
                "model" => {
                    if let Some(text) = value.maybe_text()?
                        && text.len() <= MAX_NAME
                        && let Some(name) = text.decode()
                    {
                        self.spans.model = Some(text.span());
                        self.model = Some(name.into());
                    } else {
                        self.spans.model_unclear = true;
                    }
                }
                "stream" => self.stream = value.maybe_bool()?.unwrap_or_default(),
                "max_completion_tokens" => self.max_tokens[0] = value.maybe_number()?,
                "max_output_tokens" => self.max_tokens[1] = value.maybe_number()?,
                "max_tokens" => self.max_tokens[2] = value.maybe_number()?,
                "n" => self.n = value.maybe_number()?,
                "user" => self.user = name(value)?,
                "safety_identifier" => self.safety_identifier = name(value)?,
                "metadata" => self.metadata(value)?,
                "stream_options" => self.options(value)?,
                "system" | "instructions" => self.prompt(0, value)?,
                "tools" => self.prompt(1, value)?,
                "cache_salt" => {
                    let start = value.position();
                    value.skip()?;
                    self.spans.cache_salt = Some(start..value.end());
                }
                _ => {
                    self.has_prompt = true;
                    self.prompt(2, value)?;
                }
            }
            Ok(())
        })
    }

    /// Which of the keys it is. `None`: none, or one in another case, which those who read it may take for the same.
    fn key(&mut self, key: &super::json::Text<'_>) -> Option<usize> {
        let decoded;
        let text = match key.plain() {
            Some(raw) => raw,
            None => {
                decoded = key.decode()?;
                decoded.as_bytes()
            }
        };
        let index = KEYS
            .iter()
            .position(|known| known.as_bytes().eq_ignore_ascii_case(text))?;
        let bit = 1 << index;
        if self.seen & bit != 0 {
            self.twice.get_or_insert(KEYS[index]);
        }
        self.seen |= bit;
        let is_exact = KEYS[index].as_bytes() == text;
        self.spans.model_unclear |= !is_exact && KEYS[index] == "model";
        self.spans.options_unclear |= !is_exact && KEYS[index] == "stream_options";
        self.spans.cache_salt_unclear |= !is_exact && KEYS[index] == "cache_salt";
        is_exact.then_some(index)
    }

    fn prompt(&mut self, place: usize, reader: &mut Reader<'_>) -> Result<(), Flaw> {
        let start = reader.position();
        self.prompt.read(reader)?;
        // A body with several of them is read in another order by every server.
        self.spans.prompt[place].get_or_insert(start..reader.end());
        Ok(())
    }

    fn metadata(&mut self, reader: &mut Reader<'_>) -> Result<(), Flaw> {
        if reader.peek() != Some(b'{') {
            return reader.skip();
        }
        reader.object(|key, value| {
            if key.is("user_id") {
                self.user_id = name(value)?;
                return Ok(());
            }
            value.skip()
        })
    }

    fn options(&mut self, reader: &mut Reader<'_>) -> Result<(), Flaw> {
        let start = reader.position();
        let is_object = reader.peek() == Some(b'{');
        let (mut has_members, mut include_usage) = (false, None);
        if is_object {
            reader.object(|key, value| {
                has_members = true;
                if !key.is("include_usage") {
                    return value.skip();
                }
                let start = value.position();
                self.wants_usage = value.maybe_bool()?.unwrap_or_default();
                if include_usage.replace(start..value.end()).is_some() {
                    self.twice.get_or_insert("include_usage");
                }
                Ok(())
            })?;
        } else {
            reader.skip()?;
        }
        self.spans.options = Some(OptionsSpan {
            value: start..reader.end(),
            has_members,
            is_object,
            include_usage,
        });
        Ok(())
    }

    fn into_request(self, request: &mut ModelRequest, body: &Bytes) {
        // The path's name counts where it has one.
        if request.name.is_none() {
            request.name = self.model;
            request.spans = self.spans;
        } else {
            request.spans.prompt = self.spans.prompt;
        }
        request.stream |= self.stream && request.api.can_stream();
        request.max_tokens = self.max_tokens.into_iter().flatten().next();
        request.choices = self.n.unwrap_or(1).max(1);
        request.tenant = self.user.or(self.safety_identifier).or(self.user_id);
        request.wants_usage = self.wants_usage;
        request.prompt_tokens = self.has_prompt.then(|| self.prompt.tokens());
        request.body = body.clone();
    }
}

fn name(reader: &mut Reader<'_>) -> Result<Option<Box<str>>, Flaw> {
    let text = reader.maybe_text()?.filter(|text| text.len() <= MAX_NAME);
    let text = text.and_then(|text| text.decode());
    Ok(text.filter(|text| !text.is_empty()).map(Box::from))
}

/// For a fuzzer: what is read of a body, and that edits of it do what they say.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz(bytes: &[u8]) {
    use super::api::Api;
    use crate::policy::{Inference, Model, TokenStreams};

    let body = Bytes::copy_from_slice(bytes);
    let mut request = ModelRequest::new(Api::Chat);
    if read(&mut request, &body).is_err() || request.unread.is_some() {
        return;
    }
    let _ = request.prefixes(64).count();
    if let Ok(edits) = request.edits_to("a third", None) {
        let edited: Vec<u8> = edits.map_or(body.to_vec(), |edits| edits.apply(&body).concat());
        let mut again = ModelRequest::new(Api::Chat);
        assert!(read(&mut again, &Bytes::from(edited)).is_ok() && again.unread.is_none());
        assert_eq!(again.name(), Some("a third"));
        assert_eq!(again.prompt_tokens, request.prompt_tokens);
    }
    let Some(name) = request.name.clone() else {
        return;
    };
    let inference = Inference {
        models: vec![Model {
            name,
            aliases: Vec::new(),
            served_as: Some("an\"other".into()),
            subset: Default::default(),
        }],
        streams: TokenStreams {
            request_usage: true,
            ..TokenStreams::default()
        },
        ..Inference::default()
    };
    if let Some(edits) = request.edits(&inference) {
        let edited: Vec<u8> = edits.apply(&body).concat();
        assert_eq!(
            edited.len() as i64,
            body.len() as i64 + edits.growth(),
            "a wrong length"
        );
        let edited = Bytes::from(edited);
        let mut again = ModelRequest::new(Api::Chat);
        assert!(read(&mut again, &edited).is_ok() && again.unread.is_none());
        assert_eq!(again.name(), Some("an\"other"));
        assert!(!request.stream || again.wants_usage || request.spans.options_unclear);
        assert_eq!(again.max_tokens, request.max_tokens);
        assert_eq!(again.prompt_tokens, request.prompt_tokens);
    }
}

#[cfg(test)]
mod tests;
