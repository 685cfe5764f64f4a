#![allow(clippy::unwrap_used)]

use outrigger_proto::dataplane::v1 as wire;
use wire::discover_response::Message;
use wire::resource::Body;

use super::*;

#[test]
fn a_delta_reads_back_as_the_generated_message() {
    let resources: Vec<Arc<Shared>> = (1..4)
        .map(|port| {
            let host = wire::Host {
                service: "default/chat".to_owned(),
                port,
            };
            Arc::new(Shared::new(format!("host/chat:{port}"), Body::Host(host)))
        })
        .collect();
    let delta = Delta {
        nonce: "17".to_owned(),
        version: u64::MAX,
        resources: resources.clone(),
        removed: vec!["host/a".into(), "".into()],
    };
    let mut bytes = Vec::new();
    delta.encode(&mut bytes);
    let read = DiscoverResponse::decode(bytes.as_slice()).unwrap();
    let Some(Message::Delta(read)) = read.message else {
        panic!("{read:?} is no delta");
    };
    assert_eq!(read.nonce, "17");
    assert_eq!(read.version, u64::MAX);
    assert_eq!(read.removed, ["host/a", ""]);
    let expected: Vec<wire::Resource> = resources.iter().map(|it| it.decode()).collect();
    assert_eq!(read.resources, expected);
    assert_eq!(read.resources[2].version, resources[2].version);
}

#[test]
fn an_empty_delta_is_a_delta() {
    let mut bytes = Vec::new();
    Delta::default().encode(&mut bytes);
    let read = DiscoverResponse::decode(bytes.as_slice()).unwrap();
    assert_eq!(read.message, Some(Message::Delta(wire::Delta::default())));
}
