//! What clients ask.

use outrigger_proxy::balance::{Prompt, PromptReader};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::cache::BLOCK;
use crate::{Time, mix, seconds};

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    /// When it comes, or how long its client thinks before it.
    pub at: Time,
    /// The request of whose end `at` counts from.
    pub after: Option<usize>,
    pub prompt_tokens: u32,
    pub output_tokens: u32,
    /// Hashes of the blocks of the prompt and the answer, each with all that is before it.
    pub chain: Vec<u64>,
    /// As the sidecars read it.
    pub prompt: Prompt,
    /// 0: none.
    pub adapter: u64,
    /// The client's session.
    pub session: u64,
}

/// A text: pieces by their content and length.
#[derive(Clone, Debug, Default)]
pub struct Text {
    pieces: Vec<(u64, u32)>,
}

impl Text {
    /// A message of so many tokens. The same `content` is the same text, as far as the shorter goes.
    pub fn message(mut self, content: u64, tokens: u32) -> Text {
        self.pieces.push((content, tokens));
        self
    }

    fn tokens(&self) -> u32 {
        self.pieces.iter().map(|piece| piece.1).sum()
    }

    /// One number for each token of the text: what it is.
    fn each_token(&self) -> impl Iterator<Item = u64> {
        self.pieces
            .iter()
            .flat_map(|(content, tokens)| (0..*tokens).map(|at| mix(*content, u64::from(at))))
    }
}

/// A request for this prompt, answered with `answer`.
pub fn request(at: Time, prompt: &Text, answer: (u64, u32), adapter: u64, session: u64) -> Request {
    let mut reader = PromptReader::new(format!("model-{adapter}").as_bytes());
    let mut bytes = Vec::new();
    for (content, tokens) in &prompt.pieces {
        bytes.clear();
        // Four bytes for each token.
        bytes.extend(
            (0..*tokens).flat_map(|at| (mix(*content, u64::from(at)) as u32).to_le_bytes()),
        );
        reader.text(&bytes);
        reader.end_of_message();
    }
    let whole = prompt.clone().message(answer.0, answer.1);
    let mut chain = Vec::new();
    let mut hash = mix(0x6b76, adapter);
    for (index, token) in (1_u32..).zip(whole.each_token()) {
        hash = mix(hash, token);
        if index.is_multiple_of(BLOCK) {
            chain.push(hash);
        }
    }
    // A block that is not full is nobody else's.
    chain.push(mix(hash, at));
    Request {
        at,
        after: None,
        prompt_tokens: prompt.tokens().max(1),
        output_tokens: answer.1.max(1),
        chain,
        prompt: reader.finish(prompt.tokens().max(1)),
        adapter,
        session,
    }
}

/// Requests by a Poisson process whose rate goes evenly from one to another.
pub fn arrivals(rng: &mut StdRng, from: f64, to: f64, duration: f64) -> Vec<Time> {
    let most = from.max(to);
    let mut now = 0.0;
    let mut times = Vec::new();
    loop {
        now += -(1.0 - rng.random::<f64>()).ln() / most;
        if now >= duration {
            return times;
        }
        // Thinning (Lewis, Shedler 1979).
        let rate = from + (to - from) * now / duration;
        if rng.random::<f64>() * most < rate {
            times.push(seconds(now));
        }
    }
}

/// How requests come.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Each second, at first and in the end.
    pub from: f64,
    pub to: f64,
    /// Seconds.
    pub duration: f64,
    pub seed: u64,
}

/// llm-d's: groups with a long prefix in common, some users in each, whose questions come again and again.
#[derive(Clone, Copy, Debug)]
pub struct SharedPrefix {
    pub groups: u64,
    pub users: u64,
    pub prefix: u32,
    pub question: u32,
    pub output: u32,
    /// Each question is another one.
    pub fresh: bool,
    /// How uneven groups are: the exponent of Zipf's law. 0: all alike.
    pub skew: f64,
}

impl Default for SharedPrefix {
    fn default() -> SharedPrefix {
        SharedPrefix {
            groups: 150,
            users: 5,
            prefix: 6000,
            question: 1200,
            output: 1000,
            fresh: false,
            skew: 0.0,
        }
    }
}

