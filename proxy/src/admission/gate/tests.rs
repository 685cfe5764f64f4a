#![allow(clippy::unwrap_used)]

use std::pin::pin;

use proptest::prelude::*;

use super::*;

fn limits(limit: u32, queue: Option<usize>) -> ServerLimits {
    ServerLimits {
        concurrency: Concurrency::Fixed(limit),
        queue: queue.map(|max_length| QueueSettings {
            max_length,
            max_wait: Duration::from_secs(1),
            target: Duration::from_millis(5),
            interval: Duration::from_millis(100),
        }),
        priorities: None,
    }
}

fn gate(limits: ServerLimits) -> Arc<Gate> {
    Gate::new(limits, Arc::default(), Arc::default())
}

/// Polls once.
async fn is_pending<F: Future>(future: &mut std::pin::Pin<&mut F>) -> bool {
    std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx).is_pending())).await
}

fn ask(priority: Priority, deadline: Option<Instant>) -> Ask {
    Ask {
        priority,
        deadline,
        ..Ask::default()
    }
}

const DEFAULT: Priority = Priority::Default;

#[tokio::test(start_paused = true)]
async fn without_a_queue_what_is_above_is_refused() {
    let gate = gate(limits(2, None));
    let first = gate.enter(ask(DEFAULT, None)).await.unwrap();
    let _second = gate.enter(ask(DEFAULT, None)).await.unwrap();
    let refused = gate.enter(ask(DEFAULT, None)).await.unwrap_err().limit;
    assert_eq!(refused, Limit::Concurrency);
    assert_eq!(gate.refusals.get(Limit::Concurrency), 1);
    drop(first);
    assert!(gate.enter(ask(DEFAULT, None)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_place_that_gets_free_goes_to_who_waits() {
    let gate = gate(limits(1, Some(10)));
    let first = gate.enter(ask(DEFAULT, None)).await.unwrap();
    let mut waiting = pin!(gate.enter(ask(DEFAULT, None)));
    assert!(is_pending(&mut waiting).await);
    assert_eq!((gate.in_use(), gate.waiting()), (1, 1));
    // Who comes later does not overtake.
    drop(first);
    let mut later = pin!(gate.enter(ask(DEFAULT, None)));
    assert!(is_pending(&mut later).await);
    let second = waiting.await.unwrap();
    assert_eq!(gate.in_use(), 1);
    drop(second);
    drop(later.await.unwrap());
    assert_eq!((gate.in_use(), gate.waiting()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_ever() {
    let gate = gate(limits(1, Some(10)));
    let _first = gate.enter(ask(DEFAULT, None)).await.unwrap();
    let begun = Instant::now();
    let refused = gate.enter(ask(DEFAULT, None)).await.unwrap_err().limit;
    assert_eq!(refused, Limit::QueueWait);
    assert_eq!(begun.elapsed(), Duration::from_secs(1));
    let deadline = Some(Instant::now() + Duration::from_millis(300));
    let refused = gate.enter(ask(DEFAULT, deadline)).await.unwrap_err().limit;
    assert_eq!(refused, Limit::QueueDeadline);
    assert_eq!(begun.elapsed(), Duration::from_millis(1300));
    assert_eq!(gate.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn part_of_it_is_for_critical_requests() {
    let mut limits = limits(10, None);
    limits.priorities = Some(Priorities {
        header: http::HeaderName::from_static("x"),
        reserved: 25,
        callers: Vec::new(),
    });
    let gate = gate(limits);
    let mut held = Vec::new();
    while let Ok(served) = gate.enter(ask(DEFAULT, None)).await {
        held.push(served);
    }
    // A quarter, rounded up.
    assert_eq!(held.len(), 7);
    while let Ok(served) = gate.enter(ask(Priority::Critical, None)).await {
        held.push(served);
    }
    assert_eq!(held.len(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_is_raised_lets_who_waits_in() {
    let gate = gate(limits(1, Some(10)));
    let _first = gate.enter(ask(DEFAULT, None)).await.unwrap();
    let mut waiting = pin!(gate.enter(ask(DEFAULT, None)));
    assert!(is_pending(&mut waiting).await);
    gate.set(limits(2, Some(10)));
    let _second = waiting.await.unwrap();
    let mut waiting = pin!(gate.enter(ask(DEFAULT, None)));
    assert!(is_pending(&mut waiting).await);
    // The queue is taken away.
    gate.set(limits(2, None));
    assert_eq!(waiting.await.unwrap_err().limit, Limit::Concurrency);
    assert_eq!(gate.waiting(), 0);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Come(u8),
    /// The request at this place of those under way or waiting is given up or ends.
    Leave(usize),
    Pass(u64),
    Limit(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u8..3).prop_map(Step::Come),
        3 => any::<usize>().prop_map(Step::Leave),
        1 => (1_u64..400).prop_map(Step::Pass),
        1 => (1_u32..6).prop_map(Step::Limit),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever comes, goes and is given up in whatever order: never above the limit, and all places come back.
    #[test]
    fn places_never_leak(steps in prop::collection::vec(step(), 1..200)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let gate = gate(limits(3, Some(4)));
            let mut requests: Vec<tokio::task::JoinHandle<()>> = Vec::new();
            let mut highest = 3;
            for step in steps {
                match step {
                    Step::Come(priority) => {
                        let gate = Arc::clone(&gate);
                        requests.push(tokio::spawn(async move {
                            let priority = Priority::ALL[usize::from(priority)];
                            if let Ok(mut served) = gate.enter(ask(priority, None)).await {
                                served.first_byte();
                                std::future::pending::<()>().await;
                            }
                        }));
                    }
                    Step::Leave(index) if !requests.is_empty() => {
                        let index = index % requests.len();
                        requests.swap_remove(index).abort();
                    }
                    Step::Leave(_) => {}
                    Step::Pass(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
                    Step::Limit(limit) => {
                        gate.set(limits(limit, Some(4)));
                        highest = highest.max(limit);
                    }
                }
                for _ in 0..4 {
                    tokio::task::yield_now().await;
                }
                prop_assert!(gate.in_use() <= highest);
                prop_assert!(gate.waiting() <= 4);
                prop_assert_eq!(gate.waiting() as usize, gate.queue().len());
            }
            for request in requests {
                request.abort();
                let _ = request.await;
            }
            prop_assert_eq!((gate.in_use(), gate.waiting()), (0, 0));
            Ok(())
        })?;
    }
}
