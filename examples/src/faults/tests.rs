#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn pairs_and_json_say_the_same() {
    let pairs = Faults::from_pairs("die-after-tokens=5, die=exit,error_503_rate=0.5").unwrap();
    let json =
        Faults::from_json(br#"{"die_after_tokens": 5, "die": "exit", "error_503_rate": 0.5}"#)
            .unwrap();
    assert_eq!(pairs, json);
    assert_eq!((pairs.die_after_tokens, pairs.die), (Some(5), Die::Exit));
    assert_eq!(Faults::from_pairs("").unwrap(), Faults::default());
}

#[test]
fn what_is_wrong_is_said() {
    let message = |pairs| Faults::from_pairs(pairs).unwrap_err().to_string();
    assert!(message("stall_after=3").contains("unknown field `stall_after`, expected one of"));
    assert!(message("die=slowly").contains("unknown variant `slowly`"));
    assert_eq!(
        message("latency"),
        "\"latency\" is no fault; write key=value, with commas between several"
    );
    assert_eq!(
        message("error_429_rate=2"),
        "error_429_rate is 2; a rate is from 0 to 1"
    );
}

#[tokio::test(start_paused = true)]
async fn the_limit_counts_down_and_the_start_ends() {
    let board =
        FaultBoard::new(Faults::from_pairs("error_503_rate=1,limit=2,unready_ms=100").unwrap());
    assert_eq!(board.unready(), Some(Duration::from_millis(100)));
    tokio::time::advance(Duration::from_millis(40)).await;
    assert_eq!((board.get().unready_ms, board.get().limit), (60, Some(2)));
    tokio::time::advance(Duration::from_millis(60)).await;
    assert_eq!(board.unready(), None);
    let refusals: Vec<_> = (0..3).map(|_| board.judge().refuse).collect();
    assert_eq!(refusals, [Some(503), Some(503), None]);
    board.set(Faults::from_pairs("error_429_rate=1").unwrap());
    assert_eq!(board.judge().refuse, Some(429));
}
