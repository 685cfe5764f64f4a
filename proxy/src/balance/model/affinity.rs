//! Which endpoint a prompt belongs to.
//!
//! **Whose prompt it is.** Endpoints are ordered by rendezvous hashing (Thaler, Ravishankar 1998): by the hash of the prompt's prefix and of
//! their address. All sidecars find the same order, and an endpoint that comes or goes moves its own prompts only.
//!
//! **By which prefix.** From the shortest to the longest, each prefix narrows the endpoints down to as many as its part of the traffic needs:
//!
//! ```text
//! endpoints of a prefix = ⌈SLACK × endpoints × requests with the prefix / requests⌉, the first in its order,
//!                         among those of the prefix before it
//! ```
//!
//! A system prompt of one customer among hundreds has one endpoint: its requests land together. One that every request begins with has all
//! endpoints, and what follows it tells them apart; a LoRA adapter with a quarter of the traffic has a third of them.
//!
//! **Until when.** To leave costs reading a prefix again, and something of another's cache. So a prompt stays with its endpoint while
//!
//! ```text
//! work ≤ work of another one + STICKY × (tokens only the own one has cached + chance to come again × new tokens)
//! ```
//!
//! where the other is one at random that has the prefix before the last in its cache, and `work` is as in [`super::work`]. Where prompts
//! never come again the chance falls to nothing: what is left is the better of two random endpoints, as with `model-load`. Nor does it stay
//! where the endpoint has no room: it goes to the first in its order that has (consistent hashing with bounded loads; Mirrokni, Thorup,
//! Zadimoghaddam 2016), which is
//!
//! ```text
//! work ≤ least work of all + STICKY × tokens of the prompt
//! ```
//!
//! With `bounded_load` neither holds: to have room is to have no more than so many per cent of the share of the work.

use std::net::SocketAddr;

use rand::Rng;

use super::popularity::Popularity;
use super::work::{Comparison, Work};
use crate::balance::below;
use crate::balance::hash::{Hasher, mix};
use crate::balance::model::prompt::{Mark, Prompt};

/// How many more endpoints a prefix has than its part of the traffic: with as many, twenty prefixes lie unevenly on eight endpoints.
const SLACK: f64 = 2.0;

/// How often the work of reading a prefix again an endpoint may be behind another one before it is left. By simulation
/// (`examples/model-balancing.md`): with 4, sidecars that leave fill other caches, and there is more to read for all; with 100 few hot
/// prefixes wait too long. llm-d leaves after 18 s, which is about 45 for prompts of 6,000 tokens.
pub const STICKY: f64 = 32.0;

/// Requests for each endpoint from which on a part of the traffic is believed.
const BELIEVED: u64 = 8;

/// A session without a known prompt, tokens.
const UNKNOWN_PROMPT: u32 = 1024;

/// An endpoint that may be chosen.
#[derive(Clone, Copy, Debug)]
pub(in crate::balance) struct Candidate<'a> {
    pub(in crate::balance) index: usize,
    /// Of its address.
    pub(in crate::balance) hash: u64,
    pub(in crate::balance) weight: u32,
    pub(in crate::balance) work: &'a Work,
    /// Work that counts besides, tokens: after failures.
    pub(in crate::balance) penalty: f64,
}

/// What became of a prompt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::balance) struct Chosen {
    pub(in crate::balance) index: usize,
    /// Estimated tokens that it has to read.
    pub(in crate::balance) uncached: u32,
    /// The first in the prompt's order.
    pub(in crate::balance) is_owner: bool,
}

/// A server started again behind its address keeps its prompts.
pub(in crate::balance) fn address_hash(address: SocketAddr) -> u64 {
    let hasher = Hasher::new();
    let hasher = match address {
        SocketAddr::V4(address) => hasher.bytes(&address.ip().octets()),
        SocketAddr::V6(address) => hasher.bytes(&address.ip().octets()),
    };
    hasher.bytes(&address.port().to_be_bytes()).finish()
}

