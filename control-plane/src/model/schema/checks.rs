//! Checks of texts. Each says what was found and what is allowed.

use std::net::SocketAddr;

use regex::bytes::RegexBuilder;

use super::report::quote;

/// Compiled size of a regular expression, bytes. The sidecars' limit: what passes here is not refused there.
const REGEX_SIZE: usize = 1 << 20;
/// Length of a regular expression, characters.
const REGEX_LENGTH: usize = 1024;
/// Length of a SPIFFE id, from the SPIFFE-ID specification, section 2.
const SPIFFE_LENGTH: usize = 2048;

/// Any text.
pub(super) fn anything(_: &str) -> Result<(), String> {
    Ok(())
}

/// A short text for people.
pub(super) fn note(text: &str) -> Result<(), String> {
    if text.len() <= 65_536 {
        Ok(())
    } else {
        Err(format!(
            "the text has {} bytes; at most 65536 are allowed",
            text.len()
        ))
    }
}

/// A DNS label of RFC 1123.
pub(super) fn name(text: &str) -> Result<(), String> {
    if is_label(text) {
        return Ok(());
    }
    let likely = text.to_lowercase().replace(['_', '.', ' ', '/'], "-");
    let hint = if is_label(&likely) {
        format!("; did you mean \"{likely}\"?")
    } else {
        String::new()
    };
    Err(format!(
        "{} is not a name; allowed are 1 to 63 lower-case letters, digits and \"-\", with a letter or digit at both ends{hint}",
        quote(text)
    ))
}

fn is_label(text: &str) -> bool {
    let edge = |byte: Option<&u8>| {
        byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|byte| edge(Some(byte)) || *byte == b'-')
}

/// A DNS name, at most 253 characters.
pub(super) fn dns_name(text: &str) -> Result<(), String> {
    if text.len() <= 253 && text.split('.').all(is_label) {
        return Ok(());
    }
    Err(format!(
        "{} is not a DNS name; allowed are lower-case names joined by dots, for example models.example",
        quote(text)
    ))
}

/// A host that callers name: exact, or `*.suffix`.
pub(super) fn host(text: &str) -> Result<(), String> {
    if dns_name(text.strip_prefix("*.").unwrap_or(text)).is_ok() {
        return Ok(());
    }
    let found = quote(text);
    let lower = text.to_lowercase();
    let hint = if text.contains("://") {
        "; leave the scheme out"
    } else if text.contains('/') {
        "; leave the path out"
    } else if text.contains(':') {
        "; leave the port out, hosts are matched without it"
    } else if text.ends_with('.') {
        "; leave the last dot out"
    } else if text.contains('*') {
        "; a \"*\" can only stand for the whole beginning, as in *.example"
    } else if lower != text && dns_name(&lower).is_ok() {
        "; write it in lower case"
    } else {
        ""
    };
    Err(format!(
        "{found} is not a host; allowed are DNS names, for example chat.models or *.chat.example{hint}"
    ))
}

/// `ip:port`.
pub(super) fn address(text: &str) -> Result<(), String> {
    let example =
        "allowed is an IP address with a port, for example 10.0.0.5:8000 or [fd00::5]:8000";
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() == 0 => {
            Err(format!("{} has the port 0; {example}", quote(text)))
        }
        Ok(address) if address.ip().is_unspecified() => Err(format!(
            "{} is a place to listen, not one to connect to; {example}",
            quote(text)
        )),
        Ok(_) => Ok(()),
        Err(_) if text.parse::<std::net::IpAddr>().is_ok() => {
            Err(format!("{} has no port; {example}", quote(text)))
        }
        Err(_) => Err(format!(
            "{} is not an address; {example} (names are not looked up)",
            quote(text)
        )),
    }
}

/// A SPIFFE id.
pub(super) fn spiffe_id(text: &str) -> Result<(), String> {
    if is_spiffe_id(text) {
        Ok(())
    } else {
        Err(not_spiffe(text, ""))
    }
}

/// A SPIFFE id, or the beginning of some: `…/*`.
pub(super) fn spiffe_pattern(text: &str) -> Result<(), String> {
    let id = text.strip_suffix("/*").unwrap_or(text);
    let valid = is_spiffe_id(id)
        || text.ends_with("/*") && id.strip_prefix("spiffe://").is_some_and(is_trust_domain);
    if valid {
        Ok(())
    } else {
        Err(not_spiffe(text, ", or a path of ids that ends in /*"))
    }
}

fn not_spiffe(text: &str, further: &str) -> String {
    format!(
        "{} is not a SPIFFE id; allowed are ids like spiffe://outrigger.local/ns/default/sa/chat{further}",
        quote(text)
    )
}

fn is_spiffe_id(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let segment =
        |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(allowed);
    text.len() <= SPIFFE_LENGTH
        && text
            .strip_prefix("spiffe://")
            .and_then(|rest| rest.split_once('/'))
            .is_some_and(|(domain, path)| is_trust_domain(domain) && path.split('/').all(segment))
}

