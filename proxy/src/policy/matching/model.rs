//! Conditions on the model that a request names.

/// A condition on a model's name. Case matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelMatch {
    Exact(Box<str>),
    /// A `*` stands for any characters, also none.
    Glob(Box<str>),
}

impl ModelMatch {
    /// Exact, unless there is a `*` in it.
    pub fn pattern(text: &str) -> ModelMatch {
        if text.contains('*') {
            ModelMatch::Glob(text.into())
        } else {
            ModelMatch::Exact(text.into())
        }
    }

    pub fn matches(&self, name: &str) -> bool {
        match self {
            ModelMatch::Exact(exact) => **exact == *name,
            ModelMatch::Glob(pattern) => glob(pattern, name),
        }
    }

    pub fn kind(&self) -> &'static str {
        match self {
            ModelMatch::Exact(_) => "exact",
            ModelMatch::Glob(_) => "glob",
        }
    }

    pub fn value(&self) -> &str {
        match self {
            ModelMatch::Exact(text) | ModelMatch::Glob(text) => text,
        }
    }
}

/// The pieces between the stars stand in the name in their order. Each is looked for once, from where the one before ended:
/// the first place that fits is as good as any later one.
fn glob(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(mut name) = name.strip_prefix(head) else {
        return false;
    };
    let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
    for piece in middle.split('*') {
        match name.find(piece) {
            Some(at) => name = &name[at + piece.len()..],
            None => return false,
        }
    }
    name.ends_with(tail)
}

#[cfg(test)]
mod tests;
