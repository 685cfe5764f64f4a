use super::*;

/// Callers in the order in which they are served, as the queue does it: by tag, and by who came first.
fn order(fair: &mut Fair, comers: &[(u64, u32)]) -> Vec<u64> {
    let mut waiting = std::collections::BTreeMap::new();
    for (number, (caller, cost)) in comers.iter().enumerate() {
        let turn = fair.turn(*caller, *cost);
        fair.push(turn);
        waiting.insert((turn.tag, number), turn);
    }
    let mut order = Vec::new();
    while let Some((_, turn)) = waiting.pop_first() {
        fair.serve(turn);
        order.push(turn.caller);
    }
    order
}

#[test]
fn many_requests_of_one_caller_do_not_hold_back_another_one() {
    let mut comers = vec![(1, 100); 100];
    comers.extend([(2, 100), (2, 100), (3, 100)]);
    let order = order(&mut Fair::default(), &comers);
    // The first of all was before them; from then on they take turns.
    assert_eq!(order[..5], [1, 2, 3, 1, 2]);
    assert!(order[5..].iter().all(|caller| *caller == 1));
}

#[test]
fn what_is_shared_is_tokens() {
    let mut comers = vec![(1, 1000); 20];
    comers.extend(vec![(2, 100); 200]);
    let order = order(&mut Fair::default(), &comers);
    let first = &order[..110];
    let of_long = first.iter().filter(|caller| **caller == 1).count();
    // Ten thousand tokens each.
    assert_eq!(of_long, 10);
}

#[test]
fn who_sends_one_after_the_other_does_not_starve_the_others() {
    let mut fair = Fair::default();
    let hundred: Vec<_> = (0..3)
        .map(|_| {
            let turn = fair.turn(1, 100);
            fair.push(turn);
            turn
        })
        .collect();
    fair.serve(hundred[0]);
    let one = fair.turn(2, 100);
    fair.push(one);
    assert!(one.tag < hundred[1].tag);
    fair.serve(one);
    // Its next one is behind.
    let next = fair.turn(2, 100);
    assert!(next.tag >= hundred[1].tag, "{next:?} {hundred:?}");
}

#[test]
fn how_many_are_ahead() {
    let mut fair = Fair::default();
    assert_eq!(fair.ahead(fair.turn(1, 10)), 0);
    for _ in 0..50 {
        let turn = fair.turn(1, 10);
        fair.push(turn);
    }
    // Of a stranger one only, of its own all.
    assert_eq!(fair.ahead(fair.turn(2, 10)), 1);
    assert_eq!(fair.ahead(fair.turn(1, 10)), 50);
    for _ in 0..4 {
        let turn = fair.turn(2, 10);
        fair.push(turn);
    }
    // Its own four, and five of the other's.
    assert_eq!(fair.ahead(fair.turn(2, 10)), 9);
    assert_eq!(fair.ahead(fair.turn(1, 10)), 54);
}

#[test]
fn who_gives_up_has_had_nothing() {
    let mut fair = Fair::default();
    let (kept, given_up) = (fair.turn(1, 10), fair.turn(2, 10_000));
    fair.push(kept);
    fair.push(given_up);
    fair.give_up(given_up);
    assert_eq!(fair.turn(2, 10).tag, 0);
    fair.serve(kept);
    // Nobody waits: nothing is kept.
    assert!(fair.callers.is_empty());
    assert_eq!((fair.active, fair.waiting, fair.cost), (0, 0, 0));
}

#[test]
fn callers_are_bounded() {
    let mut fair = Fair::default();
    let mut turns = Vec::new();
    for caller in 1..=3 * MOST_CALLERS as u64 {
        let turn = fair.turn(caller, 10);
        fair.push(turn);
        turns.push(turn);
    }
    assert!(fair.callers.len() <= MOST_CALLERS + 1);
    // Those that were served and have no advantage are forgotten, and there is room again.
    for turn in turns.drain(1..MOST_CALLERS) {
        fair.serve(turn);
    }
    fair.virtual_time = 1_000_000;
    fair.until_purge = 0;
    let turn = fair.turn(1, 10);
    fair.push(turn);
    assert!(fair.callers.len() < 10, "{}", fair.callers.len());
}
