#![allow(clippy::unwrap_used)]

use super::*;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;

fn close(found: f64, expected: f64) {
    assert!(
        (found - expected).abs() <= expected.abs() * 1e-9,
        "{found} is not {expected}"
    );
}

/// Of an endpoint that has answered.
fn latency(load: &Load, now: u64) -> f64 {
    load.latency_ns(now).unwrap()
}

#[test]
fn an_endpoint_that_has_not_answered_costs_nothing_idle_and_much_with_requests() {
    let load = Load::new(0);
    assert_eq!(load.latency_ns(0), None);
    close(load.latency_cost(0), 0.0);
    close(load.request_cost(0), 1.0);
    load.begin(20 * SECOND);
    close(load.latency_cost(20 * SECOND), 10e9);
    // It fades as every estimate does, until the next one.
    close(load.latency_cost(30 * SECOND), 10e9 / std::f64::consts::E);
    load.begin(30 * SECOND);
    close(load.latency_cost(30 * SECOND), 15e9);
    load.end();
    load.end();
    assert!(load.try_begin(40 * SECOND));
    close(load.latency_cost(40 * SECOND), 10e9);
    // The first answer is the estimate, however short it is.
    load.sample(40 * SECOND, MS);
    close(latency(&load, 40 * SECOND), 1e6);
    close(load.latency_cost(40 * SECOND), 2e6);
    // An estimate of nothing is still one.
    load.sample(40 * SECOND, 0);
    load.sample(4000 * SECOND, 0);
    assert!(load.latency_ns(4000 * SECOND).is_some());
}

#[test]
fn an_endpoint_that_was_given_up_is_not_new_any_more() {
    let load = Load::new(0);
    load.begin(0);
    // Not even sent.
    load.sample_at_least(MS / 2, MS / 2);
    assert_eq!(load.latency_ns(MS), None);
    load.sample_at_least(5 * MS, 5 * MS);
    load.end();
    close(latency(&load, 5 * MS), 30e6);
    let load = Load::new(0);
    load.sample_at_least(0, 200 * MS);
    close(latency(&load, 0), 200e6);
    // Shorter than what is known already.
    load.sample_at_least(0, 100 * MS);
    close(latency(&load, 0), 200e6);
}

#[test]
fn a_higher_latency_counts_at_once_and_a_lower_one_by_and_by() {
    let load = Load::new(0);
    load.sample(SECOND, 200 * MS);
    close(latency(&load, SECOND), 200e6);

    // Five seconds later a sample of 100 ms: 200 × e^-0.5 + 100 × (1 - e^-0.5).
    let kept = (-0.5_f64).exp();
    load.sample(6 * SECOND, 100 * MS);
    close(
        latency(&load, 6 * SECOND),
        200e6 * kept + 100e6 * (1.0 - kept),
    );
}

#[test]
fn without_news_the_estimate_fades_and_reading_changes_nothing() {
    let load = Load::new(0);
    load.sample(0, 500 * MS);
    for _ in 0..3 {
        close(latency(&load, 10 * SECOND), 500e6 / std::f64::consts::E);
    }
    load.set_decay(Duration::from_secs(1));
    close(latency(&load, SECOND), 500e6 / std::f64::consts::E);
    // Long after, the load still decides.
    load.begin(9_999 * SECOND);
    close(load.latency_cost(10_000 * SECOND), 2.0 * LEAST_LATENCY_NS);
}

#[test]
fn the_cost_grows_with_what_is_in_flight() {
    let load = Load::new(0);
    load.sample(0, 30 * MS);
    load.begin(0);
    load.begin(0);
    close(load.latency_cost(0), 90e6);
    close(load.request_cost(0), 3.0);
    load.end();
    close(load.request_cost(0), 2.0);
    assert_eq!((load.begun(), load.in_flight()), (2, 1));
}

#[test]
fn a_failure_counts_as_a_long_latency_and_as_many_requests() {
    let load = Load::new(0);
    load.penalise(0, FAILURE_PENALTY);
    // Nothing is known but that.
    close(load.latency_cost(0), 5e9);
    load.sample(0, 30 * MS);
    close(load.latency_cost(0), 5.03e9);
    close(load.request_cost(0), 101.0);
    close(load.request_cost(5 * SECOND / 2), 51.0);
    close(load.request_cost(5 * SECOND), 1.0);
    // A pause of 20 s outlasts a penalty of 5 s that comes after it.
    load.penalise(10 * SECOND, Duration::from_secs(20));
    load.penalise(11 * SECOND, FAILURE_PENALTY);
    assert!(load.request_cost(29 * SECOND) > 1.0);
    close(load.request_cost(30 * SECOND), 1.0);
}

#[test]
fn a_clock_read_late_does_no_harm() {
    let load = Load::new(10 * SECOND);
    load.sample(20 * SECOND, 100 * MS);
    // Another thread read its clock before that and comes after it.
    load.sample(19 * SECOND, 50 * MS);
    close(latency(&load, 20 * SECOND), 100e6);
}

#[test]
fn samples_of_many_threads_stay_between_the_least_and_the_highest() {
    let load = Arc::new(Load::new(0));
    let threads: Vec<_> = (0..4_u64)
        .map(|thread| {
            let load = load.clone();
            std::thread::spawn(move || {
                for step in 0..10_000 {
                    load.sample(step * MS, (40 + thread * 10) * MS);
                }
            })
        })
        .collect();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    let found = latency(&load, 9_999 * MS);
    assert!((40e6..=70e6).contains(&found), "{found}");
}

#[test]
fn a_penalty_is_over_when_it_is_over() {
    let load = Load::new(0);
    load.sample(0, 20 * MS);
    load.penalise(0, FAILURE_PENALTY);
    // Halfway there, and gone after its time: the estimate never took it in.
    assert!((2.5e9..2.55e9).contains(&load.latency_cost(5 * SECOND / 2)));
    assert!(load.latency_cost(5 * SECOND) <= 20e6);
    assert!(latency(&load, 0) <= 30e6);
}
