//! Which resources a command is about: `KIND NAME…`, `KIND/NAME` and `KIND/NAMESPACE/NAME`.

use outrigger_control_plane::model::{DEFAULT_NAMESPACE, Kind, ResourceKey};
use outrigger_proto::api::v1::ResourceRef;

use crate::failure::Failure;
use crate::kind;

/// What the words after a command name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// All resources of these kinds.
    Kinds(Vec<Kind>),
    /// These resources.
    Named(Vec<ResourceKey>),
}

/// As the management API names resources.
pub fn reference(key: &ResourceKey) -> ResourceRef {
    ResourceRef {
        kind: key.kind.as_str().to_owned(),
        namespace: key.namespace.clone(),
        name: key.name.clone(),
    }
}

/// Understands the words after `get`, `describe` and `delete`.
pub fn parse(words: &[String], namespace: Option<&str>) -> Result<Target, Failure> {
    let namespace = namespace.unwrap_or(DEFAULT_NAMESPACE);
    let (first, rest) = words
        .split_first()
        .ok_or_else(|| Failure::usage("name a kind, for example `services`"))?;
    if words.iter().any(|word| word.contains('/')) {
        let keys = words.iter().map(|word| slashed(word, namespace));
        return keys.collect::<Result<_, _>>().map(Target::Named);
    }
    if rest.is_empty() {
        return kinds(first).map(Target::Kinds);
    }
    let kind = kind::parse(first).map_err(Failure::usage)?;
    let keys = rest.iter().map(|name| key(kind, namespace, name));
    Ok(Target::Named(keys.collect()))
}

fn key(kind: Kind, namespace: &str, name: &str) -> ResourceKey {
    let namespace = if kind.is_namespaced() { namespace } else { "" };
    ResourceKey::new(kind, namespace, name)
}

fn kinds(word: &str) -> Result<Vec<Kind>, Failure> {
    if word.eq_ignore_ascii_case("all") {
        return Ok(Kind::ALL.to_vec());
    }
    word.split(',')
        .map(|word| kind::parse(word).map_err(Failure::usage))
        .collect()
}

fn slashed(word: &str, namespace: &str) -> Result<ResourceKey, Failure> {
    const ALLOWED: &str = "allowed: KIND NAME, KIND/NAME, KIND/NAMESPACE/NAME";
    let parts: Vec<&str> = word.split('/').collect();
    let (kind, namespace, name) = match parts[..] {
        [kind, name] => (kind, namespace, name),
        [kind, namespace, name] => (kind, namespace, name),
        _ => {
            let message = format!("`{word}` names no resource; {ALLOWED}");
            return Err(Failure::usage(message));
        }
    };
    let kind = kind::parse(kind).map_err(Failure::usage)?;
    if name.is_empty() || namespace.is_empty() {
        return Err(Failure::usage(format!(
            "`{word}` has an empty part; {ALLOWED}"
        )));
    }
    Ok(key(kind, namespace, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Exit;

    fn parsed(text: &str, namespace: Option<&str>) -> Result<Target, Failure> {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        parse(&words, namespace)
    }

    fn names(text: &str, namespace: Option<&str>) -> Vec<String> {
        match parsed(text, namespace) {
            Ok(Target::Named(keys)) => keys.iter().map(ResourceKey::to_string).collect(),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn kinds_alone() {
        assert!(matches!(parsed("svc", None), Ok(Target::Kinds(k)) if k == [Kind::Service]));
        assert!(matches!(parsed("all", None), Ok(Target::Kinds(k)) if k == Kind::ALL));
        let two = [Kind::Service, Kind::Route];
        assert!(matches!(parsed("svc,routes", None), Ok(Target::Kinds(k)) if k == two));
    }

    #[test]
    fn named_resources() {
        assert_eq!(names("service chat", None), ["service/default/chat"]);
        assert_eq!(
            names("services a b", Some("models")),
            ["service/models/a", "service/models/b"]
        );
        assert_eq!(names("mesh default", Some("models")), ["mesh/default"]);
        assert_eq!(
            names("rt/canary svc/models/chat", None),
            ["route/default/canary", "service/models/chat"]
        );
    }

    #[test]
    fn what_names_nothing_is_a_usage_error() {
        for text in [
            "",
            "nope",
            "all x",
            "service/",
            "service//x",
            "a/b/c/d",
            "chat svc/x/y/z",
        ] {
            let failure = parsed(text, None).unwrap_err();
            assert_eq!(failure.exit(), Exit::Usage, "{text}: {failure:?}");
        }
    }
}
