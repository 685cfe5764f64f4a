//! `token`.

use outrigger_proto::api::v1::TokenInfo;
use serde_json::Value;

use crate::testing::{Fake, fixtures, golden};

#[test]
fn a_new_token_stands_alone_on_stdout() {
    let fake = Fake::start(fixtures::mesh());
    let ran = fake.ctl(&[
        "token",
        "create",
        "--namespace",
        "models",
        "--service-account",
        "chat",
        "--max-uses",
        "3",
    ]);
    assert_eq!(ran.out, "outrigger-join-v1.e30\n");
    golden("token-create", &ran.transcript());
}

#[test]
fn a_new_token_as_json() {
    let fake = Fake::start(fixtures::mesh());
    let ran = fake.ctl(&[
        "token",
        "create",
        "--service-account",
        "chat",
        "--ttl",
        "10m",
        "-o",
        "json",
    ]);
    let token: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(token["token"], "outrigger-join-v1.e30");
    assert_eq!(
        token["spiffeId"],
        "spiffe://outrigger.local/ns/default/sa/chat"
    );
    assert_eq!(token["expiresAt"], "2026-11-20T12:10:00Z");
}

#[test]
fn tokens_are_listed_and_revoked() {
    let fake = Fake::start(fixtures::mesh());
    assert_eq!(fake.ctl(&["token", "list"]).err, "There are no tokens.\n");
    fake.ctl(&["token", "create", "--service-account", "chat"]);
    let used = TokenInfo {
        id: "fedcba9876543210".to_owned(),
        spiffe_id: "spiffe://outrigger.local/ns/default/sa/web".to_owned(),
        created_at: fixtures::ago(7200),
        expires_at: fixtures::ago(3600),
        max_uses: 1,
        uses: 0,
    };
    fake.state().tokens.push(used);
    golden("token-list", &fake.ctl(&["token", "list"]).transcript());
    assert_eq!(
        fake.ctl(&["token", "delete", "fedcba9876543210"]).out,
        "token fedcba9876543210 deleted\n"
    );
    let again = fake.ctl(&["token", "delete", "fedcba9876543210"]);
    assert_eq!((again.code, again.out.as_str()), (3, ""));
}
