//! Control plane, replicas with their sidecars, and the caller's sidecar: started, and waited for.

mod invitation;
mod layout;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::net::TcpStream;

use layout::{ControlPlane, Layout, Replica, Sidecar};

use crate::binaries::Binaries;
use crate::children::Children;
use crate::ctl::Ctl;
use crate::http::Client;
use crate::metrics::Metrics;
use crate::settings::{self, Backend};
use crate::terminal::Terminal;

/// The host that callers ask for, from `service.yaml`.
pub const HOST: &str = "chat.models";
/// Model of the example servers.
const EXAMPLE_MODEL: &str = "tiny-chat";
/// Nothing that starts takes so long on a machine that works.
const START_LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// Everything that runs.
#[derive(Debug)]
pub struct Mesh {
    pub children: Arc<Children>,
    pub ctl: Ctl,
    /// The directory with the resources.
    pub resources: PathBuf,
    /// For files of the tour.
    pub directory: PathBuf,
    pub replicas: Vec<Replica>,
    pub caller: Sidecar,
    /// The model that requests ask for.
    pub model: String,
    /// Responses that the caller's sidecar has given to our clients.
    pub responses: Arc<AtomicU64>,
    /// Real model servers stand behind the sidecars.
    pub real: bool,
    binaries: Binaries,
    control_plane: ControlPlane,
}

impl Mesh {
    /// Starts everything and waits until all replicas answer the caller.
    pub async fn start(
        children: &Arc<Children>,
        binaries: &Binaries,
        directory: &Path,
        backends: Vec<Backend>,
        terminal: &mut Terminal,
    ) -> anyhow::Result<Self> {
        let resources = settings::resources(directory)?;
        let Layout {
            control_plane,
            caller,
            replicas,
        } = Layout::new(directory, &backends)?;
        let context = directory.join("control-plane").join("admin.yaml");
        let mesh = Self {
            ctl: Ctl {
                children: Arc::clone(children),
                binary: binaries.ctl.clone(),
                context,
                directory: resources.clone(),
            },
            children: Arc::clone(children),
            model: model(&backends).await?,
            responses: Arc::default(),
            real: !backends.is_empty(),
            binaries: binaries.clone(),
            directory: directory.to_owned(),
            resources,
            replicas,
            caller,
            control_plane,
        };
        mesh.start_control_plane(terminal).await?;
        mesh.start_sidecars(terminal).await?;
        mesh.wait_for_replicas().await?;
        Ok(mesh)
    }

    async fn start_control_plane(&self, terminal: &mut Terminal) -> anyhow::Result<()> {
        let ControlPlane {
            sidecars,
            management,
            metrics,
        } = &self.control_plane;
        let mut command = Command::new(&self.binaries.control_plane);
        command
            .arg("--data-dir")
            .arg(self.directory.join("control-plane"));
        command.args([
            "--sidecar-listen",
            &sidecars.to_string(),
            "--management-listen",
            &management.to_string(),
        ]);
        command.args(["--metrics-listen", &metrics.to_string()]);
        self.children.spawn("control-plane", command)?;
        self.wait("control-plane", async || {
            self.ctl.context.is_file() && TcpStream::connect(management).await.is_ok()
        })
        .await?;
        terminal.pair(
            "control plane",
            format!("{sidecars} for sidecars, {management} for management"),
        );

        let applied = self
            .ctl
            .succeed(&["apply", "-f", &self.resources.to_string_lossy()])
            .await?;
        let applied: Vec<&str> = applied
            .stdout
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        terminal.pair("resources", applied.join(", "));
        Ok(())
    }

    async fn start_sidecars(&self, terminal: &mut Terminal) -> anyhow::Result<()> {
        let uses = self.replicas.len().to_string();
        self.create_token("chat", &uses).await?;
        self.create_token("frontend", "1").await?;
        for replica in &self.replicas {
            self.start_replica(replica)?;
        }
        self.spawn_sidecar(&self.caller, &[])?;
        for sidecar in self
            .replicas
            .iter()
            .map(|replica| &replica.sidecar)
            .chain([&self.caller])
        {
            self.wait_ready(sidecar).await?;
        }
        for replica in &self.replicas {
            let server = replica
                .url
                .clone()
                .unwrap_or_else(|| format!("model server {}", replica.application));
            terminal.pair(
                &replica.name,
                format!(
                    "{server} behind its own sidecar, label version={}",
                    replica.version
                ),
            );
        }
        let text = format!(
            "a sidecar that only calls; requests for {HOST} go to {}",
            self.caller.outbound
        );
        terminal.pair("frontend", text);
        Ok(())
    }

