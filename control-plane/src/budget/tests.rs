//! The ledger by itself, and with the sidecars' own code around it: whatever is lost and whoever restarts, no more is used than is
//! stated.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method};
use outrigger_proto::budget::v1 as wire;
use outrigger_proxy::admission::tokens::{
    Counted, Counts, End, Estimate, Hub, Meter, TokenBudget, reserve,
};
use outrigger_proxy::admission::{Refusals, Subject};
use outrigger_proxy::policy::matching::RequestFacts;
use proptest::prelude::*;

use super::ledger::{Ask, Budget, Lease, Ledger, Row};

const TOKENS: u64 = 10_000;
const ADVANCE: u64 = 100;
const HOUR: u64 = 3_600_000;
/// The beginning of a window.
const START: u64 = 500_000 * HOUR;

fn budget() -> Budget {
    Budget {
        service: "default/chat".into(),
        policy: "default/limits".into(),
        limit: "tokens".into(),
        per_ms: HOUR,
    }
}

fn ask<'a>(budget: &'a Budget, instance: &'a str, needed: u64) -> Ask<'a> {
    Ask {
        budget,
        tokens: TOKENS,
        sidecars: 2,
        instance,
        holder: 1,
        key: &[7; 16],
        label: "somebody",
        window: START / HOUR,
        held: 0,
        needed,
        ahead: false,
        used: 0,
    }
}

#[test]
fn what_is_needed_is_leased_and_ahead_of_that_half_a_share() {
    let budget = budget();
    let mut ledger = Ledger::new(Vec::new());
    let a = Ask {
        ahead: true,
        ..ask(&budget, "a", 2000)
    };
    let (lease, row) = ledger.lease(&a, START).unwrap();
    assert_eq!(
        lease,
        Lease {
            held: 4000,
            left: 6000
        }
    );
    // Rounded up: the next leases need no disk.
    let row = row.unwrap();
    assert_eq!(row.tokens, 4000 + 625);
    ledger.written(&row);
    let (lease, row) = ledger.lease(&ask(&budget, "b", 600), START).unwrap();
    assert_eq!((lease.held, row), (600, None));
    // The same again changes nothing; less gives back.
    let (lease, _) = ledger.lease(&ask(&budget, "b", 600), START).unwrap();
    assert_eq!((lease.held, lease.left), (600, 5400));
    let (lease, _) = ledger.lease(&ask(&budget, "b", 100), START).unwrap();
    assert_eq!((lease.held, lease.left), (100, 5900));
    // There is no more than there is.
    let (lease, _) = ledger.lease(&ask(&budget, "c", 9000), START).unwrap();
    assert_eq!((lease.held, lease.left), (5900, 0));
    let usage = ledger.usage("default/limits", START + 1);
    assert_eq!((usage[0].granted, &*usage[0].key), (TOKENS, "somebody"));
    assert!(ledger.usage("default/others", START + 1).is_empty());
}

#[test]
fn windows_keys_and_late_requests() {
    let budget = budget();
    let mut ledger = Ledger::new(Vec::new());
    ledger.lease(&ask(&budget, "a", TOKENS), START).unwrap();
    let next = Ask {
        window: START / HOUR + 1,
        ..ask(&budget, "a", 5)
    };
    assert_eq!(ledger.lease(&next, START).unwrap().0.held, 5);
    let other = Ask {
        key: &[8; 16],
        ..ask(&budget, "a", 5)
    };
    assert_eq!(ledger.lease(&other, START).unwrap().0.held, 5);
    let far = Ask {
        window: START / HOUR + 2,
        ..ask(&budget, "a", 5)
    };
    assert!(ledger.lease(&far, START).is_err());
    assert!(ledger.is_new("a", 3));
    assert!(!ledger.is_new("a", 3) && !ledger.is_new("a", 2));
    assert!(ledger.is_new("a", 4) && ledger.is_new("b", 1));
}

#[test]
fn after_a_restart_the_disk_counts() {
    let budget = budget();
    let mut ledger = Ledger::new(Vec::new());
    let row = ledger.lease(&ask(&budget, "a", 3000), START).unwrap().1;
    let row = row.unwrap();
    let mut again = Ledger::new(vec![(row.name, row.tokens)]);
    let held = Ask {
        held: 3000,
        ..ask(&budget, "a", 3000)
    };
    let (lease, _) = again.lease(&held, START).unwrap();
    // What was rounded up is lost.
    assert_eq!((lease.held, lease.left), (3000, TOKENS - 3625));
    // A store that knows nothing learns from those who hold something.
    let mut lost = Ledger::new(Vec::new());
    assert_eq!(lost.lease(&held, START).unwrap().0.left, 7000);
}

