use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::client::{self, Answer};
use crate::{ControlPlane, Metrics, Process, binary, eventually, loopback};

/// A running sidecar.
#[derive(Debug)]
pub struct Sidecar {
    address: Ipv4Addr,
    process: Process,
    _directory: TempDir,
}

/// How a sidecar is started.
#[derive(Debug, Clone)]
pub struct SidecarBuilder {
    control_plane: SocketAddr,
    join: Join,
    flags: Vec<String>,
    environment: Vec<(String, String)>,
    data_dir: Option<PathBuf>,
    core: Option<usize>,
    wait: bool,
}

#[derive(Debug, Clone)]
enum Join {
    Token(String),
    File(PathBuf),
}

impl Sidecar {
    /// A sidecar with the identity `ns/default/sa/<account>`.
    pub fn builder(control_plane: &ControlPlane, account: &str) -> SidecarBuilder {
        Self::builder_in(control_plane, "default", account)
    }

    /// A sidecar with the identity `ns/<namespace>/sa/<account>`.
    pub fn builder_in(
        control_plane: &ControlPlane,
        namespace: &str,
        account: &str,
    ) -> SidecarBuilder {
        SidecarBuilder {
            control_plane: control_plane.sidecar_address(),
            join: Join::File(control_plane.token(namespace, account)),
            flags: Vec::new(),
            environment: Vec::new(),
            data_dir: None,
            core: None,
            wait: true,
        }
    }

    /// A sidecar that only calls.
    pub async fn caller(control_plane: &ControlPlane) -> Self {
        Self::builder(control_plane, "caller").start().await
    }

    /// One that stands in front of an application that accepts connections already.
    pub async fn serving(
        control_plane: &ControlPlane,
        service: &str,
        application: SocketAddr,
    ) -> Self {
        let account = service.split(':').next().unwrap_or(service);
        Self::builder(control_plane, account)
            .serve(service, application)
            .start()
            .await
    }

    /// The listener for the application's calls.
    pub fn outbound(&self) -> SocketAddr {
        SocketAddr::new(self.address.into(), 25001)
    }

    /// The listener for peers.
    pub fn inbound(&self) -> SocketAddr {
        SocketAddr::new(self.address.into(), 25006)
    }

    /// Where a listener for opaque TCP is, see [`SidecarBuilder::tcp`].
    pub fn tcp(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address.into(), port)
    }

    pub fn metrics_address(&self) -> SocketAddr {
        SocketAddr::new(self.address.into(), 25020)
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// `GET` through the mesh.
    pub async fn get(&self, host: &str, path: &str) -> Answer {
        client::get(self.outbound(), host, path).await
    }

    /// `GET` until it is answered with 200: after a sidecar started or a resource was applied.
    pub async fn reaches(&self, host: &str) -> Answer {
        eventually(
            &format!("{host} is reached"),
            Duration::from_secs(10),
            async || {
                let answer = self.get(host, "/").await;
                if answer.status == 200 {
                    return Ok(answer);
                }
                Err(format!(
                    "{} {} {}",
                    answer.status,
                    answer.reason(),
                    answer.text()
                ))
            },
        )
        .await
    }

    pub async fn metrics(&self) -> Metrics {
        let address = self.metrics_address();
        let answer = client::get(address, &address.to_string(), "/metrics").await;
        assert_eq!(answer.status, 200);
        Metrics::parse(&answer.text())
    }

    /// `GET` on the admin listener.
    pub async fn admin(&self, path: &str) -> Answer {
        self.admin_call("GET", path, "").await
    }

    /// Another method on the admin listener.
    pub async fn admin_call(&self, method: &str, path: &str, body: &str) -> Answer {
        let address = SocketAddr::new(self.address.into(), 25000);
        let head = http::Request::builder()
            .method(method)
            .uri(path)
            .header("host", address.to_string());
        client::request(address, head, client::full(body.to_string())).await
    }

    /// Holds it: its connections stay, and nothing comes of them. See [`Self::go_on`].
    pub fn stop(&self) {
        self.process.signal("STOP");
    }

    /// Lets it go on after [`Self::stop`].
    pub fn go_on(&self) {
        self.process.signal("CONT");
    }

    /// Asks it to drain and end.
    pub fn sigterm(&self) {
        self.process.signal("TERM");
    }
}

