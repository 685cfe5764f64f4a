#![allow(clippy::unwrap_used)]
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::Notify;
use tokio::time::{Instant, advance, pause, sleep};

use super::follow::{
    FIRST_ANSWER, FIRST_PAUSE, LEAST_TTL, LONGEST_PAUSE, LONGEST_STALE, LONGEST_TTL,
};
use super::{Answer, Family, LookUp, Name, Names, OwnListeners, Trouble};
use crate::telemetry::metrics::Metrics;

/// Answers as it is told, and remembers when it was asked.
#[derive(Clone)]
struct Server {
    answer: Arc<Mutex<Option<Result<Answer, Trouble>>>>,
    asked: Arc<Mutex<Vec<Instant>>>,
}

impl Server {
    fn new(answer: Result<Answer, Trouble>) -> Server {
        Server {
            answer: Arc::new(Mutex::new(Some(answer))),
            asked: Arc::default(),
        }
    }

    fn silent() -> Server {
        Server {
            answer: Arc::default(),
            asked: Arc::default(),
        }
    }

    fn say(&self, answer: Result<Answer, Trouble>) {
        *self.answer.lock().unwrap() = Some(answer);
    }

    fn look_up(&self) -> LookUp {
        let server = self.clone();
        Arc::new(move |_| {
            let server = server.clone();
            async move {
                server.asked.lock().unwrap().push(Instant::now());
                loop {
                    let answer = server.answer.lock().unwrap().clone();
                    match answer {
                        Some(answer) => return answer,
                        None => sleep(Duration::from_millis(100)).await,
                    }
                }
            }
            .boxed()
        })
    }

    fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    /// Time between the last two questions.
    fn last_gap(&self) -> Duration {
        let asked = self.asked.lock().unwrap();
        asked[asked.len() - 1] - asked[asked.len() - 2]
    }
}

fn answer(addresses: &[&str], ttl: Duration) -> Result<Answer, Trouble> {
    Ok(Answer {
        addresses: addresses.iter().map(|it| it.parse().unwrap()).collect(),
        ttl,
        unknown: None,
    })
}

fn failed() -> Result<Answer, Trouble> {
    Err(Trouble::Failed("SERVFAIL".into()))
}

struct Followed {
    name: Arc<Name>,
    changed: Arc<Notify>,
    _names: Names,
}

fn follow(server: &Server) -> Followed {
    let changed = Arc::new(Notify::new());
    let metrics = Arc::new(Metrics::new());
    let mut names = Names::new(
        server.look_up(),
        OwnListeners::default(),
        metrics,
        changed.clone(),
    );
    Followed {
        name: names.want(&"default/llm".into(), &"api.example".into()),
        changed,
        _names: names,
    }
}

impl Followed {
    fn addresses(&self) -> Vec<String> {
        let standing = self.name.standing();
        standing.addresses.iter().map(IpAddr::to_string).collect()
    }

    fn is_woken(&self) -> bool {
        self.changed.notified().now_or_never().is_some()
    }
}

