//! The task that keeps the compiled state up to date and tells the streams.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::{Change, Compiled, Compiler, SessionSecret};
use crate::ca::files;
use crate::discovery::Registry;
use crate::store::{ChangeKind, ChangeSet, Changes, FeedError, Store};

/// Changes that come closer together are compiled together. The first one after a pause is compiled at once, so that a
/// single `apply` is in effect within milliseconds and a thousand starting sidecars cost 200 rounds a second.
const GAP: Duration = Duration::from_millis(5);

/// Follows the store and the registry. The receiver has the newest state at any time.
#[derive(Debug)]
pub struct Run {
    store: Arc<dyn Store>,
    compiler: Compiler,
    changes: Changes,
    endpoints: mpsc::UnboundedReceiver<Arc<str>>,
    versions: Versions,
    publish: watch::Sender<Arc<Compiled>>,
}

impl Run {
    /// Compiles what there is. Announcements that the registry has by now are in.
    ///
    /// # Errors
    /// The file with the reserved versions cannot be read or written.
    pub fn new(
        trust_domain: &str,
        session_secret: SessionSecret,
        store: Arc<dyn Store>,
        registry: Arc<Registry>,
        endpoints: mpsc::UnboundedReceiver<Arc<str>>,
        versions: PathBuf,
    ) -> std::io::Result<(Run, watch::Receiver<Arc<Compiled>>)> {
        let (versions, first) = Versions::open(versions)?;
        let mut compiler = Compiler::new(trust_domain, session_secret, registry, first);
        let subscription = store.subscribe();
        compiler.replace_all(&subscription.resources);
        compiler.compile();
        let (publish, receiver) = watch::channel(Arc::new(compiler.current()));
        let run = Run {
            store,
            compiler,
            changes: subscription.changes,
            endpoints,
            versions,
            publish,
        };
        Ok((run, receiver))
    }

    /// Runs until the store or the registry is gone.
    pub async fn run(mut self) {
        let mut last = Instant::now() - GAP;
        while self.next().await {
            let since = last.elapsed();
            if since < GAP {
                tokio::time::sleep(GAP - since).await;
            }
            if !self.take_all() {
                return;
            }
            last = Instant::now();
            if let Some(state) = self.compiler.compile() {
                self.versions.reserve(state.version);
                tracing::debug!(version = state.version, "compiled");
                self.publish.send_replace(Arc::new(state));
            }
        }
    }

    /// Waits for a change. False: there will be none.
    async fn next(&mut self) -> bool {
        tokio::select! {
            changes = self.changes.recv() => match changes {
                Ok(changes) => self.apply(&changes),
                Err(FeedError::Lagged(_)) => self.start_again(),
                Err(FeedError::Closed) => return false,
            },
            service = self.endpoints.recv() => match service {
                Some(service) => self.compiler.endpoints_changed(service),
                None => return false,
            },
        }
        true
    }

    /// Takes what is there without waiting.
    fn take_all(&mut self) -> bool {
        while let Ok(service) = self.endpoints.try_recv() {
            self.compiler.endpoints_changed(service);
        }
        loop {
            match self.changes.try_recv() {
                Ok(Some(changes)) => self.apply(&changes),
                Ok(None) => return true,
                Err(FeedError::Lagged(_)) => self.start_again(),
                Err(FeedError::Closed) => return false,
            }
        }
    }

    fn apply(&mut self, set: &ChangeSet) {
        for change in &set.changes {
            let resource = change.resource.clone();
            self.compiler.apply(match change.kind {
                ChangeKind::Added | ChangeKind::Modified => Change::Put(resource),
                ChangeKind::Deleted => Change::Deleted(resource.key()),
            });
        }
    }

    fn start_again(&mut self) {
        tracing::warn!("missed changes of the store; compiling all of it again");
        let subscription = self.store.subscribe();
        self.compiler.replace_all(&subscription.resources);
        self.changes = subscription.changes;
    }
}

/// Versions of the configuration, which grow across restarts without a write for each.
///
/// A file holds a number that no version has reached. It is moved on by a block at a time, before versions of the block
/// are used; a start begins behind it.
#[derive(Debug)]
struct Versions {
    path: PathBuf,
    reserved: u64,
}

/// Versions reserved by one write.
const BLOCK: u64 = 10_000;

impl Versions {
    /// Opens the file and returns the first version to use.
    fn open(path: PathBuf) -> std::io::Result<(Versions, u64)> {
        let first = match std::fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().map_err(|_| {
                let problem = format!("{text:?} is not a number");
                std::io::Error::new(std::io::ErrorKind::InvalidData, problem)
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => 1,
            Err(error) => return Err(error),
        };
        let mut versions = Versions {
            path,
            reserved: first,
        };
        versions.write(first)?;
        Ok((versions, first))
    }

    /// Makes sure that `version` is below what is reserved.
    fn reserve(&mut self, version: u64) {
        if version < self.reserved {
            return;
        }
        if let Err(error) = self.write(version) {
            tracing::error!(path = %self.path.display(), %error, "cannot reserve versions");
        }
    }

    fn write(&mut self, from: u64) -> std::io::Result<()> {
        let reserved = from + BLOCK;
        files::write_atomic(
            &self.path,
            format!("{reserved}\n").as_bytes(),
            files::PUBLIC,
        )?;
        self.reserved = reserved;
        Ok(())
    }
}
