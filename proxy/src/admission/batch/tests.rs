use super::*;
use crate::inference::Engine;

const LEARN: BatchLimit = BatchLimit {
    size: None,
    head_room: 10,
    start: 256,
    max: 1024,
};

fn figures(running: u32, waiting: u32) -> Figures {
    Figures {
        engine: Engine::Vllm,
        waiting: Some(waiting),
        running: Some(running),
        kv_usage: None,
    }
}

fn size_after(looks: &[(u32, u32)]) -> (u32, Source) {
    let batch = Batch::default();
    for (running, waiting) in looks {
        batch.seen(&figures(*running, *waiting));
    }
    batch.size(&LEARN)
}

#[test]
fn the_engine_always_has_one_waiting() {
    let batch = Batch::default();
    for (size, limit) in [(1, 2), (4, 5), (10, 11), (11, 13), (32, 36), (256, 282)] {
        let declared = BatchLimit {
            size: Some(size),
            ..LEARN
        };
        assert_eq!(batch.limit(&declared), limit, "{size}");
    }
}

#[test]
fn what_runs_while_others_wait_is_the_batch() {
    assert_eq!(size_after(&[]), (256, Source::Start));
    // It could take more than that.
    assert_eq!(size_after(&[(30, 0), (31, 0)]), (256, Source::Start));
    // One that has just come waits for the next step.
    assert_eq!(size_after(&[(3, 1)]), (256, Source::Start));
    assert_eq!(size_after(&[(3, 1), (4, 0), (3, 1)]), (256, Source::Start));
    assert_eq!(size_after(&[(32, 5), (32, 7)]), (32, Source::Learnt));
    assert_eq!(size_after(&[(31, 1), (32, 4)]), (32, Source::Learnt));
    // It shows more, and has its room in use by fewer.
    assert_eq!(size_after(&[(8, 1), (8, 1), (9, 0)]), (9, Source::Learnt));
    let mut looks = vec![(32, 1), (32, 1)];
    looks.extend([(16, 3); 2]);
    let (size, _) = size_after(&looks);
    assert!((29..32).contains(&size), "{size}");
    looks.extend([(16, 3); 40]);
    assert_eq!(size_after(&looks), (16, Source::Learnt));
    // Nothing is never a batch.
    assert_eq!(size_after(&[(0, 5), (0, 5)]), (256, Source::Start));
    assert_eq!(size_after(&[(5000, 5), (5000, 5)]), (1024, Source::Learnt));
}

#[test]
fn a_batch_that_was_taken_for_too_small_grows_by_itself() {
    let batch = Batch::default();
    batch.seen(&figures(2, 1));
    batch.seen(&figures(2, 1));
    // The engine could run 64, and gets as many as the limit lets through.
    let mut looks = 0;
    while batch.size(&LEARN).0 < 64 {
        let running = batch.limit(&LEARN).min(64);
        batch.seen(&figures(running, 0));
        looks += 1;
    }
    assert!(looks <= 32, "{looks}");
}

#[test]
fn what_the_engine_says_counts_at_once() {
    let batch = Batch::default();
    batch.told(4);
    assert_eq!(batch.size(&LEARN), (4, Source::Told));
    batch.seen(&figures(2, 1));
    batch.seen(&figures(2, 1));
    assert_eq!(batch.size(&LEARN), (4, Source::Told));
    batch.seen(&figures(6, 1));
    assert_eq!(batch.size(&LEARN), (6, Source::Learnt));
    let declared = BatchLimit {
        size: Some(8),
        ..LEARN
    };
    assert_eq!(batch.size(&declared), (8, Source::Declared));
}

#[test]
fn the_wait_is_that_of_the_places_that_get_free() {
    const SECOND: u64 = 1_000_000_000;
    let batch = Batch::default();
    batch.moved(SECOND);
    assert_eq!(batch.wait(SECOND, 10, 4), None);
    for _ in 0..400 {
        batch.ended(2 * SECOND, 4);
    }
    // Two places a second.
    assert_eq!(batch.wait(SECOND, 0, 4), Some(SECOND / 2));
    assert_eq!(batch.wait(SECOND, 9, 4), Some(5 * SECOND));
    // Nothing has ended for longer than usual.
    assert_eq!(batch.wait(9 * SECOND, 9, 4), Some(20 * SECOND));
    batch.moved(9 * SECOND);
    assert_eq!(batch.wait(9 * SECOND, 9, 4), Some(5 * SECOND));
    for _ in 0..400 {
        batch.ended(4 * SECOND, 4);
    }
    let wait = batch.wait(9 * SECOND, 9, 4).unwrap_or_default();
    assert!((9 * SECOND..=10 * SECOND).contains(&wait), "{wait}");
    // All were let in at once, and have ended one after the other.
    let batch = Batch::default();
    for number in 1..=64 {
        batch.ended(u64::from(number) * SECOND, number);
    }
    assert_eq!(batch.turn(), Some(Duration::from_secs(1)));
    // Bounded, whatever comes.
    assert!(batch.wait(u64::MAX, u64::MAX, 0).is_some());
}
