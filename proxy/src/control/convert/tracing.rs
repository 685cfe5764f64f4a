//! Traces of a mesh.

use http::Uri;
use outrigger_proto::dataplane::v1 as wire;
use rustls_pki_types::CertificateDer;

use super::Reason;
use crate::policy::Tracing;

pub(super) fn tracing(tracing: &wire::Tracing) -> Result<Tracing, Reason> {
    let endpoint = &tracing.endpoint;
    let wanted =
        || format!("tracing.endpoint: {endpoint:?}, not a URL like \"http://collector:4317\"");
    let uri: Uri = endpoint.parse().map_err(|_| wanted())?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none_or(str::is_empty) {
        return Err(wanted());
    }
    let percent = tracing.sampling_percent;
    if !(0.0..=100.0).contains(&percent) {
        return Err(format!(
            "tracing.sampling_percent: {percent}, allowed are 0 to 100"
        ));
    }
    let roots = tracing.ca_certificates.iter();
    Ok(Tracing {
        endpoint: endpoint.as_str().into(),
        sampling_percent: percent,
        roots: roots.map(|der| CertificateDer::from(der.clone())).collect(),
    })
}
