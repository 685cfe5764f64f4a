use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::balance::model::prompt::PromptReader;
use crate::balance::model::work::Task;

fn prompt(messages: &[&str]) -> Prompt {
    let mut reader = PromptReader::new(b"llama");
    for message in messages {
        reader.text(message.as_bytes());
        reader.end_of_message();
    }
    reader.finish_by_bytes()
}

/// A sidecar: what it has sent, and what it has seen.
struct Sidecar {
    works: Vec<Work>,
    weights: Vec<u32>,
    popularity: Popularity,
    rng: StdRng,
    bounded_load: Option<u32>,
}

impl Sidecar {
    fn new(endpoints: usize, seed: u64) -> Sidecar {
        Sidecar {
            works: std::iter::repeat_with(Work::default)
                .take(endpoints)
                .collect(),
            weights: vec![1; endpoints],
            popularity: Popularity::new(),
            rng: StdRng::seed_from_u64(seed),
            bounded_load: None,
        }
    }

    fn choose_of(
        &mut self,
        prompt: &Prompt,
        allowed: impl Fn(usize) -> bool + Copy,
    ) -> Option<Chosen> {
        let question = Question {
            key: None,
            prompt: Some(prompt),
            again: false,
            bounded_load: self.bounded_load,
        };
        let (works, weights) = (&self.works, &self.weights);
        let candidates = (0..works.len())
            .filter(move |index| allowed(*index))
            .map(|index| Candidate {
                index,
                hash: address_hash(([10, 0, 0, index as u8], 80).into()),
                weight: weights[index],
                work: &works[index],
                penalty: 0.0,
            });
        choose(1, &question, &self.popularity, &mut self.rng, candidates)
    }

    fn choose(&mut self, prompt: &Prompt) -> Chosen {
        self.choose_of(prompt, |_| true)
            .expect("there are endpoints")
    }
}

/// Prompts of so many customers, in turn, each with questions of its own.
fn customers(count: usize) -> Vec<String> {
    (0..count)
        .map(|it| format!("customer {it}. ").repeat(500))
        .collect()
}

#[test]
fn sidecars_agree_on_the_endpoint_of_a_customer() {
    let customers = customers(40);
    let mut sidecars = [Sidecar::new(8, 1), Sidecar::new(8, 2)];
    let mut homes = [vec![None; 40], vec![None; 40]];
    for round in 0..6 {
        for (customer, text) in customers.iter().enumerate() {
            for (sidecar, homes) in sidecars.iter_mut().zip(&mut homes) {
                let prompt = prompt(&[text, &format!("question {round}")]);
                homes[customer] = Some(sidecar.choose(&prompt).index);
            }
        }
    }
    assert_eq!(homes[0], homes[1]);
    let used: std::collections::BTreeSet<_> = homes[0].iter().collect();
    assert!(used.len() >= 7, "{used:?}");
}

#[test]
fn what_came_before_is_not_read_again() {
    let mut sidecar = Sidecar::new(4, 1);
    let customers = customers(20);
    for text in &customers {
        sidecar.choose(&prompt(&[text, "hello"]));
    }
    let again = prompt(&[&customers[3], "another question"]);
    let chosen = sidecar.choose(&again);
    assert!(chosen.is_owner && chosen.uncached < 10, "{chosen:?}");
    let new = prompt(&["somebody else".repeat(500).as_str()]);
    assert_eq!(sidecar.choose(&new).uncached, new.tokens());
}

#[test]
fn a_prefix_that_all_have_is_for_all_and_conversations_stay_where_they_are() {
    let mut sidecar = Sidecar::new(8, 1);
    let system = "You are a helpful assistant. ".repeat(100);
    let first = |it: usize| format!("I am number {it} and would like to know something");
    let homes: Vec<usize> = (0..200)
        .map(|it| sidecar.choose(&prompt(&[&system, &first(it)])).index)
        .collect();
    let most = (0..8)
        .map(|index| homes.iter().filter(|home| **home == index).count())
        .max();
    assert!(most < Some(60), "{homes:?}");
    let later = |it: usize| prompt(&[&system, &first(it), "an answer", "and then?"]);
    let moved = (50..200)
        .filter(|it| sidecar.choose(&later(*it)).index != homes[*it])
        .count();
    assert!(moved < 15, "{moved} of 150");
}

