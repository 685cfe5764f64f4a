use proptest::prelude::*;

use super::{Finish, Observer, Seen, StreamOutcome, fuzz};
use crate::inference::api::Api;

fn seen(stream: &str) -> Seen {
    let mut observer = Observer::new(Api::Chat);
    observer.feed(stream.as_bytes());
    observer.seen
}

const ROLE: &str = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n";
const TOKEN: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
const STOP: &str = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const ABORT: &str = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"abort\"}]}\n\n";
const ERROR: &str = "data: {\"error\":{\"message\":\"x\"}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

#[test]
fn a_stream_is_what_it_says_at_its_end() {
    use StreamOutcome::{Complete, Empty, Error, Truncated};
    for (parts, outcome) in [
        (&[ROLE, TOKEN, STOP, DONE][..], Complete),
        (&[ROLE, TOKEN, DONE], Complete),
        // All of the answer is there.
        (&[ROLE, TOKEN, STOP], Complete),
        (&[ROLE, STOP, DONE], Complete),
        (&[ROLE, TOKEN], Truncated),
        (&[ROLE, TOKEN, "data: {\"choi"], Truncated),
        (&[ROLE], Empty),
        (&[], Empty),
        (&[DONE], Empty),
        (&[ERROR, DONE], Error),
        (&[ROLE, TOKEN, ERROR], Error),
        (&[ROLE, TOKEN, ABORT, DONE], Error),
        (&["error: {\"code\":500}\n\n"], Error),
    ] {
        let seen = seen(&parts.concat());
        assert_eq!(seen.outcome(Api::Chat), outcome, "{parts:?}");
    }
    // These have no end of their own.
    assert_eq!(seen(TOKEN).outcome(Api::Kserve), Complete);
}

#[test]
fn data_in_several_lines_is_one_text() {
    let seen = seen(
        "data: {\"choices\":\ndata: [{\"delta\":{\"content\":\"a\"},\ndata: \"finish_reason\":\"stop\"}]}\n\n",
    );
    assert_eq!(
        (seen.tokens, seen.finish, seen.unreadable),
        (1, Some(Finish::Stop), 0)
    );
}

#[test]
fn what_cannot_be_read_is_counted() {
    let seen = seen("data: hello\n\ndata: {\"choices\":[1]}\n\n");
    assert_eq!((seen.unreadable, seen.tokens), (2, 0));
}

proptest! {
    #[test]
    fn does_not_depend_on_how_it_is_cut(
        parts in prop::collection::vec(prop::sample::select(vec![
            ROLE, TOKEN, STOP, ERROR, DONE, ": x\n\n", "data: {\"usage\":null,\"choices\":[]}\r\n\r\n",
            "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1}}\n\n", "data: a\ndata: b\n\n", "\n", "\r", "{", "\"",
            "event: message_stop\ndata: {}\n\n", "event: response.failed\n",
        ]), 0..12),
        cut in any::<u8>(),
    ) {
        let mut bytes = vec![cut];
        bytes.extend_from_slice(parts.concat().as_bytes());
        fuzz(&bytes);
    }
}
