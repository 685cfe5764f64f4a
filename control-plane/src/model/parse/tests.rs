#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::{Parsed, parse};
use crate::model::{Problem, ResourceKey};

fn show(parsed: &Parsed) -> String {
    parsed
        .problems
        .iter()
        .map(|problem| format!("{problem}\n"))
        .collect()
}

fn problems(text: &str) -> String {
    show(&parse("f.yaml", text.as_bytes()))
}

const SERVICE: &str = "apiVersion: outrigger.dev/v1alpha1\nkind: Service\nmetadata: {name: chat}\n\
                       spec: {ports: [{port: 80, protocol: http}]}\n";

/// What people read. To change it: look at the new text as somebody who has to repair the file.
#[test]
fn says_what_is_wrong_and_where() {
    let parsed = parse("mistakes.yaml", include_bytes!("testdata/mistakes.yaml"));
    let shown = show(&parsed);
    // Written where it can be compared with the golden file.
    if shown != include_str!("testdata/mistakes.txt") {
        let path = std::env::temp_dir().join("mistakes.txt");
        std::fs::write(&path, &shown).unwrap();
        panic!(
            "the messages changed; the new ones are in {}",
            path.display()
        );
    }
    assert!(parsed.documents.is_empty());
}

#[test]
fn reads_documents_one_by_one() {
    let text = format!(
        "# only a comment\n---\n{SERVICE}---\n---\nbroken: [\n...\n%YAML 1.2\n---\n{}",
        SERVICE.replace("chat", "embed")
    );
    let parsed = parse("f.yaml", text.as_bytes());
    let keys: Vec<_> = parsed
        .documents
        .iter()
        .map(|document| document.resource.key())
        .collect();
    assert_eq!(
        keys,
        [
            ResourceKey::service("default", "chat"),
            ResourceKey::service("default", "embed")
        ]
    );
    assert_eq!(
        show(&parsed),
        "f.yaml:10:1: document 2: this is not valid YAML: did not find expected node content\n"
    );
}

#[test]
fn no_document_is_lost() {
    for between in [
        "---\n",
        "---\n---\n",
        "...\n",
        "--- # x\n---\n",
        "\n...\n# x\n---\n",
        "---\r\n",
        "---\n...\n---\n",
    ] {
        let text = format!("{SERVICE}{between}{}", SERVICE.replace("chat", "embed"));
        let parsed = parse("f.yaml", text.as_bytes());
        assert_eq!(parsed.documents.len(), 2, "{between:?}: {}", show(&parsed));
    }
    // Old line breaks, which YAML takes for such.
    let text = SERVICE.replace('\n', "\r") + "---\r" + SERVICE;
    assert!(
        problems(&text).contains("there is another document in it"),
        "{}",
        problems(&text)
    );
}

#[test]
fn reads_nothing_from_nothing() {
    for text in [
        "",
        "\n",
        "# comment\n",
        "---\n",
        "---\n---\n",
        "null\n",
        "\u{feff}",
    ] {
        let parsed = parse("f.yaml", text.as_bytes());
        assert!(
            parsed.documents.is_empty() && parsed.problems.is_empty(),
            "{text:?}: {}",
            show(&parsed)
        );
    }
}

#[test]
fn reads_json_and_lists() {
    let item = |name: &str| {
        format!(
            r#"{{"apiVersion": "outrigger.dev/v1alpha1", "kind": "Service", "metadata": {{"name": "{name}"}},
 "spec": {{"ports": [{{"port": 80, "protocol": "http"}}]}}}}"#
        )
    };
    let list = format!(
        r#"{{"apiVersion": "x", "kind": "List", "items": [{}, {}]}}"#,
        item("a"),
        item("b")
    );
    for text in [format!("[{}, {}]", item("a"), item("b")), list] {
        for source in ["f.json", "-", "f.yaml"] {
            let parsed = parse(source, text.as_bytes());
            assert_eq!(parsed.documents.len(), 2, "{source}: {}", show(&parsed));
        }
    }
    let text = format!("[{},\n{}]", item("a"), item("B"));
    let parsed = parse("f.json", text.as_bytes());
    assert_eq!(parsed.documents.len(), 1);
    let shown = show(&parsed);
    assert!(
        shown.starts_with("f.json:3:79: service/default/B: metadata.name: \"B\" is not a name"),
        "{shown}"
    );
    // A problem found later is placed too.
    let located = parsed.documents[0].locate(Problem::new("spec.ports[0].port", "…"));
    assert_eq!(
        located.to_string(),
        "f.json:2:27: service/default/a: spec.ports[0].port: …"
    );
}