#[test]
fn a_prompt_leaves_when_its_endpoint_is_far_behind_and_comes_back() {
    let mut sidecar = Sidecar::new(6, 1);
    let customers = customers(60);
    let prompts: Vec<Prompt> = customers.iter().map(|text| prompt(&[text])).collect();
    for prompt in prompts.iter().cycle().take(240) {
        sidecar.choose(prompt);
    }
    let home = sidecar.choose(&prompts[0]).index;
    let tokens = prompts[0].tokens();
    let near = Task::begin(&sidecar.works[home], 1, tokens * 8);
    assert_eq!(
        sidecar.choose(&prompts[0]).index,
        home,
        "not worth reading it again"
    );
    let far = Task::begin(&sidecar.works[home], 1, tokens * 30);
    let second = sidecar.choose(&prompts[0]);
    assert!(second.index != home && !second.is_owner);
    assert!(second.uncached >= tokens / 2, "{second:?}");
    near.end(&sidecar.works[home]);
    far.end(&sidecar.works[home]);
    assert_eq!(sidecar.choose(&prompts[0]).index, home);
}

#[test]
fn what_never_comes_again_goes_where_less_is_to_do() {
    let mut sidecar = Sidecar::new(2, 1);
    for number in 0..100 {
        sidecar.choose(&prompt(&[&format!(
            "{number} and something that nobody else says"
        )]));
    }
    let _busy = Task::begin(&sidecar.works[0], 1, 2000);
    for number in 100..200 {
        let prompt = prompt(&[&format!("{number} and something that nobody else says")]);
        assert_eq!(sidecar.choose(&prompt).index, 1);
    }
}

#[test]
fn with_a_bounded_load_nobody_has_more_than_that_part_of_its_share() {
    let mut sidecar = Sidecar::new(4, 1);
    sidecar.bounded_load = Some(125);
    let hot = prompt(&["the same for all".repeat(100).as_str()]);
    let mut tasks = Vec::new();
    for _ in 0..100 {
        let chosen = sidecar.choose(&hot);
        tasks.push(Task::begin(&sidecar.works[chosen.index], 1, 1000));
    }
    let most = sidecar.works.iter().map(Work::prompt_tokens).max();
    assert!(most <= Some(33_000), "{most:?}");
}

#[test]
fn a_prefix_has_as_many_endpoints_as_its_traffic_needs() {
    assert_eq!(endpoints(1, 1, 8), 8, "the first of all tells nothing");
    assert_eq!(endpoints(1, 1000, 8), 1);
    assert_eq!(endpoints(250, 1000, 8), 4);
    assert_eq!(endpoints(500, 1000, 8), 8);
    assert_eq!(endpoints(3, 20, 100), 1, "too little is known");
}

proptest! {
    #[test]
    fn an_endpoint_that_goes_moves_its_own_prompts_only(count in 2_usize..10, gone in 0_usize..10, seed in any::<u64>()) {
        let gone = gone % count;
        let mut sidecar = Sidecar::new(count, seed);
        let prompts: Vec<Prompt> = customers(40 * count).iter().map(|text| prompt(&[text])).collect();
        // Known to be many before it counts where they are.
        for _ in 0..2 {
            for prompt in &prompts {
                sidecar.choose(prompt);
            }
        }
        for prompt in &prompts {
            let before = sidecar.choose(prompt).index;
            let after = sidecar.choose_of(prompt, |index| index != gone).map(|chosen| chosen.index);
            prop_assert!(Some(before) == after || before == gone);
            prop_assert_ne!(after, Some(gone));
        }
    }

    #[test]
    fn weights_are_kept(weights in prop::collection::vec(1_u32..5, 2..6)) {
        let mut sidecar = Sidecar::new(weights.len(), 1);
        sidecar.weights = weights.clone();
        let prompts: Vec<Prompt> = customers(1000).iter().map(|text| prompt(&[text])).collect();
        let mut counts = vec![0_u32; weights.len()];
        for prompt in &prompts {
            sidecar.choose(prompt);
        }
        for prompt in &prompts {
            counts[sidecar.choose(prompt).index] += 1;
        }
        let sum: u32 = weights.iter().sum();
        for (count, weight) in counts.iter().zip(&weights) {
            let share = f64::from(*weight) / f64::from(sum);
            let slack = 6.0 * (1000.0 * share * (1.0 - share)).sqrt();
            prop_assert!((f64::from(*count) - 1000.0 * share).abs() <= slack, "{counts:?} {weights:?}");
        }
    }

    #[test]
    fn somebody_is_always_chosen(texts in prop::collection::vec(".{0,200}", 1..40), count in 1_usize..5, bound in prop::option::of(101_u32..300)) {
        let mut sidecar = Sidecar::new(count, 1);
        sidecar.bounded_load = bound;
        let mut tasks = Vec::new();
        for text in &texts {
            let prompt = prompt(&[text]);
            let chosen = sidecar.choose(&prompt);
            prop_assert!(chosen.index < count && chosen.uncached <= prompt.tokens());
            tasks.push(Task::begin(&sidecar.works[chosen.index], 1, chosen.uncached));
        }
    }
}
