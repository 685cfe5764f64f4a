//! Filters of a rule in words.

use outrigger_control_plane::model::{
    Cors, FaultInjection, FilterType, Fraction, HeaderModifier, PathModifier, RequestRedirect,
    RouteFilter,
};

use crate::commands::get::{local, subset, word};

/// Whether requests are answered here and go to no backend.
pub fn answers(filters: &[RouteFilter]) -> bool {
    filters.iter().any(|filter| {
        matches!(
            filter.filter_type,
            FilterType::RequestRedirect | FilterType::DirectResponse
        )
    })
}

/// One line for each thing that the filter does.
pub fn words(filter: &RouteFilter, own: &str) -> String {
    let mut lines = Vec::new();
    for (modifier, of) in [
        (&filter.request_header_modifier, "request header"),
        (&filter.response_header_modifier, "response header"),
    ] {
        lines.extend(modifier.iter().flat_map(|modifier| headers(modifier, of)));
    }
    if let Some(rewrite) = &filter.url_rewrite {
        lines.extend(
            rewrite
                .hostname
                .iter()
                .map(|host| format!("host becomes {host}")),
        );
        lines.extend(rewrite.path.iter().map(path));
    }
    lines.extend(filter.request_redirect.iter().map(redirect));
    if let Some(mirror) = &filter.request_mirror {
        let to = &mirror.backend_ref;
        let name = local(to.namespace.as_deref(), &to.name, own);
        let port = to.port.map_or_else(String::new, |port| format!(":{port}"));
        let labels = subset(&to.subset);
        let labels = if labels.is_empty() {
            labels
        } else {
            format!(" where {labels}")
        };
        lines.push(format!(
            "copy to service {name}{port}{labels}{}",
            share(mirror.share())
        ));
    }
    lines.extend(filter.cors.iter().map(cors));
    if let Some(answer) = &filter.direct_response {
        let bytes = answer.body.as_ref().map_or(0, String::len);
        lines.push(format!("answer {} with {bytes} bytes", answer.status_code));
    }
    lines.extend(filter.fault_injection.iter().flat_map(faults));
    lines.join("\n")
}

fn headers(modifier: &HeaderModifier, of: &str) -> Vec<String> {
    let removed = modifier.remove.iter();
    let set = modifier.set.iter();
    let added = modifier.add.iter();
    removed
        .map(|name| format!("remove {of} {name}"))
        .chain(set.map(|it| format!("set {of} {} to \"{}\"", it.name, it.value)))
        .chain(added.map(|it| format!("add {of} {} with \"{}\"", it.name, it.value)))
        .collect()
}

fn path(path: &PathModifier) -> String {
    match (&path.replace_full_path, &path.replace_prefix_match) {
        (Some(full), _) => format!("path becomes {}", or_root(full)),
        (None, Some(prefix)) => format!("prefix of the path becomes {}", or_root(prefix)),
        (None, None) => "path stays".to_owned(),
    }
}

fn or_root(path: &str) -> &str {
    if path.is_empty() { "/" } else { path }
}

fn redirect(redirect: &RequestRedirect) -> String {
    let mut parts = vec![format!("redirect with {}", redirect.status_code())];
    parts.extend(
        redirect
            .scheme
            .iter()
            .map(|scheme| format!("scheme {scheme}")),
    );
    parts.extend(redirect.hostname.iter().map(|host| format!("host {host}")));
    parts.extend(redirect.port.iter().map(|port| format!("port {port}")));
    parts.extend(redirect.path.iter().map(path));
    parts.join(", ")
}

fn cors(cors: &Cors) -> String {
    let credentials = if cors.allow_credentials == Some(true) {
        ", with credentials"
    } else {
        ""
    };
    format!(
        "let pages of {} call{credentials}",
        cors.allow_origins.join(", ")
    )
}

fn faults(faults: &FaultInjection) -> Vec<String> {
    let only: Vec<&str> = faults.headers.iter().map(|it| it.name.as_str()).collect();
    let only = if only.is_empty() {
        String::new()
    } else {
        format!(" where {} match", only.join(", "))
    };
    let mut lines = Vec::new();
    if let Some(delay) = faults.delay {
        let share = share(delay.share());
        lines.push(format!("delay by {}{share}{only}", delay.duration));
    }
    if let Some(abort) = faults.abort {
        let status = match (abort.status_code, &abort.grpc_status) {
            (Some(status), _) => status.to_string(),
            (None, Some(code)) => format!("gRPC {}", word(code)),
            (None, None) => String::new(),
        };
        lines.push(format!("abort with {status}{}{only}", share(abort.share())));
    }
    if let Some(truncate) = faults.truncate {
        let share = share(truncate.share());
        let bytes = truncate.after_bytes;
        lines.push(format!(
            "break responses off after {bytes} bytes{share}{only}"
        ));
    }
    lines
}

/// Nothing where it is all.
fn share(share: Fraction) -> String {
    match (share.numerator, share.denominator()) {
        (all, of) if all == of => String::new(),
        (percent, 100) => format!(" ({percent} %)"),
        (some, of) => format!(" ({some} of {of})"),
    }
}
