//! What stands between a user and the control plane, in words that help.

use std::net::TcpListener;

use crate::testing::{Fake, Runner, State, ctl, fixtures, golden};

#[test]
fn no_context() {
    let home = tempfile::tempdir().unwrap();
    let runner = Runner {
        home: Some(home.path().to_owned()),
        ..Runner::default()
    };
    let mut ran = runner.run(&["status"]);
    ran.err = ran.err.replace(home.path().to_str().unwrap(), "/home/me");
    golden("error-no-context", &ran.transcript());
}

#[test]
fn the_context_of_the_home_directory_is_used() {
    let fake = Fake::start(fixtures::mesh());
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join(".config/outrigger");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::copy(fake.context(), dir.join("context.yaml")).unwrap();
    let runner = Runner {
        home: Some(home.path().to_owned()),
        ..Runner::default()
    };
    assert_eq!(
        runner.run(&["get", "svc", "-o", "name"]).out,
        "service/default/chat\n"
    );
}

#[test]
fn a_context_that_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("admin.yaml");
    std::fs::write(&file, "server: 127.0.0.1:15011\n").unwrap();
    let ran = ctl(&["--context", file.to_str().unwrap(), "status"]);
    assert_eq!(ran.code, 5);
    assert!(
        ran.err
            .contains("is not usable: missing field `caFingerprint`"),
        "{}",
        ran.err
    );
}

#[test]
fn nothing_listens() {
    let fake = Fake::start(fixtures::mesh());
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let mut ran = fake.ctl(&["--server", &free, "status"]);
    ran.err = ran.err.replace(&free, "127.0.0.1:15011");
    golden("error-refused", &ran.transcript());
}

#[test]
fn nobody_answers() {
    let fake = Fake::start(fixtures::mesh());
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let mut ran = fake.ctl(&["--server", &address, "--timeout", "50ms", "status"]);
    ran.err = ran.err.replace(&address, "127.0.0.1:15011");
    golden("error-silent", &ran.transcript());
}

#[test]
fn another_ca() {
    let (ours, other) = (Fake::start(State::default()), Fake::start(State::default()));
    let mut ran = ours.ctl(&["--server", &other.address, "status"]);
    for (fake, digit) in [(&ours, "a"), (&other, "b")] {
        let context = std::fs::read_to_string(fake.context()).unwrap();
        let fingerprint = context
            .lines()
            .find_map(|line| line.strip_prefix("caFingerprint: "))
            .unwrap();
        assert!(ran.err.contains(fingerprint), "{}", ran.err);
        ran.err = ran.err.replace(fingerprint, &digit.repeat(64));
    }
    ran.err = ran.err.replace(&other.address, "127.0.0.1:15011");
    golden("error-other-ca", &ran.transcript());
}

#[test]
fn another_token() {
    let fake = Fake::start(fixtures::mesh());
    let context = std::fs::read_to_string(fake.context()).unwrap();
    std::fs::write(
        fake.context(),
        context.replace("admin-secret", "stale-secret"),
    )
    .unwrap();
    golden("error-token", &fake.ctl(&["status"]).transcript());
}

#[test]
fn an_address_that_is_none() {
    let fake = Fake::start(fixtures::mesh());
    golden(
        "error-address",
        &fake
            .ctl(&["--server", "control-plane", "status"])
            .transcript(),
    );
}
