#![allow(clippy::unwrap_used)]
use clap::Parser as _;

use super::{Config, ConfigError, Flags, JoinSource, LogFormat, file, merge};
use crate::policy::AccessLogMode;

fn load(args: &[&str], yaml: &str) -> Result<Config, ConfigError> {
    let args = ["outrigger-proxy"].iter().chain(args);
    merge(
        Flags::try_parse_from(args).unwrap(),
        file::parse(yaml).unwrap(),
    )
}

fn refused(args: &[&str], yaml: &str) -> String {
    load(args, yaml).unwrap_err().to_string()
}

const CP: &[&str] = &["--control-plane", "127.0.0.1:15010"];

#[test]
fn the_command_line_is_consistent() {
    use clap::CommandFactory as _;
    Flags::command().debug_assert();
}

#[test]
fn defaults() {
    let config = load(CP, "").unwrap();
    assert_eq!(config.outbound_listen.to_string(), "127.0.0.1:15001");
    assert_eq!(config.inbound_listen.to_string(), "0.0.0.0:15006");
    assert_eq!(config.admin_listen.to_string(), "127.0.0.1:15000");
    assert_eq!(config.metrics_listen.to_string(), "0.0.0.0:15020");
    assert_eq!(config.workers, 1);
    assert_eq!(config.access_log, AccessLogMode::Errors);
    assert_eq!(config.access_log_format, LogFormat::Json);
    assert_eq!(config.log_format, LogFormat::Text);
    assert_eq!(config.drain_timeout.as_secs(), 30);
    assert!(config.join.is_none() && config.serve.is_empty() && config.tcp.is_empty());
}

const FILE: &str = "
controlPlane: cp:1
joinTokenFile: /run/token
dataDir: /var/lib/outrigger
labels: {version: v1, zone: a}
workers: 2
accessLog: all
drainTimeout: 1m30s
serve:
- {service: chat, port: 80, application: '127.0.0.1:8000', weight: 3, readiness: {path: /health, interval: 250ms}}
tcp:
- {service: db, namespace: data, port: 5432, listen: '127.0.0.1:5432'}
";

#[test]
fn a_file_has_everything() {
    let config = load(&[], FILE).unwrap();
    assert_eq!(config.control_plane, "cp:1");
    assert_eq!(config.join, Some(JoinSource::File("/run/token".into())));
    assert_eq!(config.workers, 2);
    assert_eq!(config.access_log, AccessLogMode::All);
    assert_eq!(config.drain_timeout.as_secs(), 90);
    let serve = &config.serve[0];
    assert_eq!(
        (serve.service.as_str(), serve.port, serve.weight),
        ("chat", 80, 3)
    );
    assert_eq!(serve.readiness.path.as_deref(), Some("/health"));
    assert_eq!(serve.readiness.interval.as_millis(), 250);
    assert_eq!(config.tcp[0].namespace.as_deref(), Some("data"));
}

#[test]
fn the_example_is_valid() {
    let config = load(&[], include_str!("../../../examples/sidecar.yaml")).unwrap();
    assert_eq!(config.control_plane, "10.0.0.1:15010");
    assert_eq!(config.serve[0].service, "chat");
    assert_eq!(config.serve[0].readiness.path.as_deref(), Some("/health"));
    assert_eq!(config.tcp[0].service, "redis");
    assert_eq!(config.drain_timeout.as_secs(), 120);
}

#[test]
fn flags_win_over_the_file() {
    let args = [
        "--control-plane",
        "other:2",
        "--workers",
        "4",
        "--label",
        "version=v2",
        "--access-log",
        "off",
        "--serve",
        "prod/embed:8080=127.0.0.1:9000",
        "--serve",
        "chat:80=[::1]:9001",
        "--drain-timeout",
        "5s",
    ];
    let config = load(&args, FILE).unwrap();
    assert_eq!(config.control_plane, "other:2");
    assert_eq!(config.workers, 4);
    assert_eq!(config.labels["version"], "v2");
    assert_eq!(config.labels["zone"], "a");
    assert_eq!(config.access_log, AccessLogMode::Off);
    assert_eq!(config.drain_timeout.as_secs(), 5);
    assert_eq!(config.serve.len(), 2);
    assert_eq!(config.serve[0].namespace.as_deref(), Some("prod"));
    assert_eq!(config.serve[1].application.to_string(), "[::1]:9001");
    assert_eq!(config.serve[1].weight, 1);
}

