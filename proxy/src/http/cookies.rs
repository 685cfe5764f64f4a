//! Cookies, as far as balancing needs them (RFC 6265).

use std::time::Duration;

use http::HeaderMap;
use http::header::{COOKIE, HeaderValue, SET_COOKIE};

/// Value of the first cookie of this name, without quotes. Nothing is copied.
pub(crate) fn find<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let values = headers.get_all(COOKIE).iter();
    let mut pairs = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
    pairs.find_map(|pair| {
        let pair = pair.trim_ascii();
        let value = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        let quoted = value
            .strip_prefix(b"\"")
            .and_then(|rest| rest.strip_suffix(b"\""));
        Some(quoted.unwrap_or(value))
    })
}

/// Asks the client to keep a cookie, out of reach of its scripts. `age`: `None` until it is closed.
pub(crate) fn set(
    headers: &mut HeaderMap,
    name: &str,
    value: &str,
    path: &str,
    age: Option<Duration>,
) {
    let mut text = format!("{name}={value}; Path={path}; HttpOnly");
    if let Some(age) = age {
        // Of less than a second nothing would be left.
        text.push_str(&format!("; Max-Age={}", age.as_secs().max(1)));
    }
    // Name and path were checked with the configuration, values are hexadecimal.
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.append(SET_COOKIE, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&'static str]) -> HeaderMap {
        let cookie = |value: &&'static str| (COOKIE, HeaderValue::from_static(value));
        values.iter().map(cookie).collect()
    }

    #[test]
    fn finds_whole_names_in_any_of_the_headers() {
        let all = headers(&["a=1; session=x", "sessions=2;  session2=3;b=\"q\"; =4; c"]);
        let find = |name| find(&all, name);
        assert_eq!(find("a"), Some(&b"1"[..]));
        assert_eq!(find("session"), Some(&b"x"[..]));
        assert_eq!(find("session2"), Some(&b"3"[..]));
        assert_eq!(find("b"), Some(&b"q"[..]));
        assert_eq!(find("c"), None);
        assert_eq!(find("d"), None);
    }

    #[test]
    fn sets_beside_the_applications_own() {
        let mut all = HeaderMap::new();
        all.insert(SET_COOKIE, HeaderValue::from_static("own=1"));
        set(&mut all, "s", "ab", "/v1", Some(Duration::from_secs(90)));
        set(&mut all, "t", "cd", "/", None);
        let values: Vec<_> = all.get_all(SET_COOKIE).iter().collect();
        assert_eq!(
            values,
            [
                "own=1",
                "s=ab; Path=/v1; HttpOnly; Max-Age=90",
                "t=cd; Path=/; HttpOnly"
            ]
        );
    }
}
