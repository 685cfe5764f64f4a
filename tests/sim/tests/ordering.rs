//! What the simulator must show: the order of policies that was published, and what the sidecars' policies are to reach. Virtual time: the same
//! figures on every machine.

use outrigger_proxy::balance;
use outrigger_simulator::policy::Policy;
use outrigger_simulator::replica::Model;
use outrigger_simulator::report::Figures;
use outrigger_simulator::run::{World, run};
use outrigger_simulator::workload::{self, Load, Request, SharedPrefix};

const AFFINITY: Policy = Policy::Sidecar(balance::Policy::PrefixAffinity);
const MODEL_LOAD: Policy = Policy::Sidecar(balance::Policy::ModelLoad);
const LEAST_REQUEST: Policy = Policy::Sidecar(balance::Policy::LeastRequest);
const ROUND_ROBIN: Policy = Policy::Sidecar(balance::Policy::RoundRobin);
const RANDOM: Policy = Policy::Sidecar(balance::Policy::Random);

fn shared_prefix(seed: u64) -> Vec<Request> {
    let load = Load {
        from: 3.0,
        to: 60.0,
        duration: 100.0,
        seed,
    };
    workload::shared_prefix(&load, &SharedPrefix::default())
}

/// The mean over three seeds: tokens each second, and p90 of the time to the first token in seconds.
fn mean(policy: Policy, model: Model, requests: fn(u64) -> Vec<Request>) -> (f64, f64) {
    let runs = (1..=3).map(|seed| {
        let world = World {
            model,
            seed,
            ..World::default()
        };
        let figures: Figures = run(&world, policy, &requests(seed));
        (figures.output_tokens_per_second, figures.ttft_p90)
    });
    let sum = runs.fold((0.0, 0.0), |sum, run| (sum.0 + run.0, sum.1 + run.1));
    (sum.0 / 3.0, sum.1 / 3.0)
}

#[test]
fn prefix_affinity_is_worth_it_where_prompts_begin_alike() {
    let of = |policy| mean(policy, Model::default(), shared_prefix);
    let (affinity, round_robin) = (of(AFFINITY), of(ROUND_ROBIN));
    assert!(
        affinity.0 > 1.5 * round_robin.0,
        "{affinity:?} {round_robin:?}"
    );
    assert!(
        affinity.1 * 5.0 < round_robin.1,
        "{affinity:?} {round_robin:?}"
    );
}

#[test]
fn where_prompts_have_nothing_in_common_it_is_no_worse_than_least_request() {
    let requests = |seed| {
        let load = Load {
            from: 10.0,
            to: 40.0,
            duration: 100.0,
            seed,
        };
        workload::prefix_free(&load, 2000, 400)
    };
    let of = |policy| mean(policy, Model::default(), requests);
    let (affinity, least_request) = (of(AFFINITY), of(LEAST_REQUEST));
    assert!(
        affinity.0 >= 0.99 * least_request.0,
        "{affinity:?} {least_request:?}"
    );
    assert!(
        affinity.1 <= 1.02 * least_request.1,
        "{affinity:?} {least_request:?}"
    );
    let model_load = of(MODEL_LOAD);
    assert!(
        model_load.1 <= 1.1 * least_request.1,
        "{model_load:?} {least_request:?}"
    );
}

#[test]
fn the_published_order_comes_out_where_caches_are_too_small() {
    let model = Model {
        cache: 230_000,
        ..Model::default()
    };
    let of = |policy| mean(policy, model, shared_prefix);
    let (precise, approximate, random) = (of(Policy::Precise), of(Policy::Approximate), of(RANDOM));
    assert!(precise.0 > approximate.0, "{precise:?} {approximate:?}");
    assert!(precise.1 < approximate.1, "{precise:?} {approximate:?}");
    assert!(approximate.0 > 1.5 * random.0, "{approximate:?} {random:?}");
    let affinity = of(AFFINITY);
    assert!(affinity.0 > 1.5 * random.0, "{affinity:?} {random:?}");
}

#[test]
fn adapters_stay_where_they_are_loaded() {
    let requests = |seed| {
        let load = Load {
            from: 5.0,
            to: 40.0,
            duration: 60.0,
            seed,
        };
        workload::lora(&load, 60, 500, 200)
    };
    let of = |policy| mean(policy, Model::default(), requests);
    let (affinity, least_request) = (of(AFFINITY), of(LEAST_REQUEST));
    assert!(
        affinity.1 * 2.0 < least_request.1,
        "{affinity:?} {least_request:?}"
    );
}

#[test]
fn the_same_seed_gives_the_same_figures() {
    let requests = shared_prefix(7);
    let first = run(&World::default(), AFFINITY, &requests[..500]);
    let second = run(&World::default(), AFFINITY, &requests[..500]);
    assert_eq!(first, second);
    assert_eq!(first.refused, 0);
}
