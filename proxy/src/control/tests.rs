//! The control side against a control plane on a real socket.
#![allow(clippy::unwrap_used)]

mod drain;
mod lookups;
mod streams;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::testing::fake::{Fake, FakeStream, ID, PATIENCE};
use super::testing::{delta, endpoint, endpoints, host, mesh, service, shared};
use super::{Served, Settings};
use crate::config::{Readiness, Serve};
use crate::identity::Identity;
use crate::policy::{HostEntry, Snapshot};
use crate::shared::Shared;

/// A control side, running; ends when it is dropped.
struct Side {
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
    identity: watch::Sender<Option<Arc<Identity>>>,
}

impl Drop for Side {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn settings(fake: &Fake) -> Settings {
    Settings {
        control_plane: fake.address.to_string(),
        instance: "run-1".into(),
        inbound_listen: None,
        inbound_advertise: None,
        metrics_listen: "0.0.0.0:15020".parse().unwrap(),
        labels: [("version".to_owned(), "v1".to_owned())].into(),
        zone: "".into(),
        served: Vec::new(),
        called: Vec::new(),
        data_dir: None,
        dns_servers: Vec::new(),
        own_listeners: Vec::new(),
    }
}

fn serving(fake: &Fake, application: std::net::SocketAddr) -> Settings {
    let serve = Serve {
        namespace: None,
        service: "chat".into(),
        port: 80,
        application: application.into(),
        proxy_protocol: None,
        weight: 2,
        readiness: Readiness {
            path: None,
            interval: Duration::from_millis(50),
        },
    };
    Settings {
        inbound_listen: Some("0.0.0.0:15006".parse().unwrap()),
        served: vec![Served::new(&serve, "default")],
        ..settings(fake)
    }
}

fn start(fake: &Fake, settings: Settings) -> Side {
    let (shared, queue) = shared();
    let identity = Arc::new(fake.issuer.ca.identity(ID));
    let (sender, receiver) = watch::channel(Some(identity));
    let id = ID.parse().unwrap();
    let task = tokio::spawn(super::run(shared.clone(), settings, id, receiver, queue));
    Side {
        shared,
        task,
        identity: sender,
    }
}

fn with_data_dir(settings: Settings, dir: &Path) -> Settings {
    Settings {
        data_dir: Some(dir.to_owned()),
        ..settings
    }
}

/// Waits until the snapshot is as it should be.
async fn until(shared: &Shared, what: &str, is_so: impl Fn(&Snapshot) -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !is_so(&shared.snapshot.load()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("not so: {what}"));
}

fn has_host(snapshot: &Snapshot, authority: &str) -> bool {
    matches!(
        snapshot.hosts.get(authority),
        Some(HostEntry::Service { .. })
    )
}

/// Everything for the host `chat`.
fn chat(version: u64) -> outrigger_proto::dataplane::v1::Delta {
    delta(
        version,
        vec![
            mesh(1),
            host("chat", "default/chat", 1),
            service("default", "chat", 1),
            endpoints("default/chat", 1, vec![endpoint("10.0.0.1:80", "a")]),
        ],
    )
}

/// What a scraper sees of a metric without labels.
fn metric(shared: &Shared, name: &str) -> f64 {
    let text = shared.metrics.render(shared);
    let line = text
        .lines()
        .find(|line| line.starts_with(&format!("{name} ")));
    line.unwrap_or_else(|| panic!("no {name}"))
        .rsplit(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

async fn connected(shared: &Shared, wanted: bool) {
    let wanted = if wanted { 1.0 } else { 0.0 };
    let waited = tokio::time::timeout(PATIENCE, async {
        while metric(shared, "outrigger_control_plane_connected") != wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.expect("not (dis)connected in time");
}

/// Starts a control plane where one was killed.
async fn again(address: std::net::SocketAddr, issuer: Arc<super::testing::fake::Issuer>) -> Fake {
    loop {
        if std::net::TcpListener::bind(address).is_ok() {
            return Fake::start_at(address, issuer);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn stream(fake: &mut Fake) -> FakeStream {
    fake.stream().await
}
