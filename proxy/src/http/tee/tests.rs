#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use http::HeaderMap;
use http_body_util::BodyExt;

use super::*;
use crate::http::body::Source;

fn new() -> (Arc<MirrorMetrics>, Tap, Source, Fate) {
    let budget = Arc::new(MirrorMetrics::default());
    let (tap, source, fate) = tee(&budget);
    (budget, tap, Source::Tee(source), fate)
}

/// Nothing waits: all the room can be had.
fn is_free(budget: &MirrorMetrics) -> bool {
    let all = 16 << 20;
    let free = budget.reserve(all);
    if free {
        budget.release(all);
    }
    free
}

#[test]
fn the_copy_gets_chunks_and_trailers_and_the_end() {
    let (budget, tap, mut source, fate) = new();
    tap.push(&Bytes::from_static(b"one"));
    let frame = source.frame().now_or_never().unwrap().unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "one");
    assert!(source.frame().now_or_never().is_none(), "it waits for more");
    tap.push(&Bytes::from_static(b"two"));
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "7".parse().unwrap());
    tap.end(Some(&trailers));
    drop(tap);
    let rest = source.collect().now_or_never().unwrap().unwrap();
    assert_eq!(rest.trailers().unwrap()["x-sum"], "7");
    assert_eq!(rest.to_bytes(), "two");
    assert_eq!(fate.lost(), None);
    assert!(is_free(&budget));
}

#[test]
fn a_copy_that_is_too_far_behind_loses_the_rest() {
    let (budget, tap, mut source, fate) = new();
    let chunk = Bytes::from(vec![0; 100_000]);
    for _ in 0..10 {
        tap.push(&chunk);
    }
    assert_eq!(fate.lost(), None);
    tap.push(&chunk);
    assert_eq!(fate.lost(), Some(Lost::TooSlow));
    assert!(is_free(&budget), "what waited is given back at once");
    tap.end(None);
    assert!(source.frame().now_or_never().unwrap().unwrap().is_err());
    assert!(!http_body::Body::is_end_stream(&source));
}

#[test]
fn small_chunks_are_not_free() {
    let (_, tap, _source, fate) = new();
    for _ in 0..20_000 {
        tap.push(&Bytes::from_static(b"x"));
    }
    assert_eq!(fate.lost(), Some(Lost::TooSlow));
}

#[test]
fn an_original_that_is_given_up_breaks_the_copy_off() {
    let (budget, tap, mut source, fate) = new();
    tap.push(&Bytes::from_static(b"one"));
    drop(tap);
    assert_eq!(fate.lost(), Some(Lost::Cut));
    assert!(source.frame().now_or_never().unwrap().unwrap().is_err());
    assert!(is_free(&budget));
}

#[test]
fn nothing_is_kept_for_a_copy_that_nobody_reads() {
    let (budget, tap, source, fate) = new();
    tap.push(&Bytes::from_static(b"one"));
    drop(source);
    tap.push(&Bytes::from_static(b"two"));
    assert!(is_free(&budget));
    tap.end(None);
    assert_eq!(fate.lost(), None, "it had what it wanted");
}
