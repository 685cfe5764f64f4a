//! The "language model": a tokenizer that can be inverted and a greedy rule for the next token.
//!
//! The next token depends on *all* tokens before it and on nothing else. So the same prompt gives the same text on every
//! replica, and a prompt that is continued with the first half of an answer gives the second half: what a real model
//! does at temperature 0, and what a test of stream continuation has to compare.

use std::collections::HashMap;
use std::sync::LazyLock;

/// Words that answers are made of, by what may follow them. Every one is a single token, alone, after a blank, and with
/// a capital.
const WORDS: &[(Class, &[&str])] = &[
    (
        Class::Determiner,
        &["the", "our", "every", "another", "no", "this"],
    ),
    (
        Class::Adjective,
        &[
            "slow", "bright", "deep", "quiet", "long", "old", "small", "wide", "cold", "steady",
            "grey", "patient",
        ],
    ),
    (
        Class::Noun,
        &[
            "sea", "boat", "mast", "sail", "oar", "hull", "wind", "wave", "tide", "star", "coast",
            "harbour", "island", "reef", "storm", "swell", "current", "crew", "captain", "lantern",
            "anchor", "rope", "deck", "keel", "rudder", "compass", "chart", "horizon", "shore",
            "gull", "whale", "fog", "dawn", "night",
        ],
    ),
    (
        Class::Verb,
        &[
            "carries", "follows", "turns", "holds", "meets", "leaves", "finds", "keeps", "crosses",
            "hears", "lifts", "steadies",
        ],
    ),
    (
        Class::Preposition,
        &[
            "with", "under", "over", "beyond", "toward", "against", "and",
        ],
    ),
];

/// Kind of a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Determiner,
    Adjective,
    Noun,
    Verb,
    Preposition,
}

/// Ids from here on are words: the word's number times three, plus the variant. Below are pieces of up to four bytes,
/// packed big-endian; a piece of four bytes starts with a blank, a letter or a digit, so it is above this range, and
/// one of three bytes is below it.
const WORD_BASE: u32 = 0x0100_0000;
/// After a blank, after a blank with a capital, with a capital at the start of a text.
const VARIANTS: u32 = 3;
const AFTER_BLANK: u32 = 0;
const CAPITAL_AFTER_BLANK: u32 = 1;
const CAPITAL: u32 = 2;

/// About the mean length of a sentence in tokens: of four nouns one ends it, and from noun to noun it is three tokens.
const SENTENCE: u64 = 13;

const FULL_STOP: u32 = b'.' as u32;
const COMMA: u32 = b',' as u32;
const NEWLINE: u32 = b'\n' as u32;

struct Vocabulary {
    texts: Vec<String>,
    classes: Vec<Class>,
    ids: HashMap<String, u32>,
}

static VOCABULARY: LazyLock<Vocabulary> = LazyLock::new(|| {
    let (mut texts, mut classes) = (Vec::new(), Vec::new());
    for (class, words) in WORDS {
        for word in *words {
            let (first, rest) = word.split_at(1);
            let capital = format!("{}{rest}", first.to_ascii_uppercase());
            texts.extend([format!(" {word}"), format!(" {capital}"), capital]);
            classes.push(*class);
        }
    }
    let ids = texts
        .iter()
        .zip(WORD_BASE..)
        .map(|(text, id)| (text.clone(), id))
        .collect();
    Vocabulary {
        texts,
        classes,
        ids,
    }
});

impl Vocabulary {
    fn class(&self, token: u32) -> Option<Class> {
        self.classes
            .get((token.checked_sub(WORD_BASE)? / VARIANTS) as usize)
            .copied()
    }

    /// The `random`-th word of a class.
    fn word(&self, class: Class, random: u64) -> u32 {
        let of_class = self
            .classes
            .iter()
            .zip(0..)
            .filter(|(other, _)| **other == class)
            .map(|(_, word)| word);
        let count = of_class.clone().count() as u64;
        let mut chosen = of_class.skip((random % count.max(1)) as usize);
        chosen.next().unwrap_or(0)
    }
}