/// The clock goes on in steps, so that what is due at each moment is done then.
async fn pass(time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_is_looked_up_when_its_answer_expires() {
    let server = Server::new(answer(&["192.0.2.1"], Duration::from_secs(10)));
    let followed = follow(&server);
    assert!(followed.name.is_pending());
    pass(Duration::from_secs(1)).await;
    assert_eq!(followed.addresses(), ["192.0.2.1"]);
    assert!(followed.is_woken());
    server.say(answer(
        &["192.0.2.2", "2001:db8::1"],
        Duration::from_secs(10),
    ));
    pass(Duration::from_secs(8)).await;
    assert_eq!(followed.addresses(), ["192.0.2.1"]);
    assert_eq!(server.count(), 1);
    pass(Duration::from_secs(2)).await;
    assert_eq!(followed.addresses(), ["192.0.2.2", "2001:db8::1"]);
    assert!(followed.is_woken());
    // The same answer is no news.
    pass(Duration::from_secs(30)).await;
    assert_eq!(server.count(), 5);
    assert!(!followed.is_woken());
}

#[tokio::test(start_paused = true)]
async fn ttls_have_bounds() {
    let server = Server::new(answer(&["192.0.2.1"], Duration::ZERO));
    let _followed = follow(&server);
    pass(Duration::from_secs(5)).await;
    assert!(server.last_gap() >= LEAST_TTL);
    assert!((4..=6).contains(&server.count()), "{}", server.count());
    server.say(answer(&["192.0.2.1"], Duration::from_secs(86_400)));
    pass(Duration::from_secs(2)).await;
    pass(LONGEST_TTL).await;
    assert!(server.last_gap() >= LONGEST_TTL);
    assert_eq!(server.last_gap().as_secs(), LONGEST_TTL.as_secs());
}

#[tokio::test(start_paused = true)]
async fn failures_keep_the_last_good_answer_for_a_while() {
    let server = Server::new(answer(&["192.0.2.1"], Duration::from_secs(60)));
    let followed = follow(&server);
    pass(Duration::from_secs(1)).await;
    server.say(failed());
    pass(Duration::from_secs(120)).await;
    assert_eq!(followed.addresses(), ["192.0.2.1"]);
    let (trouble, _) = followed.name.standing().trouble.clone().unwrap();
    assert_eq!(trouble, failed().unwrap_err());
    assert!(followed.is_woken(), "the first answer");
    pass(LONGEST_STALE).await;
    assert!(followed.addresses().is_empty());
    assert!(followed.is_woken());
    // It comes back.
    server.say(answer(&["192.0.2.3"], Duration::from_secs(60)));
    pass(LONGEST_PAUSE + Duration::from_secs(1)).await;
    assert_eq!(followed.addresses(), ["192.0.2.3"]);
    assert!(followed.name.standing().trouble.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_family_whose_lookup_fails_keeps_its_addresses_for_a_while() {
    let ttl = Duration::from_secs(60);
    let both = ["192.0.2.1", "2001:db8::1"];
    let server = Server::new(answer(&both, ttl));
    let followed = follow(&server);
    pass(Duration::from_secs(1)).await;
    assert!(followed.is_woken());
    let without_v6 = |address| {
        let Err(trouble) = failed() else {
            unreachable!()
        };
        answer(&[address], ttl).map(|answer| Answer {
            unknown: Some((Family::V6, trouble)),
            ..answer
        })
    };
    server.say(without_v6("192.0.2.1"));
    pass(2 * ttl).await;
    assert_eq!(followed.addresses(), both);
    assert!(!followed.is_woken(), "nothing has changed");
    assert!(followed.name.standing().trouble.is_some());
    // The other family goes on.
    server.say(without_v6("192.0.2.2"));
    pass(2 * ttl).await;
    assert_eq!(followed.addresses(), ["192.0.2.2", "2001:db8::1"]);
    pass(LONGEST_STALE).await;
    assert_eq!(followed.addresses(), ["192.0.2.2"]);
    // A family that is gone is gone at once.
    server.say(answer(&both, ttl));
    pass(2 * ttl).await;
    assert_eq!(followed.addresses(), both);
    assert!(followed.name.standing().trouble.is_none());
    server.say(answer(&both[..1], ttl));
    pass(2 * ttl).await;
    assert_eq!(followed.addresses(), both[..1]);
}

#[tokio::test(start_paused = true)]
async fn failed_lookups_are_repeated_ever_more_slowly() {
    let server = Server::new(Err(Trouble::NotFound));
    let followed = follow(&server);
    pass(Duration::from_millis(100)).await;
    assert!(!followed.name.is_pending());
    assert!(followed.is_woken());
    pass(FIRST_PAUSE).await;
    assert_eq!(server.count(), 2);
    pass(Duration::from_secs(600)).await;
    assert!(server.last_gap() >= LONGEST_PAUSE / 2);
    assert!(server.last_gap() <= LONGEST_PAUSE + Duration::from_millis(1));
    assert!(server.count() < 60, "{}", server.count());
    assert!(!followed.is_woken(), "nothing has changed");
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_holds_nobody_for_long() {
    let server = Server::silent();
    let followed = follow(&server);
    pass(FIRST_ANSWER - Duration::from_millis(200)).await;
    assert!(followed.name.is_pending());
    pass(Duration::from_millis(400)).await;
    assert!(!followed.name.is_pending());
    assert!(followed.is_woken());
    server.say(answer(&["192.0.2.1"], Duration::from_secs(60)));
    pass(Duration::from_secs(1)).await;
    assert_eq!(followed.addresses(), ["192.0.2.1"]);
}

#[tokio::test]
async fn names_that_nobody_wants_are_forgotten() {
    pause();
    let server = Server::new(answer(&["192.0.2.1"], Duration::from_secs(1)));
    let metrics = Arc::new(Metrics::new());
    let mut names = Names::new(
        server.look_up(),
        OwnListeners::default(),
        metrics,
        Arc::default(),
    );
    let (service, host) = ("default/llm".into(), "api.example".into());
    names.begin();
    let first = names.want(&service, &host);
    assert_eq!(names.end().len(), 1);
    names.begin();
    assert!(Arc::ptr_eq(&first, &names.want(&service, &host)));
    assert_eq!(names.end().len(), 1);
    pass(Duration::from_secs(3)).await;
    names.begin();
    assert!(names.end().is_empty());
    let asked = server.count();
    assert!(asked >= 2);
    advance(Duration::from_secs(10)).await;
    pass(Duration::from_secs(1)).await;
    assert_eq!(server.count(), asked);
}

#[tokio::test]
async fn an_address_is_its_own_answer() {
    let server = Server::new(failed());
    let mut names = Names::new(
        server.look_up(),
        OwnListeners::default(),
        Arc::default(),
        Arc::default(),
    );
    for (host, address) in [("192.0.2.1", "192.0.2.1"), ("[2001:db8::1]", "2001:db8::1")] {
        let name = names.want(&"passthrough".into(), &host.into());
        let addresses = name.standing().addresses.clone();
        assert_eq!(*addresses, [address.parse::<IpAddr>().unwrap()]);
    }
    assert_eq!(server.count(), 0);
}

#[test]
fn own_listeners_are_known_by_every_address() {
    let at = |text: &str| text.parse().unwrap();
    let own = OwnListeners::new(vec![at("127.0.0.1:15001"), at("0.0.0.0:15020")]);
    assert!(own.contain(at("127.0.0.1:15001")));
    assert!(own.contain(at("127.0.0.1:15020")));
    assert!(own.contain(at("127.8.9.1:15020")));
    assert!(!own.contain(at("127.0.0.1:15002")));
    // TEST-NET-1 (RFC 5737) is nobody's own.
    assert!(!own.contain(at("192.0.2.1:15020")));
}
