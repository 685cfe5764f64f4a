use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use tempfile::TempDir;

use crate::{Metrics, Process, binary, client, eventually, loopback};

/// A running control plane with a data directory of its own.
#[derive(Debug)]
pub struct ControlPlane {
    address: Ipv4Addr,
    flags: Vec<String>,
    /// Dropped before the directory that its log is in.
    process: Process,
    directory: TempDir,
}

impl ControlPlane {
    /// Starts one with the defaults.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts one with further flags, and waits until it answers.
    pub async fn start_with(flags: &[&str]) -> Self {
        let address = loopback();
        let directory = TempDir::new().expect("the temporary directory is writable");
        let flags: Vec<String> = flags.iter().map(ToString::to_string).collect();
        let process = spawn(address, directory.path(), &flags);
        let mut control_plane = Self {
            address,
            directory,
            flags,
            process,
        };
        control_plane.wait().await;
        control_plane
    }

    /// Where sidecars connect to.
    pub fn sidecar_address(&self) -> SocketAddr {
        SocketAddr::new(self.address.into(), 25010)
    }

    pub fn management_address(&self) -> SocketAddr {
        SocketAddr::new(self.address.into(), 25011)
    }

    pub fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// `kill -9`.
    pub fn kill9(&mut self) {
        self.process.kill();
    }

    /// Starts it again on the same data and addresses, after [`Self::kill9`].
    pub async fn restart(&mut self) {
        self.kill9();
        self.process = spawn(self.address, self.directory.path(), &self.flags);
        self.wait().await;
    }

    async fn wait(&mut self) {
        let metrics = SocketAddr::new(self.address.into(), 25014);
        let admin = self.data_dir().join("admin.yaml");
        eventually(
            "the control plane is ready",
            Duration::from_secs(20),
            async || {
                if let Some(status) = self.process.status() {
                    panic!(
                        "the control plane ended ({status}):\n{}",
                        self.process.tail(20)
                    );
                }
                let answer = client::try_request(
                    metrics,
                    http::Request::builder()
                        .uri("/ready")
                        .header("host", metrics.to_string()),
                    client::empty(),
                );
                match answer.await {
                    Ok(answer) if answer.status == 200 && admin.is_file() => Ok(()),
                    Ok(answer) => Err(format!("{} {}", answer.status, answer.text())),
                    Err(error) => Err(error.to_string()),
                }
            },
        )
        .await;
    }

    /// Runs `outriggerctl` against it, whatever comes of it.
    pub fn try_ctl(&self, arguments: &[&str]) -> Output {
        self.try_ctl_as(&self.data_dir().join("admin.yaml"), arguments)
    }

    /// As [`Self::try_ctl`], with another context than the administrator's.
    pub fn try_ctl_as(&self, context: &Path, arguments: &[&str]) -> Output {
        let mut ctl = Command::new(binary("outriggerctl"));
        ctl.arg("--context").arg(context).args(arguments);
        ctl.output()
            .unwrap_or_else(|error| panic!("outriggerctl: {error}"))
    }

    /// Runs `outriggerctl` against it and returns what it printed.
    ///
    /// # Panics
    /// Where it does not exit with 0.
    pub fn ctl(&self, arguments: &[&str]) -> String {
        let output = self.try_ctl(arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "outriggerctl {arguments:?}: {}\n{}{}",
            output.status,
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// Applies resources in YAML; lines that lack it get the API version.
    pub fn apply(&self, yaml: &str) -> String {
        self.ctl(&[
            "apply",
            "-f",
            self.write(yaml)
                .path()
                .to_str()
                .expect("temporary paths are text"),
        ])
    }

    /// As [`Self::apply`], whatever comes of it.
    pub fn try_apply(&self, yaml: &str) -> Output {
        self.try_ctl(&[
            "apply",
            "-f",
            self.write(yaml)
                .path()
                .to_str()
                .expect("temporary paths are text"),
        ])
    }

    fn write(&self, yaml: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::Builder::new()
            .suffix(".yaml")
            .tempfile_in(self.directory.path())
            .expect("the temporary directory is writable");
        file.write_all(with_api_version(yaml).as_bytes())
            .expect("the temporary directory is writable");
        file
    }

    /// Makes a join token for an identity, in a file.
    pub fn token(&self, namespace: &str, account: &str) -> PathBuf {
        let token = self.ctl(&[
            "token",
            "create",
            "--namespace",
            namespace,
            "--service-account",
            account,
            "--max-uses",
            "100",
        ]);
        let path = self
            .directory
            .path()
            .join(format!("{namespace}-{account}.token"));
        let mut file = File::create(&path).expect("the temporary directory is writable");
        file.write_all(token.trim().as_bytes())
            .expect("the temporary directory is writable");
        path
    }

    pub async fn metrics(&self) -> Metrics {
        let address = SocketAddr::new(self.address.into(), 25014);
        let answer = client::get(address, &address.to_string(), "/metrics").await;
        Metrics::parse(&answer.text())
    }
}

fn spawn(address: Ipv4Addr, directory: &Path, flags: &[String]) -> Process {
    let mut command = Command::new(binary("outrigger-control-plane"));
    command
        .arg("--data-dir")
        .arg(directory.join("data"))
        .arg(format!("--sidecar-listen={address}:25010"))
        .arg(format!("--management-listen={address}:25011"))
        .arg(format!("--metrics-listen={address}:25014"))
        .args(flags);
    Process::spawn("control-plane", command, directory)
}

/// Tests leave out the first line of each document.
fn with_api_version(yaml: &str) -> String {
    let documents = yaml.split("\n---").map(|document| {
        if document.contains("apiVersion:") {
            document.to_string()
        } else {
            format!(
                "\napiVersion: outrigger.dev/v1alpha1\n{}",
                document.trim_start_matches('\n')
            )
        }
    });
    documents.collect::<Vec<_>>().join("\n---")
}