/// Splits a text into tokens: known words, and pieces of at most four bytes for everything else.
pub fn tokenize(text: &str) -> Vec<u32> {
    let bytes = text.as_bytes();
    let mut tokens = Vec::with_capacity(text.len() / 4 + 1);
    let mut at = 0;
    while at < bytes.len() {
        let letters = at + usize::from(bytes[at] == b' ');
        let mut end = letters;
        while end < bytes.len() && bytes[end].is_ascii_alphanumeric() {
            end += 1;
        }
        if end == letters {
            // No letter or digit follows: one character, however many bytes it has.
            let width = text[at..].chars().next().map_or(1, char::len_utf8);
            tokens.push(pack(&bytes[at..at + width]));
            at += width;
        } else if let Some(&id) = VOCABULARY.ids.get(&text[at..end]) {
            tokens.push(id);
            at = end;
        } else {
            tokens.extend(bytes[at..end].chunks(4).map(pack));
            at = end;
        }
    }
    tokens
}

/// The text of a token, or `None` where there is no such token.
pub fn text(token: u32) -> Option<String> {
    if let Some(word) = token
        .checked_sub(WORD_BASE)
        .and_then(|word| VOCABULARY.texts.get(word as usize))
    {
        return Some(word.clone());
    }
    let bytes = token.to_be_bytes();
    // The token 0 is the character NUL; otherwise leading zeros are padding.
    let padding = bytes.iter().take_while(|byte| **byte == 0).count().min(3);
    let piece = std::str::from_utf8(&bytes[padding..]).ok()?;
    (tokenize(piece) == [token]).then(|| piece.to_owned())
}

fn pack(piece: &[u8]) -> u32 {
    piece
        .iter()
        .fold(0, |packed, byte| (packed << 8) | u32::from(*byte))
}

/// A hash of the tokens so far, extended one token at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Context(u64);

impl Context {
    /// Starts a hash that differs from that of every other seed.
    pub fn seeded(seed: u64) -> Self {
        Self(mix(seed))
    }

    /// The hash with one more token.
    #[must_use]
    pub fn with(self, token: u32) -> Self {
        Self(mix(
            self.0 ^ u64::from(token).wrapping_add(0x9e37_79b9_7f4a_7c15)
        ))
    }

    /// The hash as a number.
    pub fn value(self) -> u64 {
        self.0
    }
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014): every bit of the input reaches every bit of the output.
fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// The greedy choice after `context`, whose last token is `previous`. `None` is the end of the text.
///
/// `mean_length` is the mean number of tokens until the end; 0 means that the model never ends by itself. Texts end only
/// after a full stop, and of [`SENTENCE`] tokens one is a full stop.
pub fn next(context: Context, previous: Option<u32>, mean_length: u32) -> Option<u32> {
    let random = context.value();
    let ends = mean_length > 0 && (random >> 40) % u64::from(mean_length) < SENTENCE;
    if previous == Some(FULL_STOP) && ends {
        return None;
    }
    let class = match (
        previous.and_then(|token| VOCABULARY.class(token)),
        random % 20,
    ) {
        (Some(Class::Noun), 0..5) => return Some(FULL_STOP),
        (Some(Class::Noun), 5..7) => return Some(COMMA),
        (Some(Class::Noun), 7..12) | (Some(Class::Verb), 0..6) => Class::Preposition,
        (Some(Class::Noun), _) => Class::Verb,
        (Some(Class::Determiner), 0..8) => Class::Adjective,
        (Some(Class::Determiner | Class::Adjective), _) => Class::Noun,
        (Some(Class::Verb | Class::Preposition) | None, _) => Class::Determiner,
    };
    let variant = match previous {
        None | Some(NEWLINE) => CAPITAL,
        Some(FULL_STOP) => CAPITAL_AFTER_BLANK,
        Some(_) => AFTER_BLANK,
    };
    Some(WORD_BASE + VOCABULARY.word(class, random >> 8) * VARIANTS + variant)
}

#[cfg(test)]
mod tests;
