#![allow(clippy::unwrap_used)]

use super::*;

const MS: u64 = 1_000_000;
const DISCIPLINE: Discipline = Discipline {
    max_length: 4,
    target: 5 * MS,
    interval: 100 * MS,
};

type Names = Queue<&'static str>;
type Dropped = Vec<(&'static str, Limit)>;

fn comer(priority: Priority, at: u64, deadline: Option<u64>) -> Comer {
    Comer {
        priority,
        now: at * MS,
        deadline: deadline.map(|at| at * MS),
        share: None,
    }
}

fn push(queue: &mut Names, at: u64, name: &'static str, priority: Priority) -> Dropped {
    let mut dropped = Vec::new();
    let pushed = queue.push(&comer(priority, at, None), &DISCIPLINE, name, &mut dropped);
    dropped.extend(pushed.err());
    dropped
}

fn pop(queue: &mut Names, at: u64) -> (Option<&'static str>, Dropped) {
    let mut dropped = Vec::new();
    let next = queue.pop(at * MS, 0, &DISCIPLINE, &mut dropped);
    (next.map(|(name, _)| name), dropped)
}

#[test]
fn higher_priorities_first_then_first_come() {
    let mut queue = Names::default();
    for (name, priority) in [
        ("s", Priority::Sheddable),
        ("d1", Priority::Default),
        ("d2", Priority::Default),
        ("c", Priority::Critical),
    ] {
        assert_eq!(push(&mut queue, 0, name, priority), []);
    }
    for name in ["c", "d1", "d2", "s"] {
        assert_eq!(pop(&mut queue, 1), (Some(name), vec![]));
    }
    assert_eq!(pop(&mut queue, 1), (None, vec![]));
}

#[test]
fn who_matters_more_takes_the_place_of_who_matters_less() {
    let mut queue = Names::default();
    push(&mut queue, 0, "s1", Priority::Sheddable);
    push(&mut queue, 0, "s2", Priority::Sheddable);
    push(&mut queue, 0, "d1", Priority::Default);
    push(&mut queue, 0, "d2", Priority::Default);
    let full = |name| vec![(name, Limit::QueueFull)];
    assert_eq!(push(&mut queue, 1, "s3", Priority::Sheddable), full("s3"));
    assert_eq!(
        push(&mut queue, 1, "d3", Priority::Default),
        [("s2", Limit::Shed)]
    );
    assert_eq!(
        push(&mut queue, 1, "c", Priority::Critical),
        [("s1", Limit::Shed)]
    );
    assert_eq!(push(&mut queue, 1, "d4", Priority::Default), full("d4"));
    assert_eq!(queue.len(), 4);
}

#[test]
fn a_standing_queue_serves_the_newest_and_drops_the_late() {
    let mut queue = Names::default();
    push(&mut queue, 0, "a", Priority::Default);
    push(&mut queue, 60, "b", Priority::Default);
    // Not empty for 100 ms, which is not yet longer.
    assert_eq!(pop(&mut queue, 100), (Some("a"), vec![]));
    push(&mut queue, 110, "c", Priority::Default);
    push(&mut queue, 112, "d", Priority::Default);
    let late = vec![("b", Limit::QueueStanding)];
    assert_eq!(pop(&mut queue, 113), (Some("d"), late));
    // Sheddable requests do not wait in a queue that stands.
    let shed = [("s", Limit::Shed)];
    assert_eq!(push(&mut queue, 114, "s", Priority::Sheddable), shed);
    // The last to come is served however late: there is nobody else.
    assert_eq!(pop(&mut queue, 200), (Some("c"), vec![]));
    // It was empty: the next ones are first come, first served again.
    push(&mut queue, 300, "e", Priority::Default);
    push(&mut queue, 301, "f", Priority::Default);
    assert_eq!(pop(&mut queue, 399), (Some("e"), vec![]));
}

#[test]
fn a_full_standing_queue_gives_up_its_oldest() {
    let mut queue = Names::default();
    for (at, name) in [(0, "a"), (101, "b"), (102, "c"), (103, "d")] {
        push(&mut queue, at, name, Priority::Default);
    }
    assert_eq!(
        push(&mut queue, 104, "e", Priority::Default),
        [("a", Limit::QueueStanding)]
    );
    assert_eq!(pop(&mut queue, 105).0, Some("e"));
}

#[test]
fn what_cannot_meet_its_deadline_is_dropped_at_its_turn() {
    let mut queue = Names::default();
    let mut dropped = Vec::new();
    for (name, deadline) in [("late", 30), ("hopeless", 60), ("fine", 61)] {
        let comer = comer(Priority::Default, 0, Some(deadline));
        let pushed = queue.push(&comer, &DISCIPLINE, name, &mut dropped);
        pushed.unwrap();
    }
    // It takes 20 ms at least.
    let next = queue.pop(41 * MS, 20 * MS, &DISCIPLINE, &mut dropped);
    assert_eq!(next.map(|(name, _)| name), Some("fine"));
    assert_eq!(
        dropped,
        [
            ("late", Limit::QueueDeadline),
            ("hopeless", Limit::QueueDeadline)
        ]
    );
}

#[test]
fn who_leaves_is_gone() {
    let mut queue = Names::default();
    let mut dropped = Vec::new();
    let mut ticket = |name| {
        let comer = comer(Priority::Default, 0, None);
        queue.push(&comer, &DISCIPLINE, name, &mut dropped).unwrap()
    };
    let (a, b) = (ticket("a"), ticket("b"));
    assert!(queue.remove(a));
    assert!(!queue.remove(a));
    assert_eq!(pop(&mut queue, 1).0, Some("b"));
    assert!(!queue.remove(b));
}
