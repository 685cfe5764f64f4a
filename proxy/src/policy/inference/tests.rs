use super::{Inference, Model};
use crate::policy::ModelMatch;

fn model(name: &str, aliases: &[&str]) -> Model {
    Model {
        name: name.into(),
        aliases: aliases
            .iter()
            .map(|alias| ModelMatch::pattern(alias))
            .collect(),
        served_as: None,
        subset: Default::default(),
    }
}

#[test]
fn names_go_before_aliases_and_these_before_patterns() {
    let inference = Inference {
        models: vec![
            model("large", &["*"]),
            model("small", &["tiny", "mini-*"]),
            model("tiny-2", &["tiny-*"]),
        ],
        ..Inference::default()
    };
    for (name, place) in [
        ("large", 0),
        ("small", 1),
        ("tiny", 1),
        ("tiny-2", 2),
        // The first pattern in order.
        ("mini-1", 0),
        ("whatever", 0),
    ] {
        assert_eq!(inference.find(name), Some(place), "{name}");
    }
    assert_eq!(Inference::default().find("large"), None);
}
