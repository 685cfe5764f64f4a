#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Barrier, Mutex};

use proptest::prelude::*;

use super::*;

fn withdrawals(budget: &RetryBudget, second: u32) -> usize {
    std::iter::repeat_with(|| budget.try_withdraw_at(second))
        .take_while(|allowed| *allowed)
        .count()
}

#[test]
fn a_fifth_of_the_requests() {
    let budget = RetryBudget::new(20, 0);
    assert!(!budget.try_withdraw_at(1), "nothing was paid in");
    (0..100).for_each(|_| budget.deposit_at(1));
    assert_eq!(withdrawals(&budget, 1), 20);
    (0..4).for_each(|_| budget.deposit_at(2));
    assert_eq!(
        withdrawals(&budget, 2),
        0,
        "four requests do not pay for a retry"
    );
    budget.deposit_at(2);
    assert_eq!(withdrawals(&budget, 2), 1, "five do");
}

#[test]
fn every_percentage_is_exact() {
    for percent in [1, 3, 30, 33, 70, 100, 150, 1000] {
        let budget = RetryBudget::new(percent, 0);
        (0..1000).for_each(|_| budget.deposit_at(1));
        assert_eq!(
            withdrawals(&budget, 1),
            10 * percent as usize,
            "{percent} %"
        );
    }
}

#[test]
fn the_reserve_is_there_without_requests() {
    let budget = RetryBudget::new(20, 10);
    assert_eq!(withdrawals(&budget, 50), 100, "ten seconds' worth");
    assert_eq!(withdrawals(&budget, 59), 0);
    assert_eq!(
        withdrawals(&budget, 60),
        100,
        "back when what was taken is ten seconds old"
    );
    assert_eq!(withdrawals(&RetryBudget::new(0, 1), 5), 10);
}

#[test]
fn deposits_last_for_ten_seconds() {
    let budget = RetryBudget::new(20, 0);
    (0..50).for_each(|_| budget.deposit_at(100));
    (0..50).for_each(|_| budget.deposit_at(105));
    assert_eq!(budget.balance(109), 2000);
    assert_eq!(budget.balance(110), 1000);
    assert_eq!(budget.balance(115), 0);
    // The slot of second 100 is used again, and its old balance is gone.
    budget.deposit_at(110);
    assert_eq!(budget.balance(110), 1020);
}

#[test]
fn a_thread_that_is_behind_disturbs_nobody() {
    let budget = RetryBudget::new(100, 0);
    budget.deposit_at(21);
    budget.deposit_at(11);
    assert_eq!(budget.balance(21), 200, "counted where the slot is now");
}

#[test]
fn threads_together_never_get_more_than_there_is() {
    let budget = Arc::new(RetryBudget::new(10, 0));
    (0..5000).for_each(|_| budget.deposit_at(3));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let budget = budget.clone();
            std::thread::spawn(move || (0..1000).filter(|_| budget.try_withdraw_at(3)).count())
        })
        .collect();
    let allowed: usize = threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .sum();
    assert!(allowed <= 500, "{allowed}");
    assert!(allowed >= 490, "{allowed}: a refusal too many is rare");
}

#[tokio::test(start_paused = true)]
async fn by_the_clock() {
    let budget = RetryBudget::new(100, 0);
    budget.deposit();
    assert!(budget.try_withdraw());
    assert!(!budget.try_withdraw());
    budget.deposit();
    tokio::time::advance(std::time::Duration::from_secs(11)).await;
    assert!(!budget.try_withdraw(), "too old");
}

#[test]
fn a_slot_never_wraps() {
    let budget = RetryBudget::new(u32::MAX, 0);
    (0..10).for_each(|_| budget.deposit_at(1));
    assert_eq!(budget.balance(1), i64::from(i32::MAX));
    assert_eq!(unpack(pack(7, -3)), (7, -3));
}

/// What a worker does: requests that come, retries that are wanted, and seconds that pass.
#[derive(Clone, Copy, Debug)]
enum Act {
    Request,
    Retry,
    Wait(u32),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => Just(Act::Request),
        4 => Just(Act::Retry),
        1 => (0_u32..4).prop_map(Act::Wait),
    ];
    proptest::collection::vec(act, 0..200)
}

/// No more retries in any ten seconds than the requests of these seconds, and the reserve, pay for. `log`: second, and whether
/// it was a retry.
fn never_exceeded(percent: u32, minimum: u32, log: &[(u32, bool)]) {
    let ends = log.iter().filter(|(_, retry)| *retry).map(|(at, _)| *at);
    for end in ends {
        let within = |at: u32| at <= end && end - at < LIFETIME_SECONDS as u32;
        let count = |wanted| {
            let all = log
                .iter()
                .filter(|(at, retry)| within(*at) && *retry == wanted);
            all.count() as u64
        };
        let paid = count(false) * u64::from(percent) / 100;
        let reserve = u64::from(minimum) * LIFETIME_SECONDS;
        let retries = count(true);
        assert!(
            retries <= paid + reserve,
            "{retries} > {paid} + {reserve} up to second {end}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_budget_is_never_exceeded_over_time(
        percent in 1_u32..300, minimum in 0_u32..3, acts in acts(),
    ) {
        let budget = RetryBudget::new(percent, minimum);
        let (mut second, mut log) = (100, Vec::new());
        for act in acts {
            match act {
                Act::Wait(seconds) => second += seconds,
                Act::Request => {
                    budget.deposit_at(second);
                    log.push((second, false));
                }
                Act::Retry if budget.try_withdraw_at(second) => log.push((second, true)),
                Act::Retry => {}
            }
        }
        never_exceeded(percent, minimum, &log);
    }

    /// Workers that run at the same time, with the same clock: what they get together is what one would get at most.
    #[test]
    fn a_budget_is_never_exceeded_by_several_workers(
        percent in 1_u32..300, minimum in 0_u32..3,
        workers in proptest::collection::vec(acts(), 2..5),
    ) {
        let budget = RetryBudget::new(percent, minimum);
        let log = Mutex::new(Vec::new());
        let start = Barrier::new(workers.len());
        std::thread::scope(|scope| {
            let (budget, log, start) = (&budget, &log, &start);
            for acts in &workers {
                scope.spawn(move || {
                    let mut own = Vec::new();
                    start.wait();
                    for act in acts {
                        match act {
                            // Within one second: which slot is written does not depend on who is late.
                            Act::Wait(_) => std::thread::yield_now(),
                            Act::Request => {
                                budget.deposit_at(7);
                                own.push((7, false));
                            }
                            Act::Retry if budget.try_withdraw_at(7) => own.push((7, true)),
                            Act::Retry => {}
                        }
                    }
                    log.lock().unwrap().extend(own);
                });
            }
        });
        never_exceeded(percent, minimum, &log.into_inner().unwrap());
    }
}
