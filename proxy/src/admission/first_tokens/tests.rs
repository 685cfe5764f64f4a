#![allow(clippy::unwrap_used)]

use super::*;

const MS: u64 = 1_000_000;
const BOUNDS: (u32, u32) = (256, 1024);

#[test]
fn nothing_is_known_until_a_first_token_has_waited() {
    let tokens = FirstTokens::default();
    for n in 1..100 {
        tokens.sample(MS, 30 * MS + u64::from(n) * MS / 2, 100, n, BOUNDS);
    }
    assert_eq!(tokens.limit(), None);
}

#[test]
fn first_tokens_that_wait_pull_it_down_to_what_was_there() {
    let tokens = FirstTokens::default();
    tokens.sample(MS, 30 * MS, 100, 1, BOUNDS);
    for _ in 0..40 {
        tokens.sample(MS, 3000 * MS, 100, 40, BOUNDS);
    }
    let limit = tokens.limit().unwrap();
    assert!((4..=40).contains(&limit), "{limit}");
    // With places it grows again, where it is in use.
    for _ in 0..10 {
        tokens.sample(MS, 40 * MS, 100, 1, BOUNDS);
    }
    assert_eq!(tokens.limit().unwrap(), limit);
    for _ in 0..200 {
        tokens.sample(MS, 40 * MS, 100, 1000, BOUNDS);
    }
    assert!(tokens.limit().unwrap() > 256);
    assert!(tokens.limit().unwrap() <= 1024);
}

#[test]
fn a_long_prompt_may_take_longer() {
    let tokens = FirstTokens::default();
    tokens.sample(MS, 30 * MS, 100, 1, BOUNDS);
    // Fifty times the tokens, twenty times the time.
    tokens.sample(MS, 600 * MS, 5000, 300, BOUNDS);
    assert_eq!(tokens.limit(), None);
    tokens.sample(MS, 600 * MS, 100, 300, BOUNDS);
    assert!(tokens.limit().is_some());
}

#[test]
fn what_was_fastest_is_forgotten() {
    let tokens = FirstTokens::default();
    tokens.sample(MS, MS, 100, 1, BOUNDS);
    // The server is another one now, and slower.
    let later = 3 * WINDOW;
    tokens.sample(later, 30 * MS, 100, 1, BOUNDS);
    let lower = tokens.limit();
    tokens.sample(later + 2 * WINDOW, 30 * MS, 100, 1, BOUNDS);
    assert_eq!(tokens.limit(), lower);
}

#[test]
fn whatever_comes_is_within_the_bounds() {
    let tokens = FirstTokens::default();
    for (now, time, uncached, n) in [
        (0, 0, 0, 0),
        (1, u64::MAX, 0, u32::MAX),
        (u64::MAX, 0, u32::MAX, 0),
        (2, u64::MAX, u32::MAX, 1),
    ] {
        for _ in 0..50 {
            tokens.sample(now, time, uncached, n, (5, 7));
            assert!(tokens.limit().is_none_or(|limit| (1..=7).contains(&limit)));
        }
    }
}
