#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn the_oldest_unused_block_goes_first_and_a_prompts_end_before_its_beginning() {
    let mut cache = Cache::new(4 * BLOCK);
    let first: Vec<u32> = [1, 2]
        .iter()
        .map(|hash| cache.take(*hash).unwrap())
        .collect();
    let second: Vec<u32> = [1, 3]
        .iter()
        .map(|hash| cache.take(*hash).unwrap())
        .collect();
    assert_eq!((cache.room(), cache.matched(&[1, 3, 9])), (1, 2));
    cache.give_back(&first);
    cache.give_back(&second);
    assert_eq!((cache.room(), cache.usage()), (4, 0.0));
    cache.take(4).unwrap();
    cache.take(5).unwrap();
    assert_eq!(cache.matched(&[2]), 0, "unused for longest");
    cache.take(6).unwrap();
    assert_eq!((cache.matched(&[1]), cache.matched(&[3])), (1, 0));
    cache.take(7).unwrap();
    assert_eq!(cache.take(8), None, "all in use");
}
