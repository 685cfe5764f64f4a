//! `kill -9` while resources are written: what was acknowledged is there.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use outrigger_tests::ControlPlane;

use crate::mesh::service;

/// In a test whose writer is a thread that waits for processes anyway.
#[allow(clippy::disallowed_methods)]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost() {
    let mut control_plane = ControlPlane::start().await;
    let mut acknowledged = BTreeSet::new();
    let mut number = 0;
    for round in 0..5 {
        let stop = AtomicBool::new(false);
        let pid = control_plane.process().id();
        let first = number;
        let written = std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut written = Vec::new();
                let mut number = first;
                while !stop.load(Ordering::Relaxed) {
                    let name = format!("service-{number}");
                    number += 1;
                    if control_plane
                        .try_apply(&service(&name, ""))
                        .status
                        .success()
                    {
                        written.push(name);
                    }
                }
                (written, number)
            });
            // Another moment of the write in each round.
            pause(Duration::from_millis(900 + 137 * round));
            let killed = std::process::Command::new("sh")
                .arg("-c")
                .arg(format!("kill -9 {pid}"))
                .status();
            assert!(killed.unwrap().success());
            pause(Duration::from_millis(50));
            stop.store(true, Ordering::Relaxed);
            let (written, next) = writer.join().unwrap();
            number = next;
            written
        });
        assert!(!written.is_empty(), "nothing was written in round {round}");
        acknowledged.extend(written);
        control_plane.restart().await;
        let list = control_plane.ctl(&["get", "services", "-o", "name"]);
        let stored: BTreeSet<String> = list
            .lines()
            .filter_map(|line| line.rsplit('/').next())
            .map(|name| name.trim().to_string())
            .collect();
        let lost: Vec<_> = acknowledged.difference(&stored).collect();
        assert!(
            lost.is_empty(),
            "round {round}: lost {lost:?} of {}",
            acknowledged.len()
        );
        // One write more than acknowledged may be stored: the one whose answer was cut off.
        assert!(stored.len() <= acknowledged.len() + round as usize + 1);
    }
}
