//! Which of the served ports a request is for.

use std::sync::Arc;

use crate::policy::{InboundPort, Snapshot};

/// By the name that the peer asked for in its TLS handshake.
pub(super) fn by_server_name<'a>(
    snapshot: &'a Snapshot,
    name: &str,
) -> Option<&'a Arc<InboundPort>> {
    snapshot.inbound.get(name)
}

/// For plaintext, where there is only the host: by the names that the service has for everybody, else the only one there is.
pub(super) fn by_host<'a>(
    snapshot: &'a Snapshot,
    host: &str,
    port: Option<u16>,
) -> Option<&'a Arc<InboundPort>> {
    let mut named = snapshot.inbound.values().filter(|each| names(each, host));
    if let Some(port) = port
        && let Some(found) = named.clone().find(|each| each.port == port)
    {
        return Some(found);
    }
    // A peer that connects to the sidecar's own address gives that address' port.
    if let (Some(only), None) = (named.next(), named.next()) {
        return Some(only);
    }
    let mut all = snapshot.inbound.values();
    match (all.next(), all.next()) {
        (Some(only), None) => Some(only),
        _ => None,
    }
}

fn names(port: &InboundPort, host: &str) -> bool {
    let Some((namespace, name)) = port.service.split_once('/') else {
        return false;
    };
    let Some(rest) = strip_prefix(host, name) else {
        return false;
    };
    if rest.is_empty() {
        return true;
    }
    let rest = rest
        .strip_prefix('.')
        .and_then(|rest| strip_prefix(rest, namespace));
    rest.is_some_and(|rest| {
        ["", ".svc", ".svc.cluster.local"]
            .iter()
            .any(|suffix| suffix.eq_ignore_ascii_case(rest))
    })
}

fn strip_prefix<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::by_host;
    use crate::policy::{Detection, InboundPort, Protocol, Snapshot, TcpLimits};
    use std::sync::Arc;

    fn snapshot(served: &[(&str, u16)]) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (service, port) in served {
            let inbound = InboundPort {
                signals: None,
                inference: None,
                gate: None,
                rate_limits: None,
                service: Arc::from(*service),
                port: *port,
                protocol: Protocol::Http,
                application: "127.0.0.1:1".parse().unwrap(),
                stream_idle_timeout: None,
                proxy_protocol: None,
                tcp: TcpLimits::default(),
                detection: Detection::default(),
                pool: Arc::default(),
            };
            snapshot
                .inbound
                .insert(format!("{port}.{service}").into(), Arc::new(inbound));
        }
        snapshot
    }

    fn found(served: &[(&str, u16)], host: &str, port: Option<u16>) -> Option<(String, u16)> {
        let snapshot = snapshot(served);
        by_host(&snapshot, host, port).map(|each| (each.service.to_string(), each.port))
    }

    #[test]
    fn hosts_of_plaintext_requests() {
        let two = [("default/chat", 80), ("default/embed", 80)];
        let chat = Some(("default/chat".to_owned(), 80));
        for host in [
            "chat",
            "CHAT.default",
            "chat.default.svc",
            "chat.default.svc.cluster.local",
        ] {
            assert_eq!(found(&two, host, None), chat, "{host}");
            assert_eq!(found(&two, host, Some(15006)), chat, "{host}");
        }
        for host in [
            "chats",
            "chat.other",
            "chat.default.example",
            "10.0.0.1",
            "",
        ] {
            assert_eq!(found(&two, host, None), None, "{host}");
        }
        // The only one that is served needs no name.
        assert_eq!(found(&two[..1], "10.0.0.1", Some(15006)), chat);
        let ports = [("default/chat", 80), ("default/chat", 81)];
        assert_eq!(
            found(&ports, "chat", Some(81)),
            Some(("default/chat".to_owned(), 81))
        );
        assert_eq!(found(&ports, "chat", None), None);
    }
}
