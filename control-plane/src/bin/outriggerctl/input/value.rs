//! Values of options.

use std::time::Duration;

use outrigger_control_plane::model;

/// `250ms`, `10s`, `1m30s`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let duration: model::Duration = text
        .parse()
        .map_err(|error: model::DurationError| error.to_string())?;
    if duration.as_millis() == 0 {
        return Err("must be more than zero".to_owned());
    }
    Ok(duration.as_std())
}

/// As [`duration`]; a bare number means seconds.
pub fn seconds_or_duration(text: &str) -> Result<Duration, String> {
    match text.parse::<u32>() {
        Ok(seconds) => duration(&format!("{seconds}s")),
        Err(_) => duration(text),
    }
}

/// `key=value`.
pub fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        // `==` is what kubectl takes as well.
        Some((key, value)) if !key.is_empty() => {
            let value = value.strip_prefix('=').unwrap_or(value);
            Ok((key.to_owned(), value.to_owned()))
        }
        _ => Err("allowed: KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(seconds_or_duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(seconds_or_duration("250ms"), Ok(Duration::from_millis(250)));
        for bad in ["0s", "5", "-1s", "5 s", ""] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert!(seconds_or_duration("0").is_err());
    }

    #[test]
    fn labels() {
        let pair = |a: &str, b: &str| Ok((a.to_owned(), b.to_owned()));
        assert_eq!(label("version=v1"), pair("version", "v1"));
        assert_eq!(label("version==v1"), pair("version", "v1"));
        assert_eq!(label("empty="), pair("empty", ""));
        assert!(label("version").is_err() && label("=v1").is_err());
    }
}
