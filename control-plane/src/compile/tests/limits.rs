use super::*;
use wire::server_limits::Concurrency;

fn inbound(bench: &Bench, name: &str) -> Vec<wire::InboundPort> {
    let state = bench.compiler.current();
    state.service(name).unwrap().compiled.inbound.clone()
}

#[test]
fn limits_go_to_the_side_that_they_are_for() {
    let mut bench = bench();
    bench.put(&service(
        "chat",
        "{ports: [{port: 80, protocol: http}, {port: 81, protocol: tcp}], limits: {requests: 7, endpoint: {requests: 2}, \
         throttling: {}, adaptive: {maxLimit: 10}, queue: {}, priorities: {header: X-Tier}}}",
    ));
    let callers = bench.service("default/chat").limits.unwrap();
    assert_eq!(
        (
            callers.requests,
            callers.endpoint_requests,
            callers.connections
        ),
        (Some(7), Some(2), None)
    );
    assert_eq!(callers.throttling.unwrap().ratio_percent, 200);
    let ports = inbound(&bench, "default/chat");
    let servers = ports[0].limits.clone().unwrap();
    match servers.concurrency {
        // The default minimum, 20, gives way.
        Some(Concurrency::Adaptive(adaptive)) => {
            assert_eq!((adaptive.min_limit, adaptive.max_limit), (10, 10));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(servers.queue.unwrap().max_length, 100);
    assert_eq!(servers.priorities.unwrap().header, "x-tier");
    assert_eq!(ports[1].limits, None, "TCP has no requests");

    // Nothing that concerns the other side is sent to it.
    bench.put(&service(
        "chat",
        "{ports: [{port: 80, protocol: http}], limits: {concurrency: 3}}",
    ));
    assert_eq!(bench.service("default/chat").limits, None);
    let limits = inbound(&bench, "default/chat")[0].limits.clone().unwrap();
    assert_eq!(limits.concurrency, Some(Concurrency::Fixed(3)));
    assert_eq!(limits.queue, None);
}

#[test]
fn a_limit_by_batch_has_a_queue_of_its_own_defaults() {
    let mut bench = bench();
    let batch = |bench: &mut Bench, limits: &str| {
        let spec =
            format!("{{ports: [{{port: 80, protocol: http}}], inference: {{}}, limits: {limits}}}");
        bench.put(&service("chat", &spec));
        let limits = inbound(bench, "default/chat")[0].limits.clone().unwrap();
        match limits.concurrency {
            Some(Concurrency::Batch(batch)) => (batch, limits.queue.unwrap()),
            other => panic!("{other:?}"),
        }
    };
    let (declared, queue) = batch(&mut bench, "{batch: {size: 32}}");
    assert_eq!((declared.size, declared.head_room_percent), (32, 10));
    assert_eq!(
        (queue.max_length, queue.max_wait.unwrap().seconds),
        (1000, 5)
    );
    assert_eq!((queue.target, queue.interval), (None, None));
    let limits = "{batch: {learn: {max: 100}, headRoomPercent: 25}, queue: {maxWait: 9s}}";
    let (learnt, queue) = batch(&mut bench, limits);
    // The default start gives way.
    assert_eq!((learnt.size, learnt.start, learnt.max), (0, 100, 100));
    assert_eq!(learnt.head_room_percent, 25);
    assert_eq!(
        (queue.max_length, queue.max_wait.unwrap().seconds),
        (1000, 9)
    );
}

#[test]
fn a_rate_limit_follows_its_services() {
    let rate_limit = |name: &str, spec: &str| of_kind("RateLimit", name, spec);
    let mut bench = bench();
    bench.put(&service("chat", HTTP));
    bench.put(&service("embed", HTTP));
    bench.put(&rate_limit(
        "b",
        "{targetRefs: [{name: chat}], report: always, limits: [{name: all, requests: 5, per: 1m}]}",
    ));
    let changed = bench
        .put(&rate_limit(
            "a",
            "{targetRefs: [{name: chat}, {name: gone}], limits: [{name: each, requests: 9, per: 1s, burst: 2, \
             key: [identity, 'header:X-Tenant'], matches: [{method: POST}, {path: {value: /v1}}]}, \
             {name: any, requests: 1, per: 1h, matches: [{method: POST}, {}]}]}",
        ))
        .unwrap();
    assert_eq!(*changed.changed.services, ["default/chat".into()]);
    let limits = inbound(&bench, "default/chat")[0].rate_limits.clone();
    let names: Vec<_> = limits
        .iter()
        .map(|limit| format!("{} {} {}", limit.policy, limit.name, limit.burst))
        .collect();
    assert_eq!(
        names,
        ["default/a each 2", "default/a any 1", "default/b all 5"]
    );
    assert_eq!(limits[0].matches.len(), 2);
    assert_eq!(limits[0].key[1].header, "x-tenant");
    // One of its matches is everything.
    assert_eq!(limits[1].matches, []);
    assert_eq!(
        limits.iter().map(|l| l.always_report).collect::<Vec<_>>(),
        [false, false, true]
    );
    assert_eq!(inbound(&bench, "default/embed")[0].rate_limits, []);

    // The target moves.
    bench.put(&rate_limit(
        "a",
        "{targetRefs: [{name: embed}], limits: [{name: each, requests: 9, per: 1s}]}",
    ));
    assert_eq!(inbound(&bench, "default/chat")[0].rate_limits.len(), 1);
    assert_eq!(inbound(&bench, "default/embed")[0].rate_limits.len(), 1);
    bench.delete(ResourceKey::rate_limit("default", "a"));
    assert_eq!(inbound(&bench, "default/embed")[0].rate_limits, []);
    bench.compiler.replace_all(&[]);
    bench.compiler.compile();
    bench.put(&service("chat", HTTP));
    assert_eq!(inbound(&bench, "default/chat")[0].rate_limits, []);
}
