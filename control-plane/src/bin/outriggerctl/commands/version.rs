//! `version`: of this program and, where it can be reached, of the control plane.

use outrigger_proto::api::v1::GetStatusRequest;
use serde_json::json;

use crate::app::Io;
use crate::cli::{Data, Global, VersionArgs};
use crate::failure::Failure;
use crate::output::document::Document;
use crate::session::{Session, call};

const CLIENT: &str = env!("CARGO_PKG_VERSION");

pub async fn run(args: &VersionArgs, global: &Global, io: &mut Io<'_>) -> Result<(), Failure> {
    let asked = if args.client {
        None
    } else {
        Some(control_plane(global, io).await)
    };
    let server = asked.as_ref().and_then(|result| result.as_ref().ok());
    let document = match args.output {
        Data::Text => None,
        Data::Yaml => Some(Document::Yaml),
        Data::Json => Some(Document::Json),
    };
    if let Some(document) = document {
        let value = json!({"outriggerctl": CLIENT, "controlPlane": server});
        document.write(&value, io.out)?;
    } else {
        writeln!(io.out, "outriggerctl    {CLIENT}")?;
        if let Some(version) = server {
            writeln!(io.out, "control plane   {version}")?;
        }
    }
    // This program's version was shown, and still a script wants to know that the other half is missing.
    match asked {
        Some(Err(failure)) => Err(failure),
        _ => Ok(()),
    }
}

async fn control_plane(global: &Global, io: &Io<'_>) -> Result<String, Failure> {
    let session = Session::open(global, io).await?;
    match session
        .client
        .mesh()
        .get_status(call(GetStatusRequest {}))
        .await
    {
        Ok(status) => Ok(status.into_inner().version),
        Err(status) => Err(session.explain("ask for the version", &status)),
    }
}
