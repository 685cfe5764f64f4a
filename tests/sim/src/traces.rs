//! Public traces as workloads.
//!
//! * Mooncake: JSON lines with `timestamp` (milliseconds), `input_length`, `output_length`, `hash_ids` (of each 512 tokens with all before).
//! * Azure LLM inference: CSV with `TIMESTAMP` (date and time), `ContextTokens`, `GeneratedTokens`.
//! * BurstGPT: CSV with `Timestamp` (seconds), `Request tokens`, `Response tokens`, perhaps `Session ID`.
//!
//! The last two do not say what prompts have in common: theirs have nothing.

use std::path::Path;

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::workload::{Request, Text, request};
use crate::{Time, mix, seconds};

/// Formats of traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Mooncake,
    Azure,
    Burstgpt,
}

/// Tokens that each number of a Mooncake trace stands for.
const MOONCAKE_BLOCK: u32 = 512;

/// Longer prompts and answers are cut: no replica could take them.
const MOST_TOKENS: u32 = 131_072;

#[derive(Deserialize)]
struct Mooncake {
    timestamp: f64,
    input_length: u32,
    output_length: u32,
    #[serde(default)]
    hash_ids: Vec<u64>,
}

/// Reads the first `limit` requests; `speed`: how many times faster they come.
pub fn read(path: &Path, format: Format, limit: usize, speed: f64) -> anyhow::Result<Vec<Request>> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text, format, limit, speed).with_context(|| path.display().to_string())
}

/// As [`read`], from the file's text.
pub fn parse(text: &str, format: Format, limit: usize, speed: f64) -> anyhow::Result<Vec<Request>> {
    let mut requests = match format {
        Format::Mooncake => mooncake(text, limit, speed)?,
        Format::Azure => csv(
            text,
            limit,
            speed,
            ["TIMESTAMP", "ContextTokens", "GeneratedTokens"],
        )?,
        Format::Burstgpt => csv(
            text,
            limit,
            speed,
            ["Timestamp", "Request tokens", "Response tokens"],
        )?,
    };
    let first = requests.iter().map(|request| request.at).min().unwrap_or(0);
    requests.iter_mut().for_each(|request| request.at -= first);
    Ok(requests)
}

fn mooncake(text: &str, limit: usize, speed: f64) -> anyhow::Result<Vec<Request>> {
    let lines = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty());
    lines
        .take(limit)
        .map(|(number, line)| {
            let line: Mooncake =
                serde_json::from_str(line).with_context(|| format!("line {}", number + 1))?;
            let mut left = line.input_length.min(MOST_TOKENS);
            let mut prompt = Text::default();
            for id in &line.hash_ids {
                let tokens = left.min(MOONCAKE_BLOCK);
                prompt = prompt.message(mix(11, *id), tokens);
                left -= tokens;
            }
            let fresh = mix(12, number as u64);
            if left > 0 {
                prompt = prompt.message(fresh, left);
            }
            let answer = (mix(13, fresh), line.output_length.min(MOST_TOKENS));
            Ok(request(
                at(line.timestamp / 1000.0, speed)?,
                &prompt,
                answer,
                0,
                number as u64 + 1,
            ))
        })
        .collect()
}

fn at(time: f64, speed: f64) -> anyhow::Result<Time> {
    if !(time >= 0.0 && time.is_finite()) {
        bail!("{time} is not a time");
    }
    Ok(seconds(time / speed))
}

fn csv(text: &str, limit: usize, speed: f64, columns: [&str; 3]) -> anyhow::Result<Vec<Request>> {
    let mut lines = text.lines();
    let head: Vec<&str> = lines
        .next()
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .collect();
    let column = |name: &str| {
        let found = head.iter().position(|each| *each == name);
        found.with_context(|| format!("no column {name:?}; there are {}", head.join(", ")))
    };
    let places = [
        column(columns[0])?,
        column(columns[1])?,
        column(columns[2])?,
    ];
    let mut requests = Vec::new();
    for (number, line) in (2_u64..).zip(lines).take(limit) {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let field = |place: usize| {
            fields
                .get(place)
                .copied()
                .with_context(|| format!("line {number}: too short"))
        };
        let tokens = |place: usize| -> anyhow::Result<u32> {
            let field = field(place)?;
            let tokens: f64 = field
                .parse()
                .with_context(|| format!("line {number}: {field:?} is not a number"))?;
            Ok((tokens as u32).min(MOST_TOKENS))
        };
        let when = field(places[0])?;
        let when = time(when).with_context(|| format!("line {number}: {when:?} is not a time"))?;
        let (prompt, answer) = (tokens(places[1])?, tokens(places[2])?);
        if answer == 0 {
            // BurstGPT has failed requests, too.
            continue;
        }
        let text = Text::default().message(mix(14, number), prompt);
        requests.push(request(
            at(when, speed)?,
            &text,
            (mix(15, number), answer),
            0,
            number,
        ));
    }
    Ok(requests)
}

/// Seconds, or a date with a time of day: seconds since 1970.
fn time(field: &str) -> Option<f64> {
    if let Ok(seconds) = field.parse::<f64>() {
        return Some(seconds);
    }
    let (date, time) = field.split_once([' ', 'T'])?;
    let mut date = date.split('-').map(|part| part.parse::<u64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Days of the civil calendar with years that begin in March (Hinnant).
    let year = year - u64::from(month <= 2);
    let days =
        365 * year + year / 4 - year / 100 + year / 400 + (153 * ((month + 9) % 12) + 2) / 5 + day
            - 1;
    let days = days.checked_sub(719_468)?;
    let time = time.split(['+', 'Z']).next()?;
    let mut time = time.split(':').map(|part| part.parse::<f64>().ok());
    let (hours, minutes, seconds) = (time.next()??, time.next()??, time.next()??);
    Some(days as f64 * 86_400.0 + hours * 3600.0 + minutes * 60.0 + seconds)
}

#[cfg(test)]
mod tests;
