//! The model in a form with a file (`multipart/form-data`, RFC 7578), as the audio interfaces have it.

use memchr::memmem;

/// The boundary of a content type.
pub(super) fn boundary(content_type: &str) -> Option<&str> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let value = |parameter: &'_ str| -> Option<usize> {
        let (name, _) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("boundary").then_some(0)
    };
    let found = parameters.split(';').find(|each| value(each).is_some())?;
    let (_, value) = found.split_once('=')?;
    let value = value.trim().trim_matches('"');
    (1..=70).contains(&value.len()).then_some(value)
}

/// The value of a field, if it stands once. `Err`: it stands twice.
pub(super) fn field<'a>(body: &'a [u8], boundary: &str, name: &str) -> Result<Option<&'a str>, ()> {
    let delimiter = format!("--{boundary}");
    let finder = memmem::Finder::new(delimiter.as_bytes());
    let mut found = None;
    let mut rest = body;
    while let Some(at) = finder.find(rest) {
        rest = &rest[at + delimiter.len()..];
        if rest.starts_with(b"--") {
            break;
        }
        let Some(head_end) = memmem::find(rest, b"\r\n\r\n") else {
            break;
        };
        let (head, after) = rest.split_at(head_end);
        let content = &after[4..];
        if is_named(head, name) {
            let end = finder.find(content).unwrap_or(content.len());
            let value = content[..end].strip_suffix(b"\r\n");
            let text = value.and_then(|value| std::str::from_utf8(value).ok());
            if found.is_some() {
                return Err(());
            }
            found = text.filter(|text| !text.is_empty() && text.len() <= 512);
        }
        rest = content;
    }
    Ok(found)
}

/// Whether a part's head says that it is this field.
fn is_named(head: &[u8], name: &str) -> bool {
    let Ok(head) = std::str::from_utf8(head) else {
        return false;
    };
    head.split("\r\n").any(|line| {
        let Some((header, value)) = line.split_once(':') else {
            return false;
        };
        header.trim().eq_ignore_ascii_case("content-disposition")
            && value.split(';').any(|parameter| {
                parameter.split_once('=').is_some_and(|(key, value)| {
                    key.trim().eq_ignore_ascii_case("name")
                        && value.trim().trim_matches('"') == name
                })
            })
    })
}

#[cfg(test)]
mod tests {
    use super::{boundary, field};

    const BODY: &str = "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"model\"\r\n\r\nname=\"model\"\r\n--x\r\ncontent-disposition: form-data; name=model\r\n\r\nwhisper\r\n--x--\r\n";

    #[test]
    fn finds_the_field() {
        assert_eq!(field(BODY.as_bytes(), "x", "model"), Ok(Some("whisper")));
        assert_eq!(field(BODY.as_bytes(), "x", "language"), Ok(None));
        assert_eq!(field(b"", "x", "model"), Ok(None));
    }

    #[test]
    fn a_field_that_stands_twice_is_refused() {
        let twice = BODY.replace("name=\"file\"; filename=\"model\"", "name=\"model\"");
        assert_eq!(field(twice.as_bytes(), "x", "model"), Err(()));
    }

    #[test]
    fn the_boundary_is_a_parameter() {
        assert_eq!(boundary("multipart/form-data; boundary=x"), Some("x"));
        assert_eq!(
            boundary("Multipart/Form-Data; a=b; Boundary=\"x y\""),
            Some("x y")
        );
        assert_eq!(boundary("multipart/form-data"), None);
        assert_eq!(boundary("multipart/mixed; boundary=x"), None);
    }
}
