//! Reads a [`Duration`].

use std::str::FromStr;

use super::Duration;

/// Units with their length in milliseconds, longest first.
pub(super) const UNITS: [(&str, u64); 4] =
    [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Why a text is no [`Duration`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Nothing was written.
    #[error("a duration is empty; write for example 250ms, 10s or 1m30s")]
    Empty,
    /// A number stands alone.
    #[error("the duration \"{0}\" has no unit; write for example {1}s or {1}ms")]
    NoUnit(String, u64),
    /// There is no number where one must be.
    #[error(
        "the duration \"{0}\" needs a whole number before each unit; write for example 250ms, 10s or 1m30s"
    )]
    NoNumber(String),
    /// A unit that is not known.
    #[error("the duration \"{0}\" has the unit \"{1}\"; allowed are h, m, s and ms")]
    UnknownUnit(String, String),
    /// Units out of order or written twice.
    #[error(
        "the duration \"{0}\" has \"{1}\" after \"{2}\"; longer units come first, each at most once"
    )]
    Order(String, &'static str, &'static str),
    /// Longer than [`Duration::MAX`].
    #[error("the duration \"{0}\" is too long; at most {max} is allowed", max = Duration::MAX)]
    TooLong(String),
}

impl FromStr for Duration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        if text.is_empty() {
            return Err(DurationError::Empty);
        }
        let mut rest = text;
        let mut total = 0u64;
        let mut last: Option<usize> = None;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, tail) = rest.split_at(digits);
            let unit = &tail[..tail
                .find(|c: char| !c.is_alphabetic())
                .unwrap_or(tail.len())];
            if number.is_empty() {
                return Err(DurationError::NoNumber(text.to_owned()));
            }
            let number: u64 = number
                .parse()
                .map_err(|_| DurationError::TooLong(text.to_owned()))?;
            if tail.is_empty() {
                return Err(DurationError::NoUnit(text.to_owned(), number));
            }
            if unit.is_empty() {
                return Err(DurationError::NoNumber(text.to_owned()));
            }
            let Some(position) = UNITS.iter().position(|(name, _)| *name == unit) else {
                return Err(DurationError::UnknownUnit(text.to_owned(), unit.to_owned()));
            };
            if let Some(last) = last
                && last >= position
            {
                return Err(DurationError::Order(
                    text.to_owned(),
                    UNITS[position].0,
                    UNITS[last].0,
                ));
            }
            last = Some(position);
            total = number
                .checked_mul(UNITS[position].1)
                .and_then(|millis| total.checked_add(millis))
                .filter(|total| *total <= Duration::MAX.as_millis())
                .ok_or_else(|| DurationError::TooLong(text.to_owned()))?;
            rest = &tail[unit.len()..];
        }
        Ok(Duration::from_millis(total))
    }
}