#[derive(Clone, Copy, Debug)]
struct Place<'a> {
    candidate: Candidate<'a>,
    work: f64,
    score: f64,
    /// How many of the marks it is an endpoint of.
    marks: usize,
}

/// Who is asked for.
#[derive(Clone, Copy, Debug)]
pub(in crate::balance) struct Question<'a> {
    pub(in crate::balance) key: Option<u64>,
    pub(in crate::balance) prompt: Option<&'a Prompt>,
    /// Counted before.
    pub(in crate::balance) again: bool,
    /// Per cent. `None`: by work.
    pub(in crate::balance) bounded_load: Option<u32>,
}

/// Chooses. `None`: there is no candidate, or nothing to tell the request by.
pub(in crate::balance) fn choose<'a>(
    now: u64,
    question: &Question<'_>,
    popularity: &Popularity,
    rng: &mut impl Rng,
    candidates: impl Iterator<Item = Candidate<'a>> + Clone,
) -> Option<Chosen> {
    let comparison = Comparison::new(now, candidates.clone().map(|each| each.work));
    let mut places: Vec<Place<'a>> = candidates
        .map(|candidate| Place {
            work: (comparison.work(now, candidate.work) + candidate.penalty)
                / f64::from(candidate.weight),
            score: 0.0,
            marks: 0,
            candidate,
        })
        .collect();
    if places.is_empty() {
        return None;
    }
    let tokens = question.prompt.map_or(UNKNOWN_PROMPT, Prompt::tokens);
    let session;
    let marks = match (question.key, question.prompt) {
        (Some(hash), _) => {
            session = [Mark { hash, tokens }];
            session.as_slice()
        }
        (None, Some(prompt)) => prompt.marks(),
        (None, None) => return None,
    };
    let narrowed = narrow(&mut places, marks, popularity, question.again);
    let seen = narrowed.seen_tokens(marks);
    let owner = places
        .iter()
        .filter(|each| each.marks == narrowed.marks)
        .max_by(|a, b| match narrowed.is_hot {
            // It is in all of their caches, and nothing tells its requests apart.
            true => b.work.total_cmp(&a.work),
            false => a.score.total_cmp(&b.score),
        })?;
    let cached = |place: &Place<'_>| match std::ptr::eq(place, owner) {
        true => seen,
        false => narrowed.seen_tokens(&marks[..place.marks.min(marks.len())]),
    };
    let chosen = match question.bounded_load {
        Some(percent) => {
            let most = share(&places, tokens) * f64::from(percent) / 100.0;
            first_with_room(&places, owner, most.max(least(&places)))
        }
        None => {
            let near = match near(&places, owner, rng) {
                Some(near) => {
                    let known = f64::from(seen.saturating_sub(cached(near)));
                    let new =
                        f64::from(popularity.again()) * f64::from(tokens.saturating_sub(seen));
                    let stay = owner.work <= near.work + STICKY * (known + new);
                    if stay { owner } else { near }
                }
                None => owner,
            };
            let most = least(&places) + STICKY * f64::from(tokens);
            if near.work <= most {
                near
            } else {
                first_with_room(&places, near, most)
            }
        }
    };
    let is_owner = std::ptr::eq(chosen, owner);
    Some(Chosen {
        index: chosen.candidate.index,
        uncached: tokens.saturating_sub(cached(chosen)),
        is_owner,
    })
}

/// Those that share the longest prefix with the owner come first.
fn first_with_room<'p, 'a>(
    places: &'p [Place<'a>],
    owner: &'p Place<'a>,
    most: f64,
) -> &'p Place<'a> {
    if owner.work <= most {
        return owner;
    }
    let with_room = places.iter().filter(|each| each.work <= most);
    let first = with_room.max_by(|a, b| a.marks.cmp(&b.marks).then(a.score.total_cmp(&b.score)));
    first.unwrap_or(owner)
}