fn is_trust_domain(text: &str) -> bool {
    let allowed = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_')
    };
    !text.is_empty() && text.len() <= 255 && text.bytes().all(allowed)
}

/// Name of a header.
pub(super) fn header_name(text: &str) -> Result<(), String> {
    if text.len() <= 256 && http::HeaderName::from_bytes(text.as_bytes()).is_ok() {
        return Ok(());
    }
    let hint = if text.starts_with(':') {
        "; hosts, paths and methods have fields of their own"
    } else {
        ""
    };
    Err(format!(
        "{} is not the name of a header; allowed are 1 to 256 letters, digits and -_.!#$%&'*+^`|~{hint}",
        quote(text)
    ))
}

/// Most characters of a model's name. Names of repositories and paths of files fit.
const MODEL_LENGTH: usize = 256;

/// Name of a model, as requests have it.
pub(super) fn model_name(text: &str) -> Result<(), String> {
    if text.contains('*') {
        return Err(format!(
            "{} has a \"*\"; the name of a model stands for itself, patterns can be aliases",
            quote(text)
        ));
    }
    model_pattern(text)
}

/// Name of a model, or a pattern of such.
pub(super) fn model_pattern(text: &str) -> Result<(), String> {
    let allowed = |c: char| !c.is_control() && !c.is_whitespace();
    if (1..=MODEL_LENGTH).contains(&text.chars().count()) && text.chars().all(allowed) {
        return Ok(());
    }
    Err(format!(
        "{} is not the name of a model; allowed are 1 to {MODEL_LENGTH} characters without spaces",
        quote(text)
    ))
}

/// Path of a cookie.
pub(super) fn metrics_path(text: &str) -> Result<(), String> {
    let is_path = text.starts_with('/')
        && text.len() <= 1024
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if is_path {
        return Ok(());
    }
    Err(format!(
        "{} is not a path; allowed is one that begins with \"/\" and has no blanks, for example /metrics",
        quote(text)
    ))
}

pub(super) fn cookie_path(text: &str) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_graphic() && byte != b';';
    if text.starts_with('/') && text.len() <= 1024 && text.bytes().all(allowed) {
        return Ok(());
    }
    Err(format!(
        "{} is not the path of a cookie; allowed are at most 1024 printable characters without \";\" that begin with \"/\"",
        quote(text)
    ))
}

/// Name of a query parameter, as it stands in a URL.
pub(super) fn parameter(text: &str) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'&' | b'=' | b'#');
    if (1..=256).contains(&text.len()) && text.bytes().all(allowed) {
        return Ok(());
    }
    Err(format!(
        "{} is not the name of a query parameter; allowed are 1 to 256 printable characters without &, = and #",
        quote(text)
    ))
}

/// Key of a label or annotation, as Kubernetes has it: `[prefix/]name`.
pub(super) fn label_key(text: &str) -> Result<(), String> {
    let (prefix, name) = text
        .rsplit_once('/')
        .map_or((None, text), |(prefix, name)| (Some(prefix), name));
    if prefix.is_none_or(|prefix| dns_name(prefix).is_ok()) && is_label_text(name) {
        return Ok(());
    }
    Err(format!(
        "{} is not a label's key; allowed are 1 to 63 letters, digits and -_. with a letter or digit at both ends, after an optional DNS name and \"/\"",
        quote(text)
    ))
}

/// Value of a label, as Kubernetes has it.
pub(super) fn label_value(text: &str) -> Result<(), String> {
    if text.is_empty() || is_label_text(text) {
        return Ok(());
    }
    Err(format!(
        "{} is not a label's value; allowed are at most 63 letters, digits and -_. with a letter or digit at both ends",
        quote(text)
    ))
}

fn is_label_text(text: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    let allowed = |byte: &u8| edge(Some(byte)) || matches!(byte, b'-' | b'_' | b'.');
    bytes.len() <= 63 && edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(allowed)
}

/// A regular expression that has to match a whole value.
pub(super) fn regex(text: &str) -> Result<(), String> {
    if text.chars().count() > REGEX_LENGTH {
        return Err(format!(
            "the regular expression is too long; at most {REGEX_LENGTH} characters are allowed"
        ));
    }
    let whole = format!(r"\A(?:{text})\z");
    // A pattern like `a)|(b` is whole only within our brackets.
    for pattern in [text, &whole] {
        if let Err(error) = RegexBuilder::new(pattern).size_limit(REGEX_SIZE).build() {
            return Err(regex_error(text, &error));
        }
    }
    Ok(())
}

fn regex_error(text: &str, error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(_) => {
            format!(
                "the regular expression {} gets too big; make its repetitions smaller, or write [0-9A-Za-z_] for \\w, which has all letters of Unicode",
                quote(text)
            )
        }
        error => {
            // The library draws the place over several lines; the last one says what is wrong.
            let reason = error.to_string();
            let reason = reason
                .lines()
                .last()
                .unwrap_or_default()
                .trim_start_matches("error: ");
            format!("{} is not a regular expression: {reason}", quote(text))
        }
    }
}
