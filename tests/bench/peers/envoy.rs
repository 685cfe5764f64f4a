use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use outrigger_tests::{Process, find_program, loopback, python};
use serde_json::{Value, json};

use super::{Pair, Pki, pinned, version_of};

pub(super) fn version() -> Result<String, String> {
    version_of(&program()?, "--version")
}

/// From `PATH`, or else from the wheel in the benchmark's Python environment.
fn program() -> Result<PathBuf, String> {
    if let Some(program) = find_program("envoy") {
        return Ok(program);
    }
    let python = python::environment("bench")?;
    let library = python
        .parent()
        .and_then(Path::parent)
        .ok_or("the interpreter is in no environment")?
        .join("lib");
    let versions =
        std::fs::read_dir(&library).map_err(|error| format!("{}: {error}", library.display()))?;
    let mut programs = versions
        .flatten()
        .map(|version| version.path().join("site-packages/envoy/_bin/envoy"));
    programs
        .find(|path| path.is_file())
        .ok_or_else(|| format!("there is no envoy under {}", library.display()))
}

pub(super) fn start(
    application: SocketAddr,
    pki: &Pki,
    directory: &Path,
    core: usize,
) -> (SocketAddr, Vec<Process>) {
    let near = SocketAddr::new(loopback().into(), 25001);
    let far = SocketAddr::new(loopback().into(), 25006);
    let near_config = config(near, far, None, Some(tls(pki, &pki.client, "Upstream")));
    let far_config = config(
        far,
        application,
        Some(tls(pki, &pki.server, "Downstream")),
        None,
    );
    let run = |name: &str, config: Value| {
        let path = directory.join(format!("{name}.json"));
        std::fs::write(&path, config.to_string()).expect("the temporary directory is writable");
        let mut command = pinned(&program().expect("its version was found"), core);
        command
            .args([
                "--concurrency",
                "1",
                "--disable-hot-restart",
                "--log-level",
                "error",
                "-c",
            ])
            .arg(path);
        Process::spawn(name, command, directory)
    };
    (
        near,
        vec![run("envoy-far", far_config), run("envoy-near", near_config)],
    )
}

/// One listener, the router filter only, one cluster: HTTP/2 where there is TLS towards it, HTTP/1.1 to the application.
fn config(
    listen: SocketAddr,
    to: SocketAddr,
    downstream: Option<Value>,
    upstream: Option<Value>,
) -> Value {
    let protocol = if upstream.is_some() {
        "http2_protocol_options"
    } else {
        "http_protocol_options"
    };
    let mut chain = json!({"filters": [{
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "bench",
            "codec_type": "AUTO",
            "route_config": {"virtual_hosts": [{
                "name": "all", "domains": ["*"],
                // No timeout: the token streams are endless.
                "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "to", "timeout": "0s"}}],
            }]},
            "http_filters": [{
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
            }],
        },
    }]});
    if let Some(tls) = downstream {
        chain["transport_socket"] = tls;
    }
    let mut cluster = json!({
        "name": "to",
        "type": "STATIC",
        "connect_timeout": "10s",
        "load_assignment": {"cluster_name": "to", "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": address(to)}},
        ]}]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {protocol: {}},
        }},
    });
    if let Some(tls) = upstream {
        cluster["transport_socket"] = tls;
    }
    json!({"static_resources": {
        "listeners": [{"name": "from", "address": address(listen), "filter_chains": [chain]}],
        "clusters": [cluster],
    }})
}

fn address(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

/// TLS 1.3 with both certificates, for a listener (`Downstream`) or a cluster (`Upstream`).
fn tls(pki: &Pki, pair: &Pair, side: &str) -> Value {
    let mut context = json!({
        "@type": format!("type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{side}TlsContext"),
        "common_tls_context": {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
            "tls_certificates": [{
                "certificate_chain": {"filename": pair.certificate},
                "private_key": {"filename": pair.key},
            }],
            "validation_context": {"trusted_ca": {"filename": pki.ca}},
            "alpn_protocols": ["h2"],
        },
    });
    if side == "Downstream" {
        context["require_client_certificate"] = json!(true);
    }
    json!({"name": "envoy.transport_sockets.tls", "typed_config": context})
}