/// Another one at random; one of the prefix before the last, if it has others.
fn near<'p, 'a>(
    places: &'p [Place<'a>],
    owner: &'p Place<'a>,
    rng: &mut impl Rng,
) -> Option<&'p Place<'a>> {
    let is_other = |each: &&Place<'_>| !std::ptr::eq(*each, owner);
    let near = |each: &&Place<'_>| is_other(each) && each.marks + 1 >= owner.marks;
    let mut draw = |count: usize| below(rng, count as u64) as usize;
    match (places.iter().filter(near).count(), places.len()) {
        (0, 1) => None,
        (0, all) => places.iter().filter(is_other).nth(draw(all - 1)),
        (some, _) => places.iter().filter(near).nth(draw(some)),
    }
}

fn least(places: &[Place<'_>]) -> f64 {
    let all = places.iter().map(|each| each.work);
    all.fold(f64::INFINITY, f64::min)
}

/// What each would have to do with this prompt, for each unit of weight.
fn share(places: &[Place<'_>], tokens: u32) -> f64 {
    let weight = |each: &Place<'_>| f64::from(each.candidate.weight);
    let work: f64 = places.iter().map(|each| each.work * weight(each)).sum();
    (work + f64::from(tokens)) / places.iter().map(weight).sum::<f64>()
}

#[derive(Clone, Copy, Debug, Default)]
struct Narrowed {
    /// Marks that narrowed the endpoints, or were too common to.
    marks: usize,
    /// The marks up to here came before.
    seen: usize,
    /// All marks were too common.
    is_hot: bool,
}

impl Narrowed {
    fn seen_tokens(&self, marks: &[Mark]) -> u32 {
        let seen = self.seen.min(marks.len());
        marks[..seen].last().map_or(0, |mark| mark.tokens)
    }
}

/// Finds the endpoints of each prefix, and their order by the last one that counts.
fn narrow(
    places: &mut [Place<'_>],
    marks: &[Mark],
    popularity: &Popularity,
    again: bool,
) -> Narrowed {
    let all = places.len();
    let mut left = all;
    let mut narrowed = Narrowed::default();
    let mut came_before = false;
    let requests = popularity.requests() + 1;
    for (number, mark) in marks.iter().enumerate() {
        let count = match again {
            true => popularity.count(mark.hash),
            false => popularity.note(mark.hash),
        };
        if count > 0 && narrowed.seen == number {
            narrowed.seen = number + 1;
        }
        if left == 1 && number > 0 {
            continue;
        }
        narrowed.marks = number + 1;
        let wanted = endpoints(count + 1, requests, all);
        came_before = count > 0;
        let last = number + 1 == marks.len();
        if wanted >= left && !last {
            places[..left]
                .iter_mut()
                .for_each(|each| each.marks = number + 1);
            continue;
        }
        for place in places.iter_mut() {
            place.score = score(mark.hash, &place.candidate);
        }
        let wanted = if wanted < left {
            places[..left].select_nth_unstable_by(wanted - 1, |a, b| b.score.total_cmp(&a.score));
            wanted
        } else {
            // The whole prompt. Either it comes all the time, or too little is known of the traffic.
            narrowed.is_hot = left > 1 && count >= BELIEVED;
            left
        };
        left = wanted;
        places[..left]
            .iter_mut()
            .for_each(|each| each.marks = number + 1);
    }
    if !again {
        popularity.request(came_before);
    }
    narrowed
}

/// How many endpoints a prefix is for.
fn endpoints(count: u64, requests: u64, all: usize) -> usize {
    if count * 2 >= requests {
        // What most requests begin with tells nothing apart.
        return all;
    }
    let requests = requests.max(BELIEVED * all as u64);
    let wanted = SLACK * all as f64 * count as f64 / requests as f64;
    (wanted.ceil() as usize).clamp(1, all)
}

/// Weighted rendezvous hashing (Schindelhauer, Schomaker 2005): −weight / ln(u), with u uniform in (0, 1).
fn score(key: u64, candidate: &Candidate<'_>) -> f64 {
    const STEPS: f64 = (1_u64 << 53) as f64;
    let hash = mix(key ^ candidate.hash);
    let uniform = ((hash >> 11) as f64 + 0.5) / STEPS;
    -f64::from(candidate.weight) / uniform.ln()
}

#[cfg(test)]
mod tests;
