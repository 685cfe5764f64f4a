#![allow(clippy::unwrap_used)]

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn spawn_run(drain: &Drain, timeout: Duration) -> tokio::task::JoinHandle<Drained> {
    let drain = drain.clone();
    tokio::spawn(async move { drain.run(timeout).await })
}

#[tokio::test(start_paused = true)]
async fn nothing_under_way() {
    let drain = Drain::new();
    assert!(!drain.is_draining());
    drain.announced();
    assert_eq!(
        drain.phase(),
        Phase::Running,
        "there is nothing to announce before the start"
    );
    let begun = Instant::now();
    assert_eq!(drain.run(30 * SECOND).await, Drained::Idle);
    assert_eq!(begun.elapsed(), ANNOUNCEMENT);
    assert_eq!(drain.phase(), Phase::Closing);
}

#[tokio::test(start_paused = true)]
async fn listeners_stay_open_until_the_announcement_was_heard() {
    let drain = Drain::new();
    let run = spawn_run(&drain, 30 * SECOND);
    let begun = Instant::now();
    drain.started().await;
    assert!(drain.is_draining());
    assert_eq!(drain.phase(), Phase::Announcing);
    let guard = drain.guard();
    tokio::time::sleep(SECOND / 10).await;
    drain.announced();
    drain.signaled().await;
    assert_eq!(begun.elapsed(), SECOND / 10);
    drop(guard);
    assert_eq!(run.await.unwrap(), Drained::Idle);
}

#[tokio::test(start_paused = true)]
async fn a_stream_under_way_is_waited_for() {
    let drain = Drain::new();
    let (first, second) = (drain.guard(), drain.guard());
    let run = spawn_run(&drain, 30 * SECOND);
    drain.signaled().await;
    drop(first);
    tokio::time::sleep(10 * SECOND).await;
    assert!(!run.is_finished());
    assert_eq!(drain.under_way(), 1);
    // What began after the start counts too.
    let late = drain.guard();
    drop(second);
    tokio::time::sleep(SECOND).await;
    assert!(!run.is_finished());
    drop(late);
    assert_eq!(run.await.unwrap(), Drained::Idle);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_is_one_and_counts_from_the_start() {
    let drain = Drain::new();
    let _stuck = drain.guard();
    let begun = Instant::now();
    let run = spawn_run(&drain, 5 * SECOND);
    drain.expired().await;
    assert_eq!(
        begun.elapsed(),
        5 * SECOND,
        "the announcement's second is part of it"
    );
    assert_eq!(run.await.unwrap(), Drained::Expired(1));
    assert!(drain.is_draining());
    drain.signaled().await;
}

#[tokio::test(start_paused = true)]
async fn no_time_at_all() {
    let drain = Drain::new();
    let _stuck = drain.guard();
    assert_eq!(drain.run(Duration::ZERO).await, Drained::Expired(1));
}

#[tokio::test(start_paused = true)]
async fn begun_by_hand_and_finished_by_the_program() {
    let drain = Drain::new();
    drain.start();
    drain.start();
    tokio::time::sleep(SECOND).await;
    assert_eq!(
        drain.phase(),
        Phase::Announcing,
        "the program has to drive it on"
    );
    assert_eq!(drain.run(SECOND).await, Drained::Idle);
    drain.start();
    assert_eq!(drain.phase(), Phase::Closing, "never back");
}

#[test]
fn guards_of_many_threads_wake_the_one_that_waits() {
    let drain = Drain::new();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let drain = drain.clone();
            std::thread::spawn(move || (0..10_000).for_each(|_| drop(drain.guard())))
        })
        .collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        for _ in 0..100 {
            tokio::time::timeout(10 * SECOND, drain.idle())
                .await
                .unwrap();
            tokio::task::yield_now().await;
        }
    });
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    assert_eq!(drain.under_way(), 0);
}
