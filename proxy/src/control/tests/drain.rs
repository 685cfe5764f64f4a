//! What is served: announced when it can be, and withdrawn in order.
#![allow(clippy::unwrap_used)]

use outrigger_proto::dataplane::v1 as wire;
use wire::EndpointState::{Draining, NotReady, Ready};
use wire::discover_response::Message as Down;
use wire::resource::Body;

use super::*;
use crate::drain::Phase;

fn workload() -> wire::Resource {
    wire::Resource {
        name: "workload".into(),
        version: 1,
        body: Some(Body::Workload(wire::Workload {
            ports: vec![wire::InboundPort {
                service: "default/chat".into(),
                port: 80,
                ..Default::default()
            }],
        })),
    }
}

fn accepted() -> Down {
    Down::AnnounceResult(wire::AnnounceResult::default())
}

#[tokio::test]
async fn an_endpoint_is_ready_when_application_and_inbound_side_are() {
    let mut fake = Fake::start();
    let application = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = application.local_addr().unwrap();
    let side = start(&fake, serving(&fake, address));
    let mut stream = stream(&mut fake).await;
    let announced = stream.announce().await;
    assert_eq!(announced.len(), 1);
    let first = &announced[0];
    assert_eq!(
        (first.service.as_str(), first.port, first.weight),
        ("default/chat", 80, 2)
    );
    assert_eq!(first.state(), NotReady);
    // The application listens, but nobody said yet what to do with requests.
    tokio::time::sleep(Duration::from_millis(200)).await;
    stream.delta(delta(1, vec![mesh(1), workload()])).await;
    assert_eq!(stream.announce().await[0].state(), Ready);
    assert_eq!(side.shared.snapshot.load().inbound.len(), 1);

    drop(application);
    assert_eq!(stream.announce().await[0].state(), NotReady);
    let _application = std::net::TcpListener::bind(address).unwrap();
    assert_eq!(stream.announce().await[0].state(), Ready);
}

#[tokio::test]
async fn announcements_are_made_again_on_the_next_stream() {
    let mut fake = Fake::start();
    let application = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let _side = start(&fake, serving(&fake, application.local_addr().unwrap()));
    let mut first = stream(&mut fake).await;
    first.announce().await;
    first.delta(delta(1, vec![workload()])).await;
    assert_eq!(first.announce().await[0].state(), Ready);
    first.fail(tonic::Status::unavailable("restarting")).await;
    let mut second = stream(&mut fake).await;
    assert_eq!(second.announce().await[0].state(), Ready);
}

#[tokio::test]
async fn a_drain_is_announced_before_listeners_close() {
    let mut fake = Fake::start();
    let application = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let side = start(&fake, serving(&fake, application.local_addr().unwrap()));
    let mut stream = stream(&mut fake).await;
    stream.announce().await;
    stream.send(accepted()).await;
    side.shared.drain.start();
    assert_eq!(stream.announce().await[0].state(), Draining);
    assert_eq!(side.shared.drain.phase(), Phase::Announcing);
    assert_eq!(side.shared.ready(), Err("draining"));
    stream.send(accepted()).await;
    tokio::time::timeout(PATIENCE, side.shared.drain.signaled())
        .await
        .expect("the drain did not go on");
}

#[tokio::test]
async fn who_serves_nothing_has_nothing_to_announce() {
    let mut fake = Fake::start();
    let side = start(&fake, settings(&fake));
    let _stream = stream(&mut fake).await;
    connected(&side.shared, true).await;
    side.shared.drain.start();
    tokio::time::timeout(Duration::from_millis(500), side.shared.drain.signaled())
        .await
        .expect("the drain waited for nothing");
}

#[tokio::test]
async fn a_drain_does_not_wait_for_a_control_plane_that_is_away() {
    let fake = Fake::start();
    let gone = Settings {
        control_plane: "127.0.0.1:1".into(),
        ..serving(&fake, "127.0.0.1:1".parse().unwrap())
    };
    let side = start(&fake, gone);
    tokio::time::sleep(Duration::from_millis(50)).await;
    side.shared.drain.start();
    tokio::time::timeout(Duration::from_millis(500), side.shared.drain.signaled())
        .await
        .expect("the drain waited for nobody");
}
