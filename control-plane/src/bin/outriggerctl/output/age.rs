//! Times as people read them.

use jiff::Timestamp;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

/// How long ago `then` was, e.g. `5m`; `0s` for what lies ahead (clocks differ).
pub fn age(then: Timestamp, now: Timestamp) -> String {
    short(now.as_second() - then.as_second())
}

/// How far ahead `then` is: `in 23h`, or `5m ago`.
pub fn relative(then: Timestamp, now: Timestamp) -> String {
    let ahead = then.as_second() - now.as_second();
    if ahead >= 0 {
        format!("in {}", short(ahead))
    } else {
        format!("{} ago", short(-ahead))
    }
}

/// Seconds in at most two units, with a precision of about one in a hundred: the thresholds are kubectl's.
pub fn short(seconds: i64) -> String {
    let two = |large: i64, l: char, small: i64, s: char| {
        let (whole, rest) = (seconds / large, seconds % large / small);
        if rest == 0 {
            format!("{whole}{l}")
        } else {
            format!("{whole}{l}{rest}{s}")
        }
    };
    match seconds {
        ..0 => "0s".to_owned(),
        s if s < 2 * MINUTE => format!("{s}s"),
        s if s < 10 * MINUTE => two(MINUTE, 'm', 1, 's'),
        s if s < 3 * HOUR => format!("{}m", s / MINUTE),
        s if s < 8 * HOUR => two(HOUR, 'h', MINUTE, 'm'),
        s if s < 2 * DAY => format!("{}h", s / HOUR),
        s if s < 8 * DAY => two(DAY, 'd', HOUR, 'h'),
        s if s < 2 * YEAR => format!("{}d", s / DAY),
        s if s < 8 * YEAR => two(YEAR, 'y', DAY, 'd'),
        s => format!("{}y", s / YEAR),
    }
}

/// A point in time to the second, UTC: `2026-11-20 12:00:00Z`.
pub fn point(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages() {
        for (seconds, text) in [
            (-5, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (330, "5m30s"),
            (600, "10m"),
            (3 * HOUR, "3h"),
            (3 * HOUR + 5 * MINUTE, "3h5m"),
            (24 * HOUR, "24h"),
            (2 * DAY + 5 * HOUR, "2d5h"),
            (400 * DAY, "400d"),
            (2 * YEAR + 3 * DAY, "2y3d"),
            (10 * YEAR, "10y"),
        ] {
            assert_eq!(short(seconds), text);
        }
    }

    #[test]
    fn relative_to_now() {
        let at = |second| Timestamp::from_second(second).expect("small enough");
        assert_eq!(relative(at(3600), at(0)), "in 60m");
        assert_eq!(relative(at(0), at(30)), "30s ago");
        assert_eq!(age(at(0), at(30)), "30s");
        assert_eq!(point(at(0)), "1970-01-01 00:00:00Z");
    }
}
