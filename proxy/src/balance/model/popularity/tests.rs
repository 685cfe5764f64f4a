use super::*;
use crate::balance::hash::mix;

#[test]
fn it_counts_what_comes_again() {
    let popularity = Popularity::new();
    assert_eq!(
        (popularity.note(7), popularity.note(7), popularity.count(7)),
        (0, 1, 2)
    );
    assert_eq!(popularity.count(8), 0);
}

#[test]
fn what_comes_often_outlives_a_flood_of_what_comes_once() {
    let popularity = Popularity::new();
    let often = mix(1);
    for number in 0..200_000 {
        if number % 100 == 0 {
            popularity.note(often);
        }
        popularity.note(mix(number + 2));
    }
    assert!(popularity.count(often) > 1000);
    assert_eq!(popularity.slots.len(), SLOTS, "and no more memory");
}

#[test]
fn counts_are_halved_with_the_requests_so_that_shares_stay() {
    let popularity = Popularity::new();
    for number in 0..WINDOW {
        if number % 4 == 0 {
            popularity.note(7);
        }
        popularity.request(true);
    }
    assert_eq!(popularity.requests(), WINDOW / 2);
    assert_eq!(popularity.count(7), WINDOW / 8);
}

#[test]
fn prompts_that_never_come_again_are_found_out() {
    let popularity = Popularity::new();
    assert_eq!(popularity.again(), 1.0);
    (0..100).for_each(|_| popularity.request(false));
    assert!(popularity.again() < 0.01);
    (0..100).for_each(|_| popularity.request(true));
    assert!(popularity.again() > 0.99);
}

#[test]
fn threads_lose_little() {
    let popularity = Popularity::new();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..1000 {
                    popularity.note(9);
                }
            });
        }
    });
    assert!((1..=4000).contains(&popularity.count(9)));
}
