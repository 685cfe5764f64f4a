//! Keeps one name up to date, for as long as it is in use.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rand::RngExt as _;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::name::{Name, Outcome, Standing, Trouble};
use super::{Answer, Family, LookUp, Question};

/// An answer is used for at least this long: a TTL of 0 must not become a loop of lookups.
pub(super) const LEAST_TTL: Duration = Duration::from_secs(1);
/// And at most for this long: a server that moved is followed within minutes whatever its zone says, at a lookup's price.
pub(super) const LONGEST_TTL: Duration = Duration::from_secs(300);
/// The last good answer is kept for this long while lookups fail. Most failures are the resolver's, not the server's.
pub(super) const LONGEST_STALE: Duration = Duration::from_secs(3600);
/// After a failed lookup; doubles with each further one.
pub(super) const FIRST_PAUSE: Duration = Duration::from_secs(1);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A request waits so long for the first answer, and then learns that there is none yet. Below what it waits for the
/// control plane, which this is a part of.
pub(super) const FIRST_ANSWER: Duration = Duration::from_millis(1500);

/// Looks the name up, again and again. Wakes `changed` with each change that requests must know of.
pub(super) async fn follow(name: Arc<Name>, look_up: LookUp, changed: Arc<Notify>) {
    let mut pause = FIRST_PAUSE;
    let patience = Instant::now() + FIRST_ANSWER;
    loop {
        let mut lookup = look_up(name.question());
        let result = if name.is_pending() {
            match timeout_at(patience, &mut lookup).await {
                Ok(result) => result,
                Err(_) => {
                    let late = Trouble::Failed("no answer yet".into());
                    name.update(Err(late), &changed);
                    lookup.await
                }
            }
        } else {
            lookup.await
        };
        let outcome = result
            .as_ref()
            .map_or_else(Trouble::outcome, |_| Outcome::Ok);
        name.metrics.count(outcome);
        let wait = match &result {
            Ok(answer) => {
                pause = FIRST_PAUSE;
                bounded(answer.ttl)
            }
            Err(_) => {
                let wait = jittered(pause);
                pause = (pause * 2).min(LONGEST_PAUSE);
                wait
            }
        };
        name.update(result, &changed);
        tokio::time::sleep(wait).await;
    }
}

fn bounded(ttl: Duration) -> Duration {
    ttl.clamp(LEAST_TTL, LONGEST_TTL)
}

/// From half of it to all of it: sidecars that failed together do not come back together.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::rng().random_range(0.5..=1.0))
}

impl Name {
    fn question(&self) -> Question {
        let standing = self.standing();
        let known = |family: &Family| standing.addresses.iter().any(|it| family.has(it));
        Question {
            host: self.host.clone(),
            known: Family::ALL.into_iter().filter(known).collect(),
        }
    }

    /// Takes over how a lookup ended.
    pub(super) fn update(&self, result: Result<Answer, Trouble>, changed: &Notify) {
        let before = self.standing();
        let mut next = Standing::clone(&before);
        match result {
            Ok(mut answer) => {
                let now = Instant::now();
                next.kept_since = None;
                next.trouble = None;
                if let Some((family, trouble)) = answer.unknown {
                    let since = before.kept_since.unwrap_or(now);
                    if now.duration_since(since) < LONGEST_STALE {
                        let kept = before.addresses.iter().filter(|it| family.has(it));
                        answer.addresses.extend(kept);
                        answer.addresses.sort_unstable();
                        next.kept_since = Some(since);
                    }
                    next.trouble = Some((trouble, SystemTime::now()));
                }
                if *before.addresses != *answer.addresses {
                    next.addresses = answer.addresses.into();
                }
                next.answered_at = Some(now);
                next.ttl = bounded(answer.ttl);
            }
            Err(trouble) => {
                let too_old = |at: Instant| at.elapsed() >= before.ttl + LONGEST_STALE;
                if before.answered_at.is_none_or(too_old) {
                    next.addresses = Arc::default();
                }
                next.trouble = Some((trouble, SystemTime::now()));
            }
        }
        let news = before.generation == 0 || before.addresses != next.addresses;
        next.generation += u64::from(news);
        self.standing.store(Arc::new(next));
        if news {
            changed.notify_one();
        }
    }
}
