//! What is measured: a pair of proxies with mutual TLS between them, or nothing at all.

mod envoy;
mod haproxy;
mod outrigger;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use outrigger_tests::tls::{Authority, Identity};
use outrigger_tests::{ControlPlane, Process, Sidecar, eventually};
use tempfile::TempDir;

use crate::upstream::Application;
use crate::wire::{Target, Version};

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Peer {
    /// The client and the application without anything between them.
    Direct,
    Outrigger,
    /// Outrigger with `inference` on for the service: requests and token streams are read as they pass.
    OutriggerModels,
    Envoy,
    Haproxy,
}

impl Peer {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Outrigger => "Outrigger",
            Self::OutriggerModels => "Outrigger, models",
            Self::Envoy => "Envoy",
            Self::Haproxy => "HAProxy",
        }
    }

    /// Which program it is and of which version, or why it cannot run here.
    pub(crate) fn version(self) -> Result<String, String> {
        match self {
            Self::Direct => Ok("no proxy".to_string()),
            Self::Outrigger | Self::OutriggerModels => Ok(outrigger::version()),
            Self::Envoy => envoy::version(),
            Self::Haproxy => haproxy::version(),
        }
    }

    /// Starts it between a target to be and the application, on one core.
    pub(crate) async fn start(self, application: Application, core: usize) -> Running {
        let directory = TempDir::new().expect("the temporary directory is writable");
        let pki = Pki::write(directory.path());
        let (address, processes) = match self {
            Self::Direct => (application.http1, Vec::new()),
            Self::Outrigger => return outrigger::start(application.http1, core, "").await,
            Self::OutriggerModels => {
                return outrigger::start(application.http1, core, ", inference: {}").await;
            }
            Self::Envoy => envoy::start(application.http1, &pki, directory.path(), core),
            Self::Haproxy => haproxy::start(application.http1, &pki, directory.path(), core),
        };
        let running = Running {
            target: Target {
                address,
                host: "bench".to_string(),
            },
            direct_http2: (self == Self::Direct).then_some(application.http2),
            processes,
            sidecars: Vec::new(),
            _control_plane: None,
            _directory: directory,
        };
        running.answers().await;
        running
    }
}

/// A started peer; ends when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    target: Target,
    /// Proxies take both versions on one port; the application does not.
    direct_http2: Option<SocketAddr>,
    processes: Vec<Process>,
    sidecars: Vec<Sidecar>,
    _control_plane: Option<ControlPlane>,
    _directory: TempDir,
}

impl Running {
    /// Where the load goes to.
    pub(crate) fn target(&self, version: Version) -> Target {
        let mut target = self.target.clone();
        if let (Version::Http2, Some(address)) = (version, self.direct_http2) {
            target.address = address;
        }
        target
    }

    /// CPU time of the proxies so far. A control plane is not on the path and not in the figure.
    pub(crate) fn cpu(&mut self) -> Duration {
        self.proxies().map(|process| process.cpu()).sum()
    }

    /// Resident memory of the proxies together, KiB.
    pub(crate) fn rss_kib(&mut self) -> u64 {
        self.proxies().map(|process| process.rss_kib()).sum()
    }

    fn proxies(&mut self) -> impl Iterator<Item = &mut Process> {
        self.processes
            .iter_mut()
            .chain(self.sidecars.iter_mut().map(Sidecar::process))
    }

    async fn answers(&self) {
        let host = &self.target.host;
        eventually(
            "an answer through the proxies",
            Duration::from_secs(20),
            async || {
                let head = http::Request::builder().uri("/1k").header("host", host);
                match outrigger_tests::client::try_request(
                    self.target.address,
                    head,
                    outrigger_tests::client::empty(),
                )
                .await
                {
                    Ok(answer) if answer.status == 200 => Ok(()),
                    Ok(answer) => Err(format!("{} {}", answer.status, answer.text())),
                    Err(error) => Err(error.to_string()),
                }
            },
        )
        .await;
    }
}

/// A certificate authority with a certificate for each of the two proxies (P-256, as Outrigger's), in files.
struct Pki {
    ca: String,
    client: Pair,
    server: Pair,
}

struct Pair {
    certificate: String,
    key: String,
    /// Both in one file, as HAProxy wants them.
    bundle: String,
}

impl Pki {
    fn write(directory: &Path) -> Self {
        let authority = Authority::new("bench");
        let file = |name: &str, text: &str| {
            let path = directory.join(name);
            std::fs::write(&path, text).expect("the temporary directory is writable");
            path.display().to_string()
        };
        let pair = |name: &str, identity: Identity| Pair {
            certificate: file(&format!("{name}.crt"), identity.pem()),
            key: file(&format!("{name}.key"), identity.key_pem()),
            bundle: file(
                &format!("{name}.pem"),
                &format!("{}{}", identity.pem(), identity.key_pem()),
            ),
        };
        Self {
            ca: file("ca.crt", authority.pem()),
            client: pair("client", authority.issue_dns("client.bench")),
            server: pair("server", authority.issue_dns("server.bench")),
        }
    }
}

/// A command that runs on one core only.
fn pinned(program: &Path, core: usize) -> Command {
    let mut command = Command::new("taskset");
    command.arg("-c").arg(core.to_string()).arg(program);
    command
}

/// First line of what a program says about its version that has a digit in it.
fn version_of(program: &Path, flag: &str) -> Result<String, String> {
    let output = Command::new(program)
        .arg(flag)
        .output()
        .map_err(|error| format!("{}: {error}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text
        .lines()
        .find(|line| line.contains(|character: char| character.is_ascii_digit()));
    line.map(|line| line.trim().to_string())
        .ok_or_else(|| format!("{} does not say its version", program.display()))
}