#[test]
fn wrong_flags_are_usage_errors() {
    for args in [
        &["--serve", "chat=127.0.0.1:8000"][..],
        &["--serve", "chat:0=127.0.0.1:8000"],
        &["--serve", "chat:80=localhost:8000"],
        &["--serve", "Chat:80=127.0.0.1:8000"],
        &["--serve", "a/b/c:80=127.0.0.1:8000"],
        &["--tcp", "db:5432"],
        &["--label", "version"],
        &["--label", "=v1"],
        &["--drain-timeout", "30"],
        &["--access-log", "some"],
        &["--outbound-listen", "15001"],
        &["--join-token", "x", "--join-token-file", "y"],
        &["--unknown"],
    ] {
        let all = ["outrigger-proxy"].iter().chain(CP).chain(args);
        let error = Flags::try_parse_from(all).expect_err(&format!("{args:?} was accepted"));
        assert_eq!(error.exit_code(), 2, "{args:?}");
    }
}

#[test]
fn wrong_values_are_one_line() {
    assert!(refused(&[], "").starts_with("no control plane: give --control-plane"));
    for address in ["cp", "cp:0", "http://cp:80", ":80", "cp:port", "::1:80"] {
        let error = refused(&["--control-plane", address], "");
        assert_eq!(error, format!("control plane {address:?} is not HOST:PORT"));
    }
    load(&["--control-plane", "[::1]:15010"], "").unwrap();
    let with = |yaml: &str| refused(CP, yaml);
    assert_eq!(with("workers: 0"), "0 workers; 1 to 256 are allowed");
    assert_eq!(
        with("joinToken: a\njoinTokenFile: b"),
        "the file gives both joinToken and joinTokenFile; one is enough"
    );
    assert!(with("joinToken: a").starts_with("a join token starts with"));
    assert_eq!(
        with("inboundAdvertise: '0.0.0.0:15006'"),
        "inbound-advertise 0.0.0.0:15006 is no address that others can reach"
    );
    let serve = |rest: &str| {
        with(&format!(
            "serve: [{{service: chat, port: 80, application: '127.0.0.1:8000', {rest}}}]"
        ))
    };
    assert_eq!(
        serve("weight: 0"),
        "serve chat:80: weight: 0; at least 1 is allowed"
    );
    assert_eq!(
        serve("readiness: {path: health}"),
        "serve chat:80: readiness.path: \"health\" must begin with a slash and have neither spaces nor control characters"
    );
    assert_eq!(
        serve("readiness: {interval: 0s}"),
        "serve chat:80: readiness.interval: 0; more is needed"
    );
    let twice = [
        "--serve",
        "chat:80=127.0.0.1:1",
        "--serve",
        "chat:80=127.0.0.1:2",
    ];
    assert_eq!(
        refused(&[CP, &twice].concat(), ""),
        "serve chat:80: given twice"
    );
}

#[test]
fn the_file_is_strict_and_says_where() {
    let refused = |yaml: &str| {
        let (place, problem) = file::parse(yaml).unwrap_err();
        assert!(!problem.contains('\n'));
        (place.map(|(line, _)| line), problem)
    };
    let (line, problem) = refused("controlPlane: cp:1\ninboundlisten: 0.0.0.0:1\n");
    assert_eq!(line, Some(2));
    assert!(
        problem.starts_with("unknown field `inboundlisten`"),
        "{problem}"
    );
    assert!(
        problem.ends_with("did you mean `inboundListen`?"),
        "{problem}"
    );
    let (line, problem) =
        refused("serve:\n- service: chat\n  port: 80\n  application: 127.0.0.1:1\n  wieght: 2\n");
    assert_eq!(line, Some(5));
    assert!(problem.ends_with("did you mean `weight`?"), "{problem}");
    let (_, problem) = refused("zzz: 1\n");
    assert!(!problem.contains("did you mean"), "{problem}");
    assert_eq!(refused("workers: many\n").0, Some(1));
    assert!(
        refused("workers: 1\nworkers: 2\n")
            .1
            .starts_with("duplicate")
    );
    assert_eq!(
        refused("drainTimeout: 30\n").1,
        "drainTimeout: \"30\": a duration is written like 250ms, 10s, 1m30s or 24h"
    );
    refused("- a\n");
    refused("a: [\n");
    file::parse("").unwrap();
    file::parse("# nothing\n").unwrap();
}

#[test]
fn a_missing_file_is_named() {
    let flags = Flags {
        config: Some("/nonexistent/proxy.yaml".into()),
        ..Flags::default()
    };
    assert_eq!(
        Config::load(flags).unwrap_err().to_string(),
        "cannot read /nonexistent/proxy.yaml: No such file or directory (os error 2)"
    );
}

#[test]
fn tokens_are_not_shown() {
    let shown = format!("{:?}", JoinSource::Token("secret".into()));
    assert!(!shown.contains("secret"));
}