#[test]
fn says_what_is_wrong_with_json() {
    let shown = |text: &str| show(&parse("f.json", text.as_bytes()));
    assert_eq!(
        shown("{\"a\": 1,}"),
        "f.json:1:9: this is not valid JSON: trailing comma\n"
    );
    assert_eq!(
        shown("{} {}"),
        "f.json:1:4: this is not valid JSON: trailing characters\n"
    );
    let twice = shown("{\"kind\": \"Mesh\",\n \"kind\": \"Mesh\"}");
    assert!(
        twice.contains("f.json:2:7: kind: the field is given twice"),
        "{twice}"
    );
    assert_eq!(
        shown("{\"a\": 1e999}"),
        "f.json:1:11: this is not valid JSON: number out of range\n"
    );
}

#[test]
fn refuses_what_is_too_large() {
    let long = format!("{SERVICE}# {}\n", "x".repeat(super::MAX_DOCUMENT));
    assert_eq!(
        problems(&format!("{SERVICE}---\n{long}")),
        "f.yaml:5:1: document 2: the document has 1048699 bytes; at most 1048576 are allowed\n"
    );
    let deep = format!("a: {}{}", "[".repeat(40), "]".repeat(40));
    assert_eq!(
        problems(&deep),
        "f.yaml:1:35: the document is nested too deeply; at most 32 levels are allowed\n"
    );
    let deep = format!("a: {}", "{a: ".repeat(1000));
    assert!(
        problems(&deep).contains("nested too deeply") || problems(&deep).contains("not valid YAML")
    );
    let many = "---\na: b\n".repeat(super::MAX_DOCUMENTS + 1);
    assert_eq!(
        problems(&many),
        "f.yaml: the file has 10001 documents; at most 10000 are allowed\n"
    );
}

#[test]
fn refuses_alias_bombs() {
    // Ten lines that would unfold into a billion items.
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let below = format!("*a{}", level - 1);
        bomb += &format!(
            "a{level}: &a{level} [{}]\n",
            [below.as_str(); 10].join(", ")
        );
    }
    let started = std::time::Instant::now();
    let shown = problems(&bomb);
    assert!(
        shown.contains("too large once its aliases are unfolded"),
        "{shown}"
    );
    assert!(started.elapsed() < std::time::Duration::from_secs(5));
    let own = problems("a: &a [*a]\n");
    assert!(own.contains("nested too deeply"), "{own}");
    let text = format!(
        "a: &a {}\nb: [{}]\n",
        "x".repeat(100_000),
        ["*a"; 50].join(",")
    );
    assert!(problems(&text).contains("too large"));
}

#[test]
fn refuses_what_is_not_text() {
    let shown = show(&parse("f.yaml", b"a: b\nc: \xff\n"));
    assert_eq!(shown, "f.yaml:2:1: the file is not text in UTF-8\n");
    assert!(problems("a: \u{0}\n").contains("not valid YAML"));
}

#[test]
fn a_key_given_twice_makes_the_document_unclear() {
    let text = SERVICE.replace("port: 80,", "port: 80, port: 81,");
    let parsed = parse("f.yaml", text.as_bytes());
    assert!(parsed.documents.is_empty());
    assert_eq!(
        show(&parsed),
        "f.yaml:4:27: service/default/chat: spec.ports[0].port: the field is given twice; give it once\n"
    );
}

/// Pieces that together look like YAML more often than random bytes do.
fn soup() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "kind: ",
        "Service",
        "Mesh\n",
        "metadata:\n",
        "  name: ",
        "a",
        "spec:\n",
        "  ports: ",
        "- ",
        "[",
        "]",
        "{",
        "}",
        ": ",
        ", ",
        "&a ",
        "*a",
        "!t ",
        "!!str ",
        "\"",
        "'",
        "|\n",
        ">-\n",
        "\n",
        "  ",
        "---\n",
        "...\n",
        "%YAML 1.2\n",
        "#",
        "80",
        ".inf",
        "0x",
        "<<: ",
        "? ",
        "~",
        "\t",
        "\u{feff}",
        "é",
        "1e400",
        "99999999999999999999999999",
        "apiVersion: outrigger.dev/v1alpha1\n",
    ]);
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn never_panics_on_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        parse("f.yaml", &bytes);
        parse("f.json", &bytes);
        parse("-", &bytes);
    }

    #[test]
    fn never_panics_on_soup(text in soup()) {
        let parsed = parse("f.yaml", text.as_bytes());
        for problem in &parsed.problems {
            prop_assert!(!problem.problem.message.is_empty());
            prop_assert!(!problem.to_string().contains('\n'), "{}", problem);
        }
        parse("f.json", text.as_bytes());
    }
}
