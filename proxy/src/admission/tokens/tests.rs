#![allow(clippy::unwrap_used)]

use http::{HeaderMap, Method};

use super::*;
use outrigger_proto::budget::v1 as wire;

const HOUR: Duration = Duration::from_secs(3600);

fn budget(hub: &Arc<Hub>, change: impl FnOnce(&mut TokenBudget)) -> Arc<TokenBudget> {
    let mut budget = TokenBudget {
        service: "default/chat".into(),
        policy: "default/limits".into(),
        name: "tokens".into(),
        matches: Vec::new(),
        key: vec![KeyPart::Identity],
        tokens: 1000,
        per: HOUR,
        counted: Counted::Total,
        shared: false,
        hard_limit: false,
        default_max_tokens: 100,
        advance: 0,
        always_report: true,
        counts: Arc::new(Counts::new(&[KeyPart::Identity], 100, hub)),
    };
    change(&mut budget);
    Arc::new(budget)
}

fn ask(
    budgets: &[Arc<TokenBudget>],
    caller: &str,
    input: u64,
    output: Option<u64>,
) -> Result<Meter, (String, u64)> {
    let headers = HeaderMap::new();
    let facts = RequestFacts {
        host: "chat",
        port: 80,
        path: "/v1/chat/completions",
        query: "",
        method: &Method::POST,
        headers: &headers,
        model: None,
    };
    let id = SpiffeId::new("outrigger.local", "default", caller).unwrap();
    let subject = Subject {
        caller: Some(&id),
        ..Subject::default()
    };
    let estimate = Estimate {
        input,
        output,
        choices: 1,
    };
    match reserve(budgets, &Refusals::default(), &facts, &subject, estimate) {
        Ok(found) => Ok(found.unwrap().0),
        Err(refused) => Err((
            refused.budget.name.to_string(),
            refused.standing.retry_after.as_secs(),
        )),
    }
}

fn used(input: u64, output: u64) -> End {
    End::Used {
        input: Some(input),
        output: Some(output),
    }
}

/// At the beginning of an hour.
fn hub() -> Arc<Hub> {
    let hub = Arc::new(Hub::default());
    hub.set_unix_ms(1_000_000 * 3_600_000);
    hub
}

