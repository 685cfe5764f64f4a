#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::resilience::health::{CheckFailure, HealthState, Watch};

/// A service with outlier detection, and its endpoints.
struct Service {
    outliers: Arc<Outliers>,
    members: Vec<Arc<Health>>,
}

fn service(policy: Policy, endpoints: usize) -> Service {
    let outliers = Arc::new(Outliers::default());
    let members: Vec<_> = (0..endpoints)
        .map(|_| Arc::new(Health::of(&outliers)))
        .collect();
    outliers.update(Some(&Arc::new(policy)), &[], &members);
    Service { outliers, members }
}

fn any_may_be_out() -> Policy {
    Policy {
        max_ejection_percent: 100,
        ..Policy::default()
    }
}

impl Service {
    fn watch(&self, index: usize) -> Watch {
        self.members[index].watch().unwrap()
    }

    fn fail(&self, index: usize, fault: Fault) {
        self.watch(index).failed(fault);
    }

    fn eject(&self, index: usize) {
        for _ in 0..5 {
            self.fail(index, Fault::Server);
        }
        assert_eq!(self.state(index), HealthState::Ejected);
    }

    fn succeed(&self, index: usize) {
        self.watch(index).succeeded();
    }

    fn state(&self, index: usize) -> HealthState {
        self.members[index].state()
    }

    fn available(&self) -> usize {
        self.members.iter().filter(|it| it.is_available()).count()
    }

    async fn pass(&self, seconds: u64) {
        for _ in 0..seconds {
            tokio::time::advance(Duration::from_secs(1)).await;
            self.outliers.sweep(&self.members);
        }
    }
}

#[test]
fn what_is_off_is_not_watched() {
    let outliers = Arc::new(Outliers::default());
    let health = Arc::new(Health::of(&outliers));
    outliers.update(None, &[], std::slice::from_ref(&health));
    assert!(health.watch().is_none());
}