/// The control plane's side: what is on disk outlives the ledger.
#[derive(Default)]
struct Plane {
    ledger: Ledger,
    disk: BTreeMap<String, u64>,
    sidecars: u64,
    /// What each holder was told last, whoever has started again since.
    told: BTreeMap<(String, u64), u64>,
}

impl Plane {
    fn lease(&mut self, request: &wire::LeaseRequest, now: u64) -> Option<wire::LeaseResponse> {
        if !self.ledger.is_new(&request.instance, request.sequence) {
            return None;
        }
        let budget = budget();
        let mut leases = Vec::new();
        for asked in &request.leases {
            let (lease, row) = self
                .ledger
                .lease(
                    &Ask {
                        budget: &budget,
                        tokens: TOKENS,
                        sidecars: self.sidecars,
                        instance: &request.instance,
                        holder: asked.holder,
                        key: &asked.key,
                        label: "",
                        window: asked.window,
                        held: asked.held.min(TOKENS),
                        needed: asked.needed,
                        ahead: asked.ahead,
                        used: asked.used,
                    },
                    now,
                )
                .unwrap();
            if let Some(Row { name, tokens }) = row {
                let on_disk = self.disk.entry(name.clone()).or_default();
                *on_disk = tokens.max(*on_disk);
                self.ledger.written(&Row { name, tokens });
            }
            leases.push(wire::Leased {
                held: lease.held,
                left: lease.left,
                refused: String::new(),
            });
            let holder = (request.instance.clone(), asked.holder);
            self.told.insert(holder, lease.held);
        }
        let told: u64 = self.told.values().sum();
        assert!(told <= TOKENS, "{told} are told of");
        let granted: u64 = self
            .ledger
            .usage("default/limits", now)
            .iter()
            .map(|it| it.granted)
            .sum();
        assert!(granted <= TOKENS, "{granted} are leased");
        Some(wire::LeaseResponse {
            leases,
            now_unix_ms: 0,
        })
    }

    fn restart(&mut self, killed: bool) {
        if !killed {
            for row in self.ledger.exact() {
                self.disk.insert(row.name, row.tokens);
            }
        }
        let rows = self.disk.iter().map(|(name, it)| (name.clone(), *it));
        self.ledger = Ledger::new(rows.collect());
    }
}

/// One life of a sidecar.
struct Life {
    instance: String,
    hub: Arc<Hub>,
    budgets: [Arc<TokenBudget>; 1],
    /// Requests under way, with what they will have used.
    meters: Vec<(Meter, u64)>,
    /// A request that is still on its way when its answer is not waited for any more.
    late: Option<wire::LeaseRequest>,
}

impl Life {
    fn new(number: usize) -> Life {
        let hub = Arc::new(Hub::default());
        hub.set_unix_ms(START);
        Life {
            instance: format!("i{number}"),
            budgets: [Arc::new(TokenBudget {
                service: "default/chat".into(),
                policy: "default/limits".into(),
                name: "tokens".into(),
                matches: Vec::new(),
                key: Vec::new(),
                tokens: TOKENS,
                per: Duration::from_millis(HOUR),
                counted: Counted::Total,
                shared: true,
                hard_limit: false,
                default_max_tokens: 1,
                advance: ADVANCE,
                always_report: false,
                counts: Arc::new(Counts::new(&[], 1, &hub)),
            })],
            hub,
            meters: Vec::new(),
            late: None,
        }
    }

    fn request(&mut self, tokens: u64, used: u64) {
        let headers = HeaderMap::new();
        let facts = RequestFacts {
            host: "chat",
            port: 80,
            path: "/",
            query: "",
            method: &Method::POST,
            headers: &headers,
            model: None,
        };
        let estimate = Estimate {
            input: 0,
            output: Some(tokens),
            choices: 1,
        };
        let subject = Subject::default();
        let reserved = reserve(
            &self.budgets,
            &Refusals::default(),
            &facts,
            &subject,
            estimate,
        );
        if let Ok(Some((meter, _))) = reserved {
            meter.send();
            self.meters.push((meter, used));
        }
    }