#[tokio::test(start_paused = true)]
async fn a_reservation_settles_by_what_was_used() {
    let budgets = [budget(&hub(), |_| {})];
    // 600 reserved, 150 used.
    let meter = ask(&budgets, "a", 100, Some(500)).unwrap();
    assert!(ask(&budgets, "a", 100, Some(500)).is_err());
    meter.send();
    meter.settle(used(100, 50));
    drop(meter);
    let second = ask(&budgets, "a", 50, Some(800)).unwrap();
    assert!(ask(&budgets, "a", 1, Some(0)).is_err(), "all is reserved");
    // Without a maximum the default is reserved.
    assert!(ask(&budgets, "b", 0, None).is_ok());
    // It was never sent: nothing was used.
    drop(second);
    let third = ask(&budgets, "a", 50, Some(800)).unwrap();
    third.send();
    third.settle(End::Unknown);
    third.settle(End::Nothing);
    drop(third);
    assert!(ask(&budgets, "a", 1, Some(0)).is_err(), "settled once");
    let counts = &budgets[0].counts;
    assert_eq!((counts.spent(), counts.refused()), (1000, 3));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_dropped_settles_by_what_was_counted() {
    let budgets = [budget(&hub(), |_| {})];
    let meter = ask(&budgets, "a", 100, Some(500)).unwrap();
    meter.send();
    assert!(meter.progress(20));
    drop(meter);
    assert_eq!(budgets[0].counts.spent(), 120);
    // 880 are left.
    assert!(ask(&budgets, "a", 81, Some(800)).is_err());
    assert!(ask(&budgets, "a", 80, Some(800)).is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_one_budget_refuses_takes_nothing_of_the_others() {
    let hub = hub();
    let tight = budget(&hub, |it| {
        it.name = "tight".into();
        it.tokens = 10;
        it.counted = Counted::Input;
    });
    let budgets = [budget(&hub, |_| {}), tight];
    assert_eq!(
        ask(&budgets, "a", 11, Some(900)).unwrap_err(),
        ("tight".into(), 3600)
    );
    let meter = ask(&budgets, "a", 10, Some(990));
    assert!(meter.is_ok(), "{meter:?}");
    assert_eq!(budgets[0].counts.allowed(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_next_window_is_a_new_one_and_the_old_one_settles_for_itself() {
    let budgets = [budget(&hub(), |_| {})];
    let old = ask(&budgets, "a", 0, Some(1000)).unwrap();
    tokio::time::advance(Duration::from_secs(1800)).await;
    assert_eq!(ask(&budgets, "a", 1, Some(0)).unwrap_err().1, 1800);
    tokio::time::advance(Duration::from_secs(1801)).await;
    let new = ask(&budgets, "a", 0, Some(1000)).unwrap();
    drop(old);
    assert!(ask(&budgets, "a", 1, Some(0)).is_err());
    drop(new);
    assert!(ask(&budgets, "a", 1, Some(0)).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_hard_limit_stops_and_a_soft_one_counts() {
    for hard in [true, false] {
        let budgets = [budget(&hub(), |it| {
            it.tokens = 100;
            it.hard_limit = hard;
        })];
        let meter = ask(&budgets, "a", 10, Some(20)).unwrap();
        meter.send();
        // More than was reserved, until nothing is left.
        for output in 1..=90 {
            assert!(meter.progress(output), "{output}");
        }
        assert_eq!(meter.progress(91), !hard);
        assert_eq!(meter.is_stopped(), hard);
        assert!(ask(&budgets, "a", 1, Some(0)).is_err());
        meter.settle(used(10, 91));
        let counts = &budgets[0].counts;
        assert_eq!((counts.spent(), counts.stopped()), (101, u64::from(hard)));
    }
}

/// A control plane of one sidecar: it leases what is needed, and half of what is left ahead.
struct Plane {
    left: u64,
    held: u64,
}

fn plane(left: u64) -> Plane {
    Plane { left, held: 0 }
}

impl Plane {
    fn answer(&mut self, request: &wire::LeaseRequest) -> wire::LeaseResponse {
        let lease = |lease: &wire::LeaseOf| {
            let before = self.held;
            if lease.needed > before {
                self.held += self.left.min(lease.needed - before);
            } else if !lease.ahead {
                self.held = lease.needed;
            }
            self.left = self.left + before - self.held;
            if lease.ahead {
                let half = self.left / 2;
                self.held += half;
                self.left -= half;
            }
            wire::Leased {
                held: self.held,
                left: self.left,
                refused: String::new(),
            }
        };
        wire::LeaseResponse {
            leases: request.leases.iter().map(lease).collect(),
            now_unix_ms: 0,
        }
    }
}

fn round(hub: &Hub, tick: bool, plane: &mut Plane) -> usize {
    let asked = hub.collect(tick, false);
    let request = hub.request("i", &asked);
    let response = plane.answer(&request);
    hub.answered(asked, response);
    request.leases.len()
}

#[tokio::test(start_paused = true)]
async fn a_shared_budget_spends_its_advance_and_then_its_leases() {
    let hub = hub();
    let budgets = [budget(&hub, |it| {
        it.shared = true;
        it.advance = 50;
    })];
    let first = ask(&budgets, "a", 0, Some(50)).unwrap();
    first.send();
    assert_eq!(
        ask(&budgets, "a", 0, Some(30)).unwrap_err().1,
        1,
        "a lease is on its way"
    );
    let mut left = plane(1000);
    assert_eq!(round(&hub, false, &mut left), 1);
    // 80 that it needed, and half of the rest; the advance is paid for.
    assert_eq!(left.left, 460);
    assert_eq!(budgets[0].counts.leased(), 540);
    let second = ask(&budgets, "a", 0, Some(490)).unwrap();
    assert!(ask(&budgets, "a", 1, Some(0)).is_err());
    assert_eq!(round(&hub, false, &mut left), 1);
    assert!(ask(&budgets, "a", 1, Some(0)).is_ok());
    first.settle(used(0, 50));
    drop(second);
    // Who does not use it gives it back, but for the advance.
    tokio::time::advance(Duration::from_secs(11)).await;
    assert_eq!(round(&hub, true, &mut left), 1);
    assert_eq!(left.left, 1000 - 50 - 50, "50 were used, 50 are kept");
    assert_eq!(round(&hub, true, &mut left), 0);
    assert!(ask(&budgets, "a", 0, Some(50)).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_spent_budget_is_not_asked_for_again_and_again() {
    let hub = hub();
    let budgets = [budget(&hub, |it| it.shared = true)];
    assert!(ask(&budgets, "a", 0, Some(100)).is_err(), "no advance");
    let mut left = plane(0);
    assert_eq!(round(&hub, false, &mut left), 1);
    for _ in 0..100 {
        assert_eq!(ask(&budgets, "a", 0, Some(100)).unwrap_err().1, 3600);
    }
    assert_eq!(round(&hub, false, &mut left), 0);
    tokio::time::advance(Duration::from_secs(2)).await;
    left.left = 100;
    assert!(ask(&budgets, "a", 0, Some(100)).is_err());
    assert_eq!(round(&hub, false, &mut left), 1);
    assert!(ask(&budgets, "a", 0, Some(100)).is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_next_windows_lease_is_there_when_it_begins() {
    let hub = hub();
    let budgets = [budget(&hub, |it| {
        it.shared = true;
        it.advance = 50;
    })];
    let mut left = plane(1000);
    drop(ask(&budgets, "a", 0, Some(10)).unwrap());
    round(&hub, false, &mut left);
    tokio::time::advance(Duration::from_millis(3_600_000 - 2000)).await;
    drop(ask(&budgets, "a", 0, Some(10)).unwrap());
    let mut next = plane(1000);
    assert_eq!(round(&hub, true, &mut next), 1);
    assert_eq!(next.left, 500);
    assert_eq!(round(&hub, true, &mut next), 0, "once");
    tokio::time::advance(Duration::from_secs(3)).await;
    assert!(ask(&budgets, "a", 0, Some(200)).is_ok());
    assert_eq!(round(&hub, true, &mut next), 0, "the old one is forgotten");
}

#[tokio::test(start_paused = true)]
async fn keys_that_find_no_place_share_with_their_caller() {
    let hub = hub();
    let key = vec![
        KeyPart::Identity,
        KeyPart::Header(http::HeaderName::from_static("x")),
    ];
    let it = budget(&hub, |it| {
        it.counts = Arc::new(Counts::new(&key, 8, &hub));
        it.key = key;
    });
    let id = SpiffeId::new("outrigger.local", "default", "a").unwrap();
    let subject = Subject {
        caller: Some(&id),
        ..Subject::default()
    };
    let mut buckets = std::collections::HashSet::new();
    for number in 0..1000 {
        let mut headers = HeaderMap::new();
        headers.insert("x", number.into());
        let facts = RequestFacts {
            host: "chat",
            port: 80,
            path: "/",
            query: "",
            method: &Method::POST,
            headers: &headers,
            model: None,
        };
        let bucket = it.bucket(&facts, &subject);
        assert!(bucket.take(1, 0));
        buckets.insert(Arc::as_ptr(&bucket));
    }
    assert!((8..=17).contains(&buckets.len()), "{}", buckets.len());
    assert!(it.counts.crowded() >= 983);
}
