#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use outrigger_proto::api::v1 as api;
use outrigger_proto::api::v1::ApplyOutcome;
use outrigger_proto::api::v1::resource_service_client::ResourceServiceClient;
use outrigger_proto::api::v1::watch_event::Type;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Status};

use super::{ResourceApi, StatusSource};
use crate::api::{convert, problems};
use crate::model::{Kind, Resource, ResourceKey, WorkloadSpec};
use crate::store::{RedbStore, Store};

/// Says something about services only.
#[derive(Debug)]
struct Services;

impl StatusSource for Services {
    fn status(&self, key: &ResourceKey) -> Option<Value> {
        (key.kind == Kind::Service).then(|| json!({"acceptedBy": 2}))
    }
}

struct Setup {
    client: ResourceServiceClient<Channel>,
    store: Arc<RedbStore>,
    shutdown: CancellationToken,
    _directory: TempDir,
}

/// A server on loopback and a client with its defaults.
async fn setup() -> Setup {
    let directory = tempfile::tempdir().unwrap();
    let store =
        Arc::new(RedbStore::open(&directory.path().join("store.redb"), "outrigger.local").unwrap());
    let shutdown = CancellationToken::new();
    let service = ResourceApi::new(store.clone(), Arc::new(Services), shutdown.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder().add_service(service.into_server());
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    // The smallest window, so that a reader who stops stops the sender soon.
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .initial_stream_window_size(65_535);
    let client = ResourceServiceClient::new(endpoint.connect().await.unwrap());
    Setup {
        client,
        store,
        shutdown,
        _directory: directory,
    }
}

fn message(kind: &str, name: &str, spec: Value) -> api::Resource {
    api::Resource {
        api_version: "outrigger.dev/v1alpha1".into(),
        kind: kind.into(),
        metadata: Some(api::ObjectMeta {
            name: name.into(),
            ..api::ObjectMeta::default()
        }),
        spec: convert::to_struct(&spec),
        status: None,
    }
}

fn service(name: &str, port: u16) -> api::Resource {
    message(
        "Service",
        name,
        json!({"ports": [{"port": port, "protocol": "http"}], "hosts": [format!("{name}.models")]}),
    )
}

fn reference(kind: &str, name: &str) -> Option<api::ResourceRef> {
    Some(api::ResourceRef {
        kind: kind.into(),
        name: name.into(),
        ..api::ResourceRef::default()
    })
}

impl Setup {
    async fn apply(
        &mut self,
        resources: Vec<api::Resource>,
        dry_run: bool,
    ) -> Result<Vec<api::ApplyResult>, Status> {
        let request = api::ApplyRequest { resources, dry_run };
        Ok(self.client.apply(request).await?.into_inner().results)
    }

    async fn get(&mut self, kind: &str, name: &str) -> Result<api::Resource, Status> {
        Ok(self
            .client
            .get(api::GetRequest {
                r#ref: reference(kind, name),
            })
            .await?
            .into_inner())
    }

    async fn delete(&mut self, kind: &str, name: &str, version: &str) -> Result<(), Status> {
        let resource_version = version.to_owned();
        let request = api::DeleteRequest {
            r#ref: reference(kind, name),
            resource_version,
            dry_run: false,
        };
        self.client.delete(request).await.map(|_| ())
    }
}

#[tokio::test]
async fn applies_gets_lists_and_deletes() {
    let mut setup = setup().await;
    let route = message(
        "Route",
        "r",
        json!({"parentRefs": [{"name": "nope"}], "rules": [{}]}),
    );
    let resources = vec![service("a", 80), route];
    let dry = setup.apply(resources.clone(), true).await.unwrap();
    assert_eq!(
        setup.get("Service", "a").await.unwrap_err().code(),
        Code::NotFound
    );
    let results = setup.apply(resources, false).await.unwrap();
    for results in [&dry, &results] {
        assert!(
            results
                .iter()
                .all(|result| result.outcome() == ApplyOutcome::Created)
        );
        assert!(results[0].warnings.is_empty());
        assert!(
            results[1].warnings[0].contains("there is no service/default/nope"),
            "{:?}",
            results[1].warnings
        );
    }
    let stored = setup.get("Service", "a").await.unwrap();
    assert_eq!(Some(&stored), results[0].resource.as_ref());
    let metadata = stored.metadata.unwrap();
    assert_eq!(
        (metadata.namespace.as_str(), metadata.generation),
        ("default", 1)
    );
    assert_eq!(
        convert::from_struct(&stored.status.unwrap()),
        json!({"acceptedBy": 2})
    );
    assert!(setup.get("Route", "r").await.unwrap().status.is_none());

    let again = setup
        .apply(vec![service("a", 80), service("b", 80)], false)
        .await
        .unwrap();
    assert_eq!(again[0].outcome(), ApplyOutcome::Unchanged);
    let changed = setup.apply(vec![service("a", 81)], false).await.unwrap();
    assert_eq!(changed[0].outcome(), ApplyOutcome::Configured);

    let list = |kind: &str, namespace: &str| {
        let request = api::ListRequest {
            kind: kind.into(),
            namespace: namespace.into(),
            labels: [].into(),
        };
        let mut client = setup.client.clone();
        async move {
            let resources = client.list(request).await.unwrap().into_inner().resources;
            resources
                .into_iter()
                .map(|resource| resource.metadata.unwrap().name)
                .collect::<Vec<_>>()
        }
    };
    assert_eq!(list("Service", "").await, ["a", "b"]);
    assert_eq!(list("", "default").await, ["a", "b", "r"]);
    assert!(list("", "other").await.is_empty());

    assert_eq!(
        setup
            .delete("Service", "a", &metadata.resource_version)
            .await
            .unwrap_err()
            .code(),
        Code::Aborted
    );
    setup.delete("Service", "a", "").await.unwrap();
    let error = setup.delete("Service", "a", "").await.unwrap_err();
    assert_eq!(
        (error.code(), error.message()),
        (Code::NotFound, "there is no service/default/a")
    );
}

#[tokio::test]
async fn tells_all_problems_at_once() {
    let mut setup = setup().await;
    setup.apply(vec![service("a", 80)], false).await.unwrap();
    let bad = message(
        "Service",
        "b",
        json!({"port": 80, "ports": [{"port": 0.5, "protocol": "http"}]}),
    );
    let mut thief = service("c", 80);
    thief.spec = service("a", 80).spec;
    let mut foreign = service("d", 80);
    foreign.api_version = String::new();
    let error = setup
        .apply(vec![service("e", 80), bad, thief, foreign], false)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert_eq!(
        error.message(),
        "Service/default/b: spec.ports[0].port: expected a whole number from 1 to 65535, found the number 0.5 (and 3 more problems)"
    );
    let found: Vec<_> = problems::of_status(&error)
        .into_iter()
        .map(|problem| (problem.index, problem.resource.unwrap().name, problem.field))
        .collect();
    let expected = [
        (1, "b", "spec.ports[0].port"),
        (1, "b", "spec.port"),
        (2, "c", "spec.hosts[0]"),
        (3, "d", "apiVersion"),
    ];
    let expected = expected.map(|(index, name, field)| (index, name.to_owned(), field.to_owned()));
    assert_eq!(found, expected);
    assert_eq!(
        setup.get("Service", "e").await.unwrap_err().code(),
        Code::NotFound,
        "all or nothing"
    );
}

/// More than a client takes in its trailers would end the call without any of them.
#[tokio::test]
async fn many_problems_still_arrive() {
    let mut setup = setup().await;
    let bad = |index: usize| {
        message(
            "Service",
            &format!("s{index}"),
            json!({"ports": [], "x".repeat(3000): "ü".repeat(500)}),
        )
    };
    let error = setup
        .apply((0..500).map(bad).collect(), false)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    let problems = problems::of_status(&error);
    assert!(problems.len() > 2, "{}", problems.len());
    let left = format!(
        "{} more problems do not fit into this answer",
        1000 - (problems.len() - 1)
    );
    assert_eq!(problems.last().unwrap().message, left);
}

#[tokio::test]
async fn refuses_with_the_right_code() {
    let mut setup = setup().await;
    let workload = Resource::new(
        "default",
        "w",
        WorkloadSpec {
            instance: "i".into(),
            identity: "x".into(),
            ..WorkloadSpec::default()
        },
    );
    setup.store.put_workload(workload).unwrap();
    assert!(setup.get("Workload", "w").await.is_ok());
    assert_eq!(
        setup.delete("Workload", "w", "").await.unwrap_err().code(),
        Code::FailedPrecondition
    );
    let error = setup
        .apply(vec![message("Workload", "w", json!({}))], false)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert_eq!(problems::of_status(&error)[0].field, "kind");
    let error = setup.get("service", "a").await.unwrap_err();
    assert_eq!(
        (error.code(), error.message()),
        (
            Code::InvalidArgument,
            "ref.kind: unknown kind \"service\"; known are Mesh, Service, Route, RateLimit and Workload"
        )
    );
    assert_eq!(
        setup.get("Service", "").await.unwrap_err().code(),
        Code::InvalidArgument
    );
    let missing = setup
        .client
        .get(api::GetRequest { r#ref: None })
        .await
        .unwrap_err();
    assert_eq!(missing.code(), Code::InvalidArgument);

    let stored = setup.apply(vec![service("a", 80)], false).await.unwrap();
    let mut stale = service("a", 81);
    stale.metadata = stored[0].resource.clone().unwrap().metadata;
    assert!(setup.apply(vec![stale.clone()], false).await.is_ok());
    let error = setup.apply(vec![stale], false).await.unwrap_err();
    assert_eq!(error.code(), Code::Aborted);
    assert!(
        error.message().starts_with("service/default/a has changed"),
        "{error}"
    );
}

#[tokio::test]
async fn watches_what_there_is_and_what_changes() {
    let mut setup = setup().await;
    setup
        .apply(
            vec![service("a", 80), message("Mesh", "default", json!({}))],
            false,
        )
        .await
        .unwrap();
    let request = api::WatchRequest {
        kind: "Service".into(),
        namespace: String::new(),
    };
    let mut events = setup.client.watch(request).await.unwrap().into_inner();
    setup
        .apply(vec![service("a", 81), service("b", 80)], false)
        .await
        .unwrap();
    setup.delete("Service", "b", "").await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..5 {
        let event = events.message().await.unwrap().unwrap();
        let name = event
            .resource
            .as_ref()
            .map(|resource| resource.metadata.as_ref().unwrap().name.clone());
        seen.push((event.r#type(), name.unwrap_or_default()));
    }
    let expected = [
        (Type::Added, "a"),
        (Type::Synced, ""),
        (Type::Modified, "a"),
        (Type::Added, "b"),
        (Type::Deleted, "b"),
    ];
    assert_eq!(seen, expected.map(|(kind, name)| (kind, name.to_owned())));
    setup.shutdown.cancel();
    assert_eq!(
        events.message().await.unwrap_err().code(),
        Code::Unavailable
    );
}

#[tokio::test]
async fn a_slow_watcher_is_ended() {
    let mut setup = setup().await;
    let request = api::WatchRequest {
        kind: "Workload".into(),
        namespace: String::new(),
    };
    let mut events = setup.client.watch(request).await.unwrap().into_inner();
    assert_eq!(
        events.message().await.unwrap().unwrap().r#type(),
        Type::Synced
    );
    // More than fits into the connection's windows and the store's backlog, with nobody reading.
    let store = setup.store.clone();
    let writer = tokio::task::spawn_blocking(move || {
        for number in 0..12_000 {
            let labels = [
                ("filler".to_owned(), "x".repeat(60)),
                ("number".to_owned(), number.to_string()),
            ]
            .into();
            let spec = WorkloadSpec {
                instance: "i".into(),
                identity: "x".into(),
                labels,
                ..WorkloadSpec::default()
            };
            store
                .put_workload(Resource::new("default", "w", spec))
                .unwrap();
        }
    });
    writer.await.unwrap();
    let end = async {
        loop {
            match events.message().await {
                Ok(event) => assert!(event.is_some(), "it ended without saying why"),
                Err(status) => return status,
            }
        }
    };
    let status = tokio::time::timeout(Duration::from_secs(30), end)
        .await
        .unwrap();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("too slow"), "{status}");
}
