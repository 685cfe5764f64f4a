//! Changes of paths.

use std::borrow::Cow;

use http::uri::PathAndQuery;

/// A new path, made of the old one. The query stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathModifier {
    Full(Box<str>),
    /// Both without a slash at the end.
    Prefix {
        prefix: Box<str>,
        replacement: Box<str>,
    },
}

/// A text that cannot be part of a path.
#[derive(Debug, thiserror::Error)]
#[error(
    "{found:?} is not a path: it begins with \"/\" and has no query, fragment, spaces or characters beyond ASCII"
)]
pub struct InvalidPath {
    found: String,
}

impl PathModifier {
    /// Takes the place of the whole path.
    pub fn full(path: &str) -> Result<PathModifier, InvalidPath> {
        let path = if path.is_empty() { "/" } else { path };
        check(path)?;
        Ok(PathModifier::Full(path.into()))
    }

    /// Takes the place of a prefix of whole segments. Slashes at the end of both do not count (Gateway API,
    /// `HTTPPathModifier.replacePrefixMatch`).
    pub fn prefix(prefix: &str, replacement: &str) -> Result<PathModifier, InvalidPath> {
        for text in [prefix, replacement] {
            if !text.is_empty() {
                check(text)?;
            }
        }
        let bare = |text: &str| text.strip_suffix('/').unwrap_or(text).into();
        Ok(PathModifier::Prefix {
            prefix: bare(prefix),
            replacement: bare(replacement),
        })
    }

    /// The new path. `None`: this one does not have the prefix.
    pub fn apply(&self, path: &str) -> Option<Cow<'_, str>> {
        match self {
            PathModifier::Full(path) => Some(Cow::Borrowed(path)),
            PathModifier::Prefix {
                prefix,
                replacement,
            } => {
                let rest = path.strip_prefix(&**prefix)?;
                if !(rest.is_empty() || rest.starts_with('/')) {
                    return None;
                }
                let new = format!("{replacement}{rest}");
                Some(Cow::Owned(if new.is_empty() { "/".into() } else { new }))
            }
        }
    }

    /// As [`apply`](Self::apply), with the query. `None` also where it would not be a URI: never, for a path that came in one.
    pub fn rewrite(&self, old: &PathAndQuery) -> Option<PathAndQuery> {
        let path = self.apply(old.path())?;
        let new = match old.query() {
            Some(query) => PathAndQuery::try_from(format!("{path}?{query}")),
            None => PathAndQuery::try_from(path.as_ref()),
        };
        new.ok()
    }
}

fn check(path: &str) -> Result<(), InvalidPath> {
    let valid = path.starts_with('/')
        && !path.contains(['?', '#'])
        && path.bytes().all(|byte| byte.is_ascii_graphic())
        && PathAndQuery::try_from(path).is_ok_and(|parsed| parsed.as_str() == path);
    if valid {
        Ok(())
    } else {
        Err(InvalidPath {
            found: path.to_owned(),
        })
    }
}
