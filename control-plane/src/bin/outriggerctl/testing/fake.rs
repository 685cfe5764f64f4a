//! A control plane in memory: the three services of the management API on a TLS listener.

mod services;
mod tls;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use outrigger_control_plane::client::{Context, fingerprint};
use outrigger_proto::api::v1::mesh_service_server::MeshServiceServer;
use outrigger_proto::api::v1::resource_service_server::ResourceServiceServer;
use outrigger_proto::api::v1::token_service_server::TokenServiceServer;
use outrigger_proto::api::v1::{
    ControlPlaneStatus, Problem, Resource, Sidecar, TokenInfo, WatchEvent,
};
use tonic::transport::Server;

use super::{Ran, Runner};

/// What the fake control plane holds; tests write it.
#[derive(Debug, Default)]
pub struct State {
    pub resources: Vec<Resource>,
    pub sidecars: Vec<Sidecar>,
    pub status: ControlPlaneStatus,
    pub tokens: Vec<TokenInfo>,
    /// Applying is refused with these.
    pub problems: Vec<Problem>,
    /// Each applied resource gets these.
    pub warnings: Vec<String>,
    /// What a watch sends after the resources that are there; then it ends.
    pub events: Vec<WatchEvent>,
    /// How often the sidecars were asked for; from the third time on all of them are in sync.
    pub asked: u32,
    /// Conflict instead of an answer to apply and delete.
    pub conflict: bool,
    /// Whether the last write was a dry run.
    pub dry_run: bool,
}

/// A running fake; it stops when this is dropped.
pub struct Fake {
    state: Arc<Mutex<State>>,
    dir: tempfile::TempDir,
    pub address: String,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Fake {
    pub fn start(state: State) -> Self {
        let authority = tls::Authority::new();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let dir = tempfile::tempdir().unwrap();
        let root = authority.root();
        let context = Context {
            server: address.clone(),
            ca_fingerprint: fingerprint(&root),
            ca_certificate: authority.root_pem(),
            token: services::TOKEN.to_owned(),
            trust_domain: None,
        };
        std::fs::write(
            dir.path().join("admin.yaml"),
            serde_yaml::to_string(&context).unwrap(),
        )
        .unwrap();
        let state = Arc::new(Mutex::new(state));
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let api = services::Api(Arc::clone(&state));
        // A thread and a runtime of its own: the program under test brings its own runtime as well.
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let incoming =
                    authority.incoming(tokio::net::TcpListener::from_std(listener).unwrap());
                let serving = Server::builder()
                    .add_service(ResourceServiceServer::with_interceptor(
                        api.clone(),
                        services::authorize,
                    ))
                    .add_service(MeshServiceServer::with_interceptor(
                        api.clone(),
                        services::authorize,
                    ))
                    .add_service(TokenServiceServer::with_interceptor(
                        api,
                        services::authorize,
                    ))
                    .serve_with_incoming(incoming);
                // Dropping it cuts connections; nobody is left who could mind.
                tokio::select! {
                    result = serving => result.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        Self {
            state,
            dir,
            address,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn context(&self) -> PathBuf {
        self.dir.path().join("admin.yaml")
    }

    /// Runs `outriggerctl` against this control plane.
    pub fn ctl(&self, words: &[&str]) -> Ran {
        self.run(&Runner::default(), words)
    }

    /// Runs `outriggerctl` against this control plane. Its address and directory, which are others each time, are
    /// replaced in the output.
    pub fn run(&self, runner: &Runner, words: &[&str]) -> Ran {
        let context = self.context();
        let mut all = vec!["--context", context.to_str().unwrap()];
        all.extend_from_slice(words);
        let mut ran = runner.run(&all);
        for text in [&mut ran.out, &mut ran.err] {
            *text = text
                .replace(&self.address, "127.0.0.1:15011")
                .replace(self.dir.path().to_str().unwrap(), "/data");
        }
        ran
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the server has been printed; panicking while dropping would hide the test's own.
            let _ = thread.join();
        }
    }
}
