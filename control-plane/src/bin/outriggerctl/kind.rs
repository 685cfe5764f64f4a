//! Kinds of resources as people type them: singular, plural, short.

use outrigger_control_plane::model::Kind;

/// Singular, plural and short name of a kind.
pub const fn words(kind: Kind) -> [&'static str; 3] {
    match kind {
        Kind::Mesh => ["mesh", "meshes", "m"],
        Kind::Service => ["service", "services", "svc"],
        Kind::Route => ["route", "routes", "rt"],
        Kind::RateLimit => ["ratelimit", "ratelimits", "rl"],
        Kind::Workload => ["workload", "workloads", "wl"],
    }
}

/// Finds a kind by any of its names, in any case. The error says what is allowed.
pub fn parse(text: &str) -> Result<Kind, String> {
    let lower = text.to_ascii_lowercase();
    if let Some(kind) = Kind::ALL
        .into_iter()
        .find(|kind| words(*kind).contains(&lower.as_str()))
    {
        return Ok(kind);
    }
    let suggestion = Kind::ALL
        .into_iter()
        .flat_map(words)
        .map(|word| (strsim::damerau_levenshtein(word, &lower), word))
        // A distance of two in a name of three letters is another name.
        .filter(|(distance, word)| *distance <= 2 && word.len() > 3)
        .min()
        .map(|(_, word)| format!(" (did you mean `{word}`?)"))
        .unwrap_or_default();
    let allowed = Kind::ALL.map(|kind| words(kind).join("|"));
    Err(format!(
        "unknown kind `{text}`{suggestion}; allowed: {}",
        allowed.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_a_kind() {
        for text in ["service", "services", "svc", "Service", "SVC"] {
            assert_eq!(parse(text), Ok(Kind::Service), "{text}");
        }
        assert_eq!(parse("meshes"), Ok(Kind::Mesh));
        assert_eq!(parse("wl"), Ok(Kind::Workload));
    }

    #[test]
    fn names_are_unique() {
        let mut all: Vec<_> = Kind::ALL.into_iter().flat_map(words).collect();
        all.sort_unstable();
        let before = all.len();
        all.dedup();
        assert_eq!(all.len(), before);
    }

    #[test]
    fn a_typo_gets_a_suggestion_and_nonsense_does_not() {
        let typo = parse("roues").unwrap_err();
        assert!(typo.contains("did you mean `routes`?"), "{typo}");
        let nonsense = parse("xyzzy").unwrap_err();
        assert!(!nonsense.contains("did you mean"), "{nonsense}");
        assert!(nonsense.contains("workload|workloads|wl"), "{nonsense}");
    }
}
