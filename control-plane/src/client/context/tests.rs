#![allow(clippy::unwrap_used)]

use super::*;
use crate::client::testing::Authority;

fn valid() -> Context {
    Authority::new("root").context("127.0.0.1:15011".to_owned())
}

fn refusal(context: &Context) -> String {
    Context::parse(&serde_yaml::to_string(context).unwrap()).unwrap_err()
}

#[test]
fn what_is_written_can_be_read() {
    let context = valid();
    let text = serde_yaml::to_string(&context).unwrap();
    assert!(text.contains("caFingerprint: "), "{text}");
    assert_eq!(Context::parse(&text).unwrap(), context);
}

#[test]
fn a_fingerprint_of_another_certificate_is_refused() {
    let mut context = valid();
    let real = std::mem::replace(&mut context.ca_fingerprint, "ab".repeat(32));
    let reason = refusal(&context);
    assert!(
        reason.contains(&"ab".repeat(32)) && reason.contains(&real),
        "{reason}"
    );
}

#[test]
fn parts_that_cannot_work_are_refused() {
    let no_token = Context {
        token: " ".to_owned(),
        ..valid()
    };
    assert_eq!(refusal(&no_token), "token is empty");
    let no_pem = Context {
        ca_certificate: "MIIB".to_owned(),
        ..valid()
    };
    assert!(
        refusal(&no_pem).contains("holds no certificate"),
        "{}",
        refusal(&no_pem)
    );
    let unknown = "server: a:1\ntokn: x\n";
    assert!(Context::parse(unknown).unwrap_err().contains("tokn"));
}

#[test]
fn a_missing_file_is_told_from_an_unreadable_one() {
    let dir = tempfile::tempdir().unwrap();
    let missing = Context::load(&dir.path().join("none.yaml")).unwrap_err();
    assert!(matches!(missing, ContextError::Missing { .. }), "{missing}");
    let unreadable = Context::load(dir.path()).unwrap_err();
    assert!(
        matches!(unreadable, ContextError::Unreadable { .. }),
        "{unreadable}"
    );
}

#[test]
fn the_token_is_not_in_the_debug_output() {
    assert!(!format!("{:?}", valid()).contains("secret"));
}
