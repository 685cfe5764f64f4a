use super::*;

#[test]
fn jitter_stays_within_its_bounds() {
    let interval = Duration::from_secs(10);
    for _ in 0..1000 {
        let pause = jittered(interval);
        assert!(
            (Duration::from_secs(9)..Duration::from_secs(11)).contains(&pause),
            "{pause:?}"
        );
        assert!(random_below(FIRST_WITHIN) < FIRST_WITHIN);
    }
}
