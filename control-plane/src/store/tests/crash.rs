//! What was acknowledged survives `kill -9`. The test runs itself as another process, which writes and says so.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use super::{TRUST_DOMAIN, service};
use crate::model::ResourceKey;
use crate::store::{RedbStore, Store};

const DIRECTORY: &str = "OUTRIGGER_TEST_CRASH_DIRECTORY";
const WRITER: &str = "store::tests::crash::writes_until_it_is_killed";

/// The other process. Run as an ordinary test it has nothing to do.
#[test]
fn writes_until_it_is_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        return;
    };
    let store = RedbStore::open(&Path::new(&directory).join("store.redb"), TRUST_DOMAIN).unwrap();
    let first = store
        .get(&ResourceKey::service("default", "counter"))
        .map_or(0, |found| port(&found))
        + 1;
    for number in first.. {
        store
            .apply(
                vec![
                    service("counter", number),
                    service(&format!("s{}", number % 50), number),
                ],
                false,
            )
            .unwrap();
        // Not through the test's captured output.
        let mut out = std::io::stdout().lock();
        writeln!(out, "acknowledged {number}").unwrap();
        out.flush().unwrap();
    }
}

fn port(resource: &crate::model::Resource) -> u16 {
    resource.as_service().unwrap().ports[0].port
}

#[test]
fn acknowledged_writes_survive_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for round in 0..5 {
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args([WRITER, "--exact", "--nocapture", "--test-threads=1"])
            .env(DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(writer.stdout.take().unwrap()).lines();
        let numbers = lines.filter_map(|line| {
            line.ok()?
                .strip_prefix("acknowledged ")?
                .parse::<u16>()
                .ok()
        });
        let mut seen = 0;
        let mut numbers = numbers.inspect(|_| seen += 1);
        // Killed at another place of the loop each time, and in the midst of a write rather than between two.
        for number in numbers.by_ref().take(5 + 7 * round) {
            acknowledged = number;
        }
        writer.kill().unwrap();
        writer.wait().unwrap();
        // What it said before it died counts too.
        acknowledged = numbers.last().unwrap_or(acknowledged);

        let store = RedbStore::open(&directory.path().join("store.redb"), TRUST_DOMAIN).unwrap();
        let counter = port(
            &store
                .get(&ResourceKey::service("default", "counter"))
                .unwrap(),
        );
        assert!(
            counter >= acknowledged,
            "round {round}: {acknowledged} was acknowledged, {counter} is stored"
        );
        assert!(
            counter <= acknowledged + 1,
            "round {round}: one write was under way"
        );
        let other = store
            .get(&ResourceKey::service(
                "default",
                format!("s{}", counter % 50),
            ))
            .unwrap();
        assert_eq!(port(&other), counter, "both or none");
        assert!(seen > 0);
    }
}
