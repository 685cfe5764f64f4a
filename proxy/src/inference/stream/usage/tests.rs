use bytes::Bytes;

use super::UsageFilter;
use crate::inference::api::Api;
use crate::inference::stream::Observer;

fn filtered(stream: &str, size: usize) -> String {
    let mut observer = Observer::new(Api::Chat);
    let mut filter = UsageFilter::default();
    let mut out = Vec::new();
    for piece in stream.as_bytes().chunks(size) {
        out.extend_from_slice(&filter.pass(Bytes::copy_from_slice(piece), &mut observer));
    }
    out.extend_from_slice(&filter.rest());
    String::from_utf8_lossy(&out).into_owned()
}

#[test]
fn only_what_was_not_asked_for_is_taken_out() {
    let stream = concat!(
        ": hello\n\n",
        "data: {\"id\":\"a\", \"choices\":[{\"delta\":{\"content\":\"x\"}}] , \"usage\" : null}\n\n",
        "data: {\"usage\":null,\"choices\":[{\"delta\":{\"content\":\"{\\\"usage\\\":null}\"}}]}\r\n\r\n",
        "data: {\"usage\":null}\n\n",
        "data: {\"id\":\"a\",\"choices\":[],\"usage\":{\"completion_tokens\":2}}\n\n",
        "data: [DONE]\n\n",
        "data: cut",
    );
    let expected = concat!(
        ": hello\n\n",
        "data: {\"id\":\"a\", \"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"{\\\"usage\\\":null}\"}}]}\r\n\r\n",
        "data: {}\n\n",
        "data: [DONE]\n\n",
        "data: cut",
    );
    for size in 1..=stream.len() {
        assert_eq!(filtered(stream, size), expected, "{size}");
    }
}