impl SidecarBuilder {
    /// `[NS/]SERVICE:PORT` that `application` serves.
    pub fn serve(self, service: &str, application: SocketAddr) -> Self {
        self.flag(&format!("--serve={service}={application}"))
    }

    /// A listener for opaque TCP to `[NS/]SERVICE:PORT`, on the sidecar's address and this port.
    pub fn tcp(self, service: &str, port: u16) -> Self {
        self.flag(&format!("--tcp={service}=ADDRESS:{port}"))
    }

    pub fn label(self, key: &str, value: &str) -> Self {
        self.flag(&format!("--label={key}={value}"))
    }

    /// A further flag; `ADDRESS` in it becomes the sidecar's address.
    pub fn flag(mut self, flag: &str) -> Self {
        self.flags.push(flag.to_string());
        self
    }

    /// A variable of its environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_string(), value.to_string()));
        self
    }

    /// Joins with this token instead of one of its own.
    pub fn token(mut self, token: &str) -> Self {
        self.join = Join::Token(token.to_string());
        self
    }

    /// Keeps the identity and the last good config there.
    pub fn data_dir(mut self, directory: PathBuf) -> Self {
        self.data_dir = Some(directory);
        self
    }

    /// Lets it run on this CPU core only.
    pub fn core(mut self, core: usize) -> Self {
        self.core = Some(core);
        self
    }

    /// Does not wait until it is ready.
    pub fn without_waiting(mut self) -> Self {
        self.wait = false;
        self
    }

    /// Starts it and waits until it is ready.
    pub async fn start(self) -> Sidecar {
        let address = loopback();
        let directory = TempDir::new().expect("the temporary directory is writable");
        let program = binary("outrigger-proxy");
        let mut command = match self.core {
            None => Command::new(program),
            Some(core) => {
                let mut command = Command::new("taskset");
                command.arg("-c").arg(core.to_string()).arg(program);
                command
            }
        };
        command
            .arg(format!("--control-plane={}", self.control_plane))
            .arg(format!("--outbound-listen={address}:25001"))
            .arg(format!("--inbound-listen={address}:25006"))
            .arg(format!("--inbound-advertise={address}:25006"))
            .arg(format!("--admin-listen={address}:25000"))
            .arg(format!("--metrics-listen={address}:25020"))
            .args(
                self.flags
                    .iter()
                    .map(|flag| flag.replace("ADDRESS", &address.to_string())),
            );
        match &self.join {
            Join::Token(token) => command.arg("--join-token").arg(token),
            Join::File(file) => command.arg("--join-token-file").arg(file),
        };
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        if let Some(data_dir) = &self.data_dir {
            command.arg("--data-dir").arg(data_dir);
        }
        let process = Process::spawn("sidecar", command, directory.path());
        let mut sidecar = Sidecar {
            address,
            process,
            _directory: directory,
        };
        if self.wait {
            sidecar.ready().await;
        }
        sidecar
    }
}

impl Sidecar {
    /// Waits until `/ready` says so.
    pub async fn ready(&mut self) {
        let metrics = self.metrics_address();
        eventually(
            "the sidecar is ready",
            Duration::from_secs(20),
            async || {
                if let Some(status) = self.process.status() {
                    panic!("the sidecar ended ({status}):\n{}", self.process.tail(20));
                }
                let head = http::Request::builder()
                    .uri("/ready")
                    .header("host", metrics.to_string());
                match client::try_request(metrics, head, client::empty()).await {
                    Ok(answer) if answer.status == 200 => Ok(()),
                    Ok(answer) => Err(format!("{} {}", answer.status, answer.text())),
                    Err(error) => Err(error.to_string()),
                }
            },
        )
        .await;
    }
}