/// Requests of [`SharedPrefix`].
pub fn shared_prefix(load: &Load, it: &SharedPrefix) -> Vec<Request> {
    let mut rng = StdRng::seed_from_u64(load.seed);
    let ends = zipf_ends(it.groups, it.skew);
    let times = arrivals(&mut rng, load.from, load.to, load.duration);
    let each = times.into_iter().enumerate().map(|(number, at)| {
        let group = zipf(&mut rng, &ends);
        let user = group * it.users + rng.random_range(0..it.users);
        let question = if it.fresh { number as u64 } else { user };
        let prompt = Text::default()
            .message(mix(1, group), it.prefix)
            .message(mix(2, question), it.question);
        request(at, &prompt, (mix(3, number as u64), it.output), 0, user + 1)
    });
    each.collect()
}

/// Prompts that have nothing in common, of lengths between a quarter and seven quarters of the mean.
pub fn prefix_free(load: &Load, prompt: u32, output: u32) -> Vec<Request> {
    let mut rng = StdRng::seed_from_u64(load.seed);
    let times = arrivals(&mut rng, load.from, load.to, load.duration);
    let each = times.into_iter().enumerate().map(|(number, at)| {
        let mut about = |mean: u32| (f64::from(mean) * rng.random_range(0.25..1.75)) as u32;
        let text = Text::default().message(mix(4, number as u64), about(prompt));
        let answer = (mix(5, number as u64), about(output));
        request(at, &text, answer, 0, number as u64 + 1)
    });
    each.collect()
}

/// Conversations of one to nine turns, each with all that was said before it, after one of a few system prompts. The load is that of
/// conversations.
pub fn chat(load: &Load, systems: u64) -> Vec<Request> {
    let mut rng = StdRng::seed_from_u64(load.seed);
    let times = arrivals(&mut rng, load.from, load.to, load.duration);
    let mut requests: Vec<Request> = Vec::new();
    for (number, at) in times.into_iter().enumerate() {
        let system = rng.random_range(0..systems);
        let session = number as u64 + 1;
        let mut text = Text::default().message(mix(6, system), 800);
        for turn in 0..rng.random_range(1..10) {
            let content = mix(mix(7, session), turn);
            text = text.message(content, rng.random_range(50..500));
            let answer = (mix(8, content), rng.random_range(50..500));
            let think = seconds(rng.random_range(2.0..20.0));
            let mut request = request(at, &text, answer, 0, session);
            if turn > 0 {
                request.at = think;
                request.after = Some(requests.len() - 1);
            }
            requests.push(request);
            text = text.message(answer.0, answer.1);
        }
    }
    requests
}

/// Requests to many LoRA adapters, a few of them popular (Zipf), without other prefixes in common.
pub fn lora(load: &Load, adapters: u64, prompt: u32, output: u32) -> Vec<Request> {
    let mut rng = StdRng::seed_from_u64(load.seed);
    let times = arrivals(&mut rng, load.from, load.to, load.duration);
    let ends = zipf_ends(adapters, 1.0);
    let each = times.into_iter().enumerate().map(|(number, at)| {
        let adapter = zipf(&mut rng, &ends) + 1;
        let text = Text::default().message(mix(9, number as u64), prompt);
        request(
            at,
            &text,
            (mix(10, number as u64), output),
            adapter,
            number as u64 + 1,
        )
    });
    each.collect()
}

/// Ends of the shares of so many ranks, by Zipf's law.
fn zipf_ends(ranks: u64, exponent: f64) -> Vec<f64> {
    let shares = (1..=ranks).map(|rank| (rank as f64).powf(-exponent));
    shares
        .scan(0.0, |end, share| {
            *end += share;
            Some(*end)
        })
        .collect()
}

/// A rank from 0.
fn zipf(rng: &mut StdRng, ends: &[f64]) -> u64 {
    let point = rng.random::<f64>() * ends.last().copied().unwrap_or(0.0);
    ends.partition_point(|end| *end <= point) as u64
}
