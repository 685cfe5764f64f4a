//! Colours, used where they carry meaning and only on terminals.

use std::ffi::OsString;

/// An ANSI colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Color(u8);

pub const RED: Color = Color(31);
pub const GREEN: Color = Color(32);
pub const YELLOW: Color = Color(33);

/// Whether a terminal shall get colours: <https://no-color.org>, and not on terminals that know none.
pub fn color_wanted(env: impl Fn(&str) -> Option<OsString>) -> bool {
    env("NO_COLOR").is_none_or(|value| value.is_empty())
        && env("TERM").is_none_or(|term| term != "dumb")
}

/// `text` in `color`, or as it is.
pub fn paint(color: Color, text: &str, enabled: bool) -> String {
    if enabled {
        format!("\x1b[{}m{text}\x1b[0m", color.0)
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_color_and_dumb_terminals_are_respected() {
        let with = |name: &'static str, value: &'static str| {
            color_wanted(move |asked| (asked == name).then(|| value.into()))
        };
        assert!(with("TERM", "xterm"));
        assert!(with("NO_COLOR", ""));
        assert!(!with("NO_COLOR", "1"));
        assert!(!with("TERM", "dumb"));
    }
}
