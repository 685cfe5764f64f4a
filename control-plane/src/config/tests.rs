#![allow(clippy::unwrap_used)]

use super::*;

fn parse(flags: &[&str]) -> Result<Config, String> {
    let all = ["x", "--data-dir=/tmp/x"].iter().chain(flags);
    Config::try_parse_from(all).map_err(|error| error.to_string())
}

#[test]
fn the_defaults_are_the_documented_ones() {
    let config = parse(&[]).unwrap();
    assert_eq!(config.sidecar_listen.to_string(), "0.0.0.0:15010");
    assert_eq!(config.management_listen.to_string(), "127.0.0.1:15011");
    assert_eq!(config.metrics_listen.to_string(), "127.0.0.1:15014");
    assert_eq!(config.certificate_lifetime, Duration::from_secs(24 * 3600));
    assert_eq!(config.lease, Duration::from_secs(5));
    assert_eq!(config.ca_mode, CaMode::Root);
    assert_eq!(config.log_format, LogFormat::Text);
    assert_eq!(
        config.admin_context(),
        std::path::Path::new("/tmp/x/admin.yaml")
    );
    assert!(matches!(config.ca_source(), Source::Generate(CaMode::Root)));
}

#[test]
fn senseless_values_are_usage_errors_that_say_what_is_allowed() {
    for (flag, part) in [
        ("--lease=1ms", "500ms to 300s"),
        ("--lease=soon", "lease"),
        ("--certificate-lifetime=1s", "5s to 2160h"),
        ("--trust-domain=Upper", "lower-case"),
        ("--log-level=debgu", "log-level"),
        ("--sidecar-listen=15010", "sidecar-listen"),
        ("--ca-mode=other", "intermediate"),
        ("--ca-cert=/tmp/ca.crt", "--ca-key"),
        ("--ca-root=/tmp/root.crt", "--ca-cert"),
    ] {
        let error = parse(&[flag]).unwrap_err();
        assert!(error.contains(part), "{flag}: {error}");
    }
}