    /// Ends the oldest request.
    fn end(&mut self) -> u64 {
        if self.meters.is_empty() {
            return 0;
        }
        let (meter, used) = self.meters.remove(0);
        meter.settle(End::Used {
            input: Some(0),
            output: Some(used),
        });
        used
    }

    /// Asks for leases. What becomes of it: 0, 1: answered; 2: the request is lost; 3: the answer is; 4: the request comes late.
    fn ask(&mut self, plane: &mut Plane, now: u64, tick: bool, fate: u8) {
        let asked = self.hub.collect(tick, false);
        if asked.is_empty() {
            return;
        }
        let request = self.hub.request(&self.instance, &asked);
        match fate {
            2 => {}
            3 => drop(plane.lease(&request, now)),
            4 => self.late = Some(request),
            _ => {
                let response = plane.lease(&request, now).unwrap();
                self.hub.answered(asked, response);
                if let Some(late) = self.late.take() {
                    assert!(plane.lease(&late, now).is_none());
                }
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Request(usize, u64, u64),
    End(usize),
    Ask(usize, bool, u8),
    Wait(u64),
    RestartPlane(bool),
    RestartSidecar(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let sidecar = 0usize..4;
    prop_oneof![
        8 => (sidecar.clone(), 1u64..900, 50u64..=100)
            .prop_map(|(at, tokens, part)| Step::Request(at, tokens, tokens * part / 100)),
        5 => sidecar.clone().prop_map(Step::End),
        8 => (sidecar.clone(), any::<bool>(), 0u8..5)
            .prop_map(|(at, tick, fate)| Step::Ask(at, tick, fate)),
        3 => (1u64..12).prop_map(Step::Wait),
        2 => any::<bool>().prop_map(Step::RestartPlane),
        1 => sidecar.prop_map(Step::RestartSidecar),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_more_is_used_than_the_budget_and_the_advances(
        steps in proptest::collection::vec(step(), 1..400),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let (used, lives, refilled) = runtime.block_on(simulate(steps));
        let most = TOKENS + lives * ADVANCE;
        prop_assert!(used <= most, "{used} of {most} are used");
        // Nothing that is free is lost for good.
        prop_assert!(refilled);
    }
}

/// What was used and is reserved, how many lives of sidecars there were.
async fn simulate(steps: Vec<Step>) -> (u64, u64, bool) {
    let mut plane = Plane {
        sidecars: 4,
        ..Plane::default()
    };
    let mut sidecars: Vec<Life> = (0..4).map(Life::new).collect();
    let (mut used, mut lives, mut waited) = (0, 4, 0);
    for step in steps {
        match step {
            Step::Request(at, tokens, will_use) => sidecars[at].request(tokens, will_use),
            Step::End(at) => used += sidecars[at].end(),
            Step::Ask(at, tick, fate) => {
                sidecars[at].ask(&mut plane, START + waited, tick, fate);
            }
            Step::Wait(seconds) => {
                // All in one window.
                if waited < HOUR / 2 {
                    waited += seconds * 1000;
                    tokio::time::advance(Duration::from_secs(seconds)).await;
                }
            }
            Step::RestartPlane(killed) => plane.restart(killed),
            Step::RestartSidecar(at) => {
                // All that it had under way is used up, as far as anybody knows.
                while !sidecars[at].meters.is_empty() {
                    used += sidecars[at].end();
                }
                sidecars[at] = Life::new(usize::try_from(lives).unwrap());
                lives += 1;
            }
        }
    }
    for sidecar in &mut sidecars {
        while !sidecar.meters.is_empty() {
            used += sidecar.end();
        }
    }
    // A request that is refused and asks again gets something, if there is anything.
    let left = |plane: &Plane| {
        let usage = plane.ledger.usage("default/limits", START + waited);
        usage.first().map_or(0, |it| TOKENS - it.granted)
    };
    tokio::time::advance(Duration::from_secs(2)).await;
    let before = left(&plane);
    sidecars[0].request(800, 0);
    sidecars[0].ask(&mut plane, START + waited, false, 0);
    let has_got = sidecars[0].meters.len() == 1 || left(&plane) < before;
    (used, lives, has_got || before == 0)
}
