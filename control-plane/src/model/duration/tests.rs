#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::super::{Duration, DurationError};

#[test]
fn reads_what_the_gateway_api_writes() {
    for (text, millis) in [
        ("250ms", 250),
        ("10s", 10_000),
        ("1m30s", 90_000),
        ("24h", 86_400_000),
        ("1h1m1s1ms", 3_661_001),
        ("0s", 0),
        ("90s", 90_000),
    ] {
        assert_eq!(text.parse(), Ok(Duration::from_millis(millis)), "{text}");
    }
}

#[test]
fn writes_the_shortest_form() {
    for (text, written) in [
        ("90s", "1m30s"),
        ("3600s", "1h"),
        ("0ms", "0s"),
        ("1500ms", "1s500ms"),
    ] {
        assert_eq!(text.parse::<Duration>().unwrap().to_string(), written);
    }
}

#[test]
fn says_what_is_wrong() {
    for (text, message) in [
        (
            "",
            "a duration is empty; write for example 250ms, 10s or 1m30s",
        ),
        (
            "10",
            "the duration \"10\" has no unit; write for example 10s or 10ms",
        ),
        (
            "5 s",
            "the duration \"5 s\" needs a whole number before each unit; write for example 250ms, 10s or 1m30s",
        ),
        (
            "-5s",
            "the duration \"-5s\" needs a whole number before each unit; write for example 250ms, 10s or 1m30s",
        ),
        (
            "1.5s",
            "the duration \"1.5s\" needs a whole number before each unit; write for example 250ms, 10s or 1m30s",
        ),
        (
            "10sec",
            "the duration \"10sec\" has the unit \"sec\"; allowed are h, m, s and ms",
        ),
        (
            "10µs",
            "the duration \"10µs\" has the unit \"µs\"; allowed are h, m, s and ms",
        ),
        (
            "1s1m",
            "the duration \"1s1m\" has \"m\" after \"s\"; longer units come first, each at most once",
        ),
        (
            "1s1s",
            "the duration \"1s1s\" has \"s\" after \"s\"; longer units come first, each at most once",
        ),
        (
            "100000h",
            "the duration \"100000h\" is too long; at most 99999h is allowed",
        ),
    ] {
        assert_eq!(text.parse::<Duration>().unwrap_err().to_string(), message);
    }
    assert!(matches!(
        "99999999999999999999s".parse::<Duration>(),
        Err(DurationError::TooLong(_))
    ));
}

proptest! {
    #[test]
    fn round_trips(millis in 0..=Duration::MAX.as_millis()) {
        let duration = Duration::from_millis(millis);
        prop_assert_eq!(duration.to_string().parse(), Ok(duration));
        let json = serde_json::to_string(&duration).unwrap();
        prop_assert_eq!(serde_json::from_str::<Duration>(&json).unwrap(), duration);
    }

    #[test]
    fn never_panics(text in "\\PC*|[0-9hms]{0,40}") {
        let _ = text.parse::<Duration>();
    }
}
