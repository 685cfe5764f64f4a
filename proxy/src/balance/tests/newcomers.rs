//! Endpoints that come to others whose latencies are known.

use super::*;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;

/// Three endpoints that take 0.5 ms, as was learnt in a minute, and one that came after it.
fn three_and_a_newcomer(settings: Settings) -> (EndpointSet, u64) {
    let came = clock::now() + 60 * SECOND;
    let newcomer = changed(3, |it| it.load = Arc::new(Load::new_at(came)));
    let endpoints = (0..3).map(|i| endpoint(i, 1)).chain([newcomer]).collect();
    let (set, _) = with(settings, endpoints);
    for known in &set.endpoints()[..3] {
        known.load.sample(came, MS / 2);
    }
    (set, came)
}

/// One request after the other, each answered in 0.5 ms before the next one comes.
fn one_by_one(set: &EndpointSet, rng: &mut StdRng, times: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut counts = vec![0; set.endpoints().len()];
    for now in times {
        let picked = set.pick_at(now, None, rng, &[]).unwrap();
        counts[position(set, picked)] += 1;
        picked.load.begin(now);
        picked.load.sample(now + MS / 2, MS / 2);
        picked.load.end();
    }
    counts
}

#[test]
fn a_newcomer_is_found_out_about_at_low_load() {
    for seed in 0..20 {
        let (set, came) = three_and_a_newcomer(Settings::default());
        let mut rng = StdRng::seed_from_u64(seed);
        let seconds = |from: u64, to: u64| (from..to).map(move |s| came + s * SECOND);
        // It stands to every second choice, and wins the first of them.
        let counts = one_by_one(&set, &mut rng, seconds(0, 20));
        assert!(counts[3] > 0, "seed {seed}: {counts:?}");
        // From then on it is one of four.
        let counts = one_by_one(&set, &mut rng, seconds(20, 420));
        assert!((50..150).contains(&counts[3]), "seed {seed}: {counts:?}");
    }
}

#[test]
fn a_newcomer_gets_one_request_until_it_has_answered() {
    for seed in 0..20 {
        let (set, came) = three_and_a_newcomer(Settings::default());
        let mut rng = StdRng::seed_from_u64(seed);
        let all = set.endpoints();
        let mut open = Vec::new();
        // A thousand at once: the others are two orders of magnitude busier than they ever were.
        for _ in 0..1000 {
            let picked = set.pick_at(came, None, &mut rng, &[]).unwrap();
            picked.load.begin(came);
            open.push(picked);
        }
        assert_eq!(all[3].load.in_flight(), 1, "seed {seed}");
        // It answers as slowly as they do now: it takes its share.
        all[3].load.sample(came, MS / 2);
        for _ in 0..1000 {
            let picked = set.pick_at(came, None, &mut rng, &[]).unwrap();
            picked.load.begin(came);
        }
        let found = all[3].load.in_flight();
        assert!((400..=520).contains(&found), "seed {seed}: {found}");
    }
}

#[test]
fn a_newcomer_that_never_answers_is_asked_now_and_then() {
    let (set, came) = three_and_a_newcomer(Settings::default());
    let mut rng = StdRng::seed_from_u64(1);
    let mut asked = Vec::new();
    for second in 0..600 {
        let now = came + second * SECOND;
        let picked = set.pick_at(now, None, &mut rng, &[]).unwrap();
        picked.load.begin(now);
        if position(&set, picked) == 3 {
            asked.push(second);
        } else {
            picked.load.sample(now + MS / 2, MS / 2);
            picked.load.end();
        }
    }
    // 5 s fade to less than the others' 0.5 ms in 90 s, after each request anew.
    assert!((3..=8).contains(&asked.len()), "{asked:?}");
    assert!(
        asked.windows(2).all(|two| two[1] - two[0] >= 60),
        "{asked:?}"
    );
}

#[test]
fn an_unknown_endpoint_is_started_slowly_too() {
    let slow_start = SlowStart {
        window: Duration::from_secs(100),
        aggression: 1,
        min_percent: 10,
    };
    let mut total = 0;
    for seed in 0..40 {
        let (set, came) = three_and_a_newcomer(Settings {
            slow_start: Some(slow_start),
            ..Settings::default()
        });
        let mut rng = StdRng::seed_from_u64(seed);
        let tenths = (0..100).map(|tenth| came + tenth * SECOND / 10);
        total += one_by_one(&set, &mut rng, tenths)[3];
    }
    // 4000 requests: a fortieth by weight; P2C may give it twice as much, see above.
    assert!((40..=200).contains(&total), "{total}");
}

#[test]
fn unknown_endpoints_share_a_burst_by_their_weights() {
    let set = set(Policy::PeakEwma, &[1, 3]);
    let mut rng = StdRng::seed_from_u64(1);
    for _ in 0..400 {
        set.pick_at(SECOND, None, &mut rng, &[])
            .unwrap()
            .load
            .begin(SECOND);
    }
    let light = set.endpoints()[0].load.in_flight();
    assert!((95..=105).contains(&light), "{light}");
}