#[tokio::test(start_paused = true)]
async fn five_failures_in_a_row_and_not_four() {
    let service = service(Policy::default(), 3);
    for _ in 0..4 {
        service.fail(0, Fault::Server);
    }
    service.succeed(0);
    for _ in 0..4 {
        service.fail(0, Fault::Server);
    }
    // No verdict counts for nothing, either way.
    drop(service.watch(0));
    assert_eq!(service.state(0), HealthState::Available);
    service.fail(0, Fault::Server);
    assert_eq!(service.state(0), HealthState::Ejected);
    let view = service.members[0].view();
    assert_eq!(view.reason(), Some("consecutive-5xx"));
    assert_eq!(view.times, 1);
    let left = view.left.unwrap().as_secs_f64();
    assert!((30.0..=33.0).contains(&left), "{left}");
    assert_eq!(service.available(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_reason_is_the_most_specific() {
    for (fault, reason) in [
        (Fault::Server, "consecutive-5xx"),
        (Fault::Gateway, "consecutive-gateway-failures"),
        (Fault::Connect, "consecutive-connect-failures"),
    ] {
        let service = service(Policy::default(), 2);
        for _ in 0..5 {
            service.fail(0, fault);
        }
        assert_eq!(service.members[0].view().reason(), Some(reason));
    }
    // A 500 ends a row of failed connects, and not that of failures.
    let service = service(Policy::default(), 2);
    for _ in 0..2 {
        service.fail(0, Fault::Connect);
    }
    for _ in 0..3 {
        service.fail(0, Fault::Server);
    }
    assert_eq!(service.members[0].view().reason(), Some("consecutive-5xx"));
}

#[tokio::test(start_paused = true)]
async fn a_threshold_of_zero_is_none() {
    let policy = Policy {
        consecutive: [0, 0, 2],
        ..Policy::default()
    };
    let service = service(policy, 2);
    for _ in 0..50 {
        service.fail(0, Fault::Gateway);
    }
    assert_eq!(service.state(0), HealthState::Available);
    service.fail(0, Fault::Connect);
    service.fail(0, Fault::Connect);
    assert_eq!(service.state(0), HealthState::Ejected);
}

#[tokio::test(start_paused = true)]
async fn one_request_decides_after_the_time() {
    let service = service(Policy::default(), 2);
    service.eject(0);
    service.pass(29).await;
    assert_eq!(service.state(0), HealthState::Ejected);
    // At most a tenth later.
    service.pass(5).await;
    assert_eq!(service.state(0), HealthState::Probing);
    assert!(service.members[0].is_available(), "for one");
    let mut probe = service.watch(0);
    assert!(!service.members[0].is_available());
    let late = service.watch(0);
    assert!(late.is_late(), "chosen in the same moment");
    drop(late);
    probe.answered();
    assert_eq!(service.state(0), HealthState::Available);
    assert_eq!(service.outliers.census().ejected, 0);
    // A stream that breaks after its head is an ordinary failure.
    probe.failed(Fault::Gateway);
    drop(probe);
    assert_eq!(service.state(0), HealthState::Available);
    for _ in 0..4 {
        service.fail(0, Fault::Gateway);
    }
    assert_eq!(service.state(0), HealthState::Ejected);
}

#[tokio::test(start_paused = true)]
async fn a_failed_probation_is_out_for_longer() {
    let service = service(Policy::default(), 2);
    service.eject(0);
    let mut lengths = Vec::new();
    for _ in 0..12 {
        let left = service.members[0].view().left.unwrap();
        lengths.push(left.as_secs_f64());
        service.pass(left.as_secs() + 2).await;
        let mut probe = service.watch(0);
        probe.failed(Fault::Server);
        assert_eq!(service.state(0), HealthState::Ejected);
        assert_eq!(service.members[0].view().reason(), Some("failed-probation"));
    }
    for (index, length) in lengths.iter().enumerate() {
        let expected = (30.0 * (index + 1) as f64).min(300.0);
        assert!(
            (expected..=expected * 1.1).contains(length),
            "{index}: {length} for {expected}"
        );
    }
    assert_eq!(service.outliers.census().ejected, 1);
    let counts: Vec<_> = service.outliers.ejections().map(|(_, n)| n).collect();
    assert_eq!(counts, [1, 0, 0, 0, 12]);
}

#[tokio::test(start_paused = true)]
async fn a_probe_without_a_verdict_leaves_it_to_the_next() {
    let service = service(Policy::default(), 2);
    service.eject(0);
    service.pass(34).await;
    drop(service.watch(0));
    assert_eq!(service.state(0), HealthState::Probing);
    assert!(service.members[0].is_available());
    // One that was not answered in time has one.
    let mut probe = service.watch(0);
    probe.answer_by(Some(tokio::time::Instant::now() + Duration::from_secs(1)));
    tokio::time::advance(Duration::from_secs(1)).await;
    drop(probe);
    assert_eq!(service.state(0), HealthState::Ejected);
    assert_eq!(service.members[0].view().times, 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_given_up_in_time_is_no_failure() {
    let service = service(Policy::default(), 2);
    for _ in 0..10 {
        let mut watch = service.watch(0);
        watch.answer_by(Some(tokio::time::Instant::now() + Duration::from_secs(1)));
        tokio::time::advance(Duration::from_millis(999)).await;
        drop(watch);
        // Its head came in time; what follows may take as long as it likes.
        let mut watch = service.watch(0);
        watch.answer_by(Some(tokio::time::Instant::now() + Duration::from_secs(1)));
        watch.answered();
        tokio::time::advance(Duration::from_secs(60)).await;
        drop(watch);
    }
    assert_eq!(service.state(0), HealthState::Available);
}

#[tokio::test(start_paused = true)]
async fn ejections_are_forgiven_one_by_one() {
    let service = service(Policy::default(), 2);
    for _ in 0..3 {
        service.eject(0);
        let left = service.members[0].view().left.unwrap();
        service.pass(left.as_secs() + 2).await;
        service.watch(0).answered();
    }
    assert_eq!(service.members[0].view().times, 3);
    service.pass(20).await;
    assert_eq!(service.members[0].view().times, 1);
    service.pass(20).await;
    assert_eq!(service.members[0].view().times, 0);
}

#[tokio::test(start_paused = true)]
async fn the_floor_is_kept() {
    // 10 % of 3 are none, and one may always be out.
    let service = service(Policy::default(), 3);
    service.eject(0);
    for _ in 0..20 {
        service.fail(1, Fault::Connect);
    }
    assert_eq!(service.state(1), HealthState::Available);
    // Never the last one.
    let pair = self::service(any_may_be_out(), 2);
    pair.eject(1);
    for _ in 0..20 {
        pair.fail(0, Fault::Connect);
    }
    assert_eq!(pair.available(), 1);
    let single = self::service(any_may_be_out(), 1);
    for _ in 0..20 {
        single.fail(0, Fault::Connect);
    }
    assert_eq!(single.available(), 1);
}

#[tokio::test(start_paused = true)]
async fn those_that_go_take_nothing_of_the_floor_with_them() {
    let mut service = service(any_may_be_out(), 3);
    service.eject(0);
    service.eject(1);
    let before = std::mem::take(&mut service.members);
    service.members = before[..2].to_vec();
    let policy = service.outliers.policy();
    service
        .outliers
        .update(policy.as_ref(), &before, &service.members);
    assert_eq!(
        service.available(),
        1,
        "the one whose time ends first is back"
    );
    let census = service.outliers.census();
    assert_eq!((census.total, census.ejected), (2, 1));
    // Switched off, nothing is out and nothing is watched.
    service
        .outliers
        .update(None, &service.members, &service.members);
    assert_eq!(service.available(), 2);
    assert_eq!(service.outliers.census().ejected, 0);
    assert!(service.members[0].watch().is_none());
}

#[tokio::test(start_paused = true)]
async fn success_rates_are_compared_each_interval() {
    let service = service(Policy::default(), 6);
    service.outliers.sweep(&service.members);
    for index in 0..6 {
        for n in 0..100 {
            // Never five in a row.
            if index == 2 && n % 3 != 0 {
                service.fail(2, Fault::Server);
            } else {
                service.succeed(index);
            }
        }
    }
    assert_eq!(service.available(), 6);
    service.pass(10).await;
    assert_eq!(service.available(), 5);
    assert_eq!(service.members[2].view().reason(), Some("success-rate"));
}

fn failure() -> CheckFailure {
    CheckFailure {
        text: "status 500".into(),
        at: std::time::SystemTime::UNIX_EPOCH,
    }
}

#[tokio::test(start_paused = true)]
async fn checks_take_over_from_an_ejection() {
    let service = service(Policy::default(), 3);
    service.eject(0);
    service.members[0].note_failure(failure());
    service.members[0].set_failing(0, true);
    service.members[0].set_failing(1, true);
    let view = service.members[0].view();
    assert_eq!(view.state, HealthState::Unhealthy);
    assert_eq!(view.reason(), Some("health-check"));
    assert_eq!(view.last_failure, Some(failure()));
    let census = service.outliers.census();
    assert_eq!((census.ejected, census.unhealthy), (0, 1));
    // Requests that go there all the same have no say.
    for _ in 0..9 {
        service.fail(0, Fault::Server);
    }
    service.members[0].set_failing(0, false);
    assert!(!service.members[0].is_available(), "one check still fails");
    service.members[0].set_failing(1, false);
    assert!(service.members[0].is_available());
    assert_eq!(service.outliers.census().unhealthy, 0);
}

proptest! {
    #[test]
    fn the_formula_of_the_ejection_time(
        base in 1_u64..100_000, longest in 1_u64..1_000_000, times in 0_u32..100_000,
    ) {
        let policy = Policy {
            base_ejection_time: Duration::from_millis(base),
            max_ejection_time: Duration::from_millis(longest),
            ..Policy::default()
        };
        let expected = (base * u64::from(times.max(1))).min(longest.max(base));
        prop_assert_eq!(policy.ejection_time(times), Duration::from_millis(expected));
    }

    /// Whatever happens to whom, in whatever order.
    #[test]
    fn never_below_the_floor(
        endpoints in 1_usize..20,
        percent in 1_u32..=100,
        min_healthy in 0_u32..=100,
        events in prop::collection::vec((0_usize..20, 0_u8..8), 0..400),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let policy = Policy {
                consecutive: [2, 2, 2],
                max_ejection_percent: percent,
                min_healthy_percent: min_healthy,
                base_ejection_time: Duration::from_secs(1),
                ..Policy::default()
            };
            let service = service(policy, endpoints);
            let most = (percent as usize * endpoints / 100).max(1);
            let floor = (min_healthy as usize * endpoints).div_ceil(100).max(1).min(endpoints);
            let mut probes: Vec<Watch> = Vec::new();
            for (index, event) in events {
                let index = index % endpoints;
                match event {
                    0..=2 => service.fail(index, Fault::ALL[usize::from(event)]),
                    3 => service.succeed(index),
                    4 => service.pass(1).await,
                    5 => probes.push(service.watch(index)),
                    6 => if let Some(mut probe) = probes.pop() { probe.failed(Fault::Server); },
                    _ => if let Some(mut probe) = probes.pop() { probe.answered(); },
                }
                let out = service.members.iter().filter(|it| it.is_out()).count();
                prop_assert_eq!(out, service.outliers.census().ejected as usize);
                prop_assert!(out <= most, "{} out of {}", out, endpoints);
                prop_assert!(endpoints - out >= floor || out == 0, "{} out of {}", out, endpoints);
                prop_assert!(service.available() >= 1);
            }
            Ok(())
        })?;
    }
}

#[test]
fn many_threads_keep_the_floor_and_the_counts() {
    let service = Arc::new(service(
        Policy {
            consecutive: [1; 3],
            base_ejection_time: Duration::from_micros(1),
            max_ejection_percent: 50,
            ..Policy::default()
        },
        8,
    ));
    let threads: Vec<_> = (0..4)
        .map(|seed| {
            let service = service.clone();
            std::thread::spawn(move || {
                for step in 0..20_000_usize {
                    let index = (step * 7 + seed) % 8;
                    if let Some(mut watch) = service.members[index].watch() {
                        match (step + seed) % 3 {
                            0 => watch.failed(Fault::Connect),
                            1 => watch.answered(),
                            _ => {}
                        }
                    }
                    assert!(service.outliers.census().ejected <= 4);
                    if seed == 0 && step % 16 == 0 {
                        service.outliers.sweep(&service.members);
                    }
                }
            })
        })
        .collect();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    let out = service.members.iter().filter(|it| it.is_out()).count();
    assert_eq!(service.outliers.census().ejected as usize, out);
    assert!(service.outliers.ejections().any(|(_, count)| count > 0));
}