    async fn create_token(&self, account: &str, uses: &str) -> anyhow::Result<()> {
        let created = self
            .ctl
            .succeed(&[
                "token",
                "create",
                "--service-account",
                account,
                "--max-uses",
                uses,
                "--ttl",
                "10m",
            ])
            .await?;
        let path = self.directory.join("tokens").join(account);
        write_secret(&path, created.stdout.trim())
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Starts a replica's model server, if it is not a real one, and its sidecar.
    pub fn start_replica(&self, replica: &Replica) -> anyhow::Result<()> {
        let application = replica.application.to_string();
        if replica.url.is_none() {
            let mut command = Command::new(&self.binaries.model_server);
            command.args([
                "--listen",
                &application,
                "--name",
                &replica.name,
                "--model",
                EXAMPLE_MODEL,
            ]);
            self.children.spawn(&replica.name, command)?;
        }
        let sidecar = &replica.sidecar;
        let inbound = sidecar
            .inbound
            .context("a replica's sidecar lets peers in")?
            .to_string();
        let serve = format!("chat:80={application}");
        let label = format!("version={}", replica.version);
        let arguments = [
            "--inbound-listen",
            &inbound,
            "--inbound-advertise",
            &inbound,
            "--serve",
            &serve,
            "--label",
            &label,
        ];
        self.spawn_sidecar(sidecar, &arguments)
    }

    fn spawn_sidecar(&self, sidecar: &Sidecar, arguments: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new(&self.binaries.proxy);
        command.args(["--control-plane", &self.control_plane.sidecars.to_string()]);
        command.arg("--join-token-file").arg(&sidecar.token);
        command
            .arg("--data-dir")
            .arg(self.directory.join(&sidecar.name));
        command.args(["--outbound-listen", &sidecar.outbound.to_string()]);
        command.args([
            "--admin-listen",
            &sidecar.admin.to_string(),
            "--metrics-listen",
            &sidecar.metrics.to_string(),
        ]);
        command.args(arguments);
        self.children.spawn(&sidecar.name, command)
    }

    /// Waits until a sidecar has its identity and its first configuration.
    pub async fn wait_ready(&self, sidecar: &Sidecar) -> anyhow::Result<()> {
        self.wait(&sidecar.name, async || {
            let ready = Client::new(sidecar.metrics, "sidecar").get("/ready").await;
            ready.is_ok_and(|answer| answer.status.is_success())
        })
        .await
    }

    /// Waits until the caller's requests reach every replica.
    pub async fn wait_for_replicas(&self) -> anyhow::Result<()> {
        let mut client = self.client();
        self.wait(&self.caller.name, async || {
            for _ in 0..4 * self.replicas.len() {
                if !client
                    .get("/v1/models")
                    .await
                    .is_ok_and(|answer| answer.status.is_success())
                {
                    return false;
                }
            }
            self.served()
                .await
                .is_ok_and(|served| served.iter().all(|count| *count > 0))
        })
        .await
        .context("not all replicas get requests")
    }

    /// An application's client: its base URL is the caller's sidecar, and the host names the service.
    pub fn client(&self) -> Client {
        Client::new(self.caller.outbound, HOST).counting(&self.responses)
    }

    /// Requests that each replica's sidecar has let in so far.
    pub async fn served(&self) -> anyhow::Result<Vec<u64>> {
        let mut served = Vec::with_capacity(self.replicas.len());
        for replica in &self.replicas {
            let metrics = Metrics::scrape(replica.sidecar.metrics).await?;
            served
                .push(metrics.sum("outrigger_requests_total", &[("direction", "inbound")]) as u64);
        }
        Ok(served)
    }

    /// Waits until `done`, or until the program `name` has ended.
    pub async fn wait(
        &self,
        name: &str,
        mut done: impl AsyncFnMut() -> bool,
    ) -> anyhow::Result<()> {
        let started = Instant::now();
        while !done().await {
            self.children.ensure_alive(name)?;
            if started.elapsed() > START_LIMIT {
                let tail = self.children.tail(name);
                anyhow::bail!(
                    "{name} is not ready after {START_LIMIT:?}; the end of its log:\n{tail}"
                );
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}

/// The first model that the real servers have, or the example's.
async fn model(backends: &[Backend]) -> anyhow::Result<String> {
    let Some(backend) = backends.first() else {
        return Ok(EXAMPLE_MODEL.to_owned());
    };
    let host = backend.url.trim_start_matches("http://");
    let answer = Client::new(backend.address, host).get("/v1/models").await;
    let answer = answer.with_context(|| format!("cannot ask {} for its models", backend.url))?;
    let models: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let model = models["data"][0]["id"].as_str();
    model
        .map(str::to_owned)
        .with_context(|| format!("{}/v1/models names no model", backend.url))
}

fn write_secret(path: &Path, secret: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let file = std::fs::File::options()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path);
    file?.write_all(secret.as_bytes())
}
