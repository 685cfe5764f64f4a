//! The smallest mesh: one application behind a sidecar, and a sidecar that calls it.

use outrigger_tests::upstream::Http;
use outrigger_tests::{ControlPlane, Sidecar};

pub struct Mesh {
    pub control_plane: ControlPlane,
    pub app: Http,
    pub server: Sidecar,
    pub caller: Sidecar,
}

impl Mesh {
    /// Service `chat`, port 80, HTTP; `spec` has further fields of its spec, each on a line of its own.
    pub async fn start(spec: &str) -> Self {
        let control_plane = ControlPlane::start().await;
        control_plane.apply(&service("chat", spec));
        let app = Http::start("chat").await;
        let server = Sidecar::serving(&control_plane, "chat:80", app.address()).await;
        let caller = Sidecar::caller(&control_plane).await;
        caller.reaches("chat").await;
        Self {
            control_plane,
            app,
            server,
            caller,
        }
    }
}

/// A service with the HTTP port 80.
pub fn service(name: &str, spec: &str) -> String {
    service_of("http", 80, name, spec)
}

pub fn service_of(protocol: &str, port: u16, name: &str, spec: &str) -> String {
    let mut yaml = format!(
        "kind: Service\nmetadata: {{name: {name}}}\nspec:\n  ports: [{{port: {port}, protocol: {protocol}}}]\n"
    );
    for line in spec.lines() {
        yaml.push_str(&format!("  {line}\n"));
    }
    yaml
}

/// Endpoints outside the mesh, without sidecars.
pub fn plain_endpoints(addresses: &[std::net::SocketAddr]) -> String {
    let endpoints: Vec<String> = addresses
        .iter()
        .map(|address| format!("{{address: \"{address}\"}}"))
        .collect();
    format!("endpoints: {{static: [{}]}}", endpoints.join(", "))
}

/// A route of the service `chat`; `rules` is a YAML list in one line.
pub fn route(name: &str, rules: &str) -> String {
    format!(
        "kind: Route\nmetadata: {{name: {name}}}\nspec:\n  parentRefs: [{{name: chat}}]\n  rules: {rules}\n"
    )
}
