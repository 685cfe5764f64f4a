//! `status`: the control plane, every sidecar, and whether they are in sync.

mod show;

pub use show::name;

use std::time::Duration;

use outrigger_proto::api::v1::{
    ControlPlaneStatus, GetStatusRequest, ListSidecarsRequest, Sidecar, SidecarSync,
};

use crate::app::Io;
use crate::cli::{Global, StatusArgs, Summary};
use crate::failure::Failure;
use crate::output::document::Document;
use crate::session::{Session, call};

/// How often `--wait` looks. Sidecars acknowledge within milliseconds; a person does not notice this.
const POLL: Duration = Duration::from_millis(100);

/// What there is to show.
pub struct Report {
    pub server: String,
    pub control_plane: ControlPlaneStatus,
    pub config_version: u64,
    pub sidecars: Vec<Sidecar>,
}

pub async fn run(args: &StatusArgs, global: &Global, io: &mut Io<'_>) -> Result<(), Failure> {
    let session = Session::open(global, io).await?;
    let deadline = args.wait.map(|wait| tokio::time::Instant::now() + wait);
    let report = loop {
        let report = report(&session).await?;
        match deadline {
            Some(deadline)
                if lagging(&report).next().is_some() && tokio::time::Instant::now() < deadline =>
            {
                tokio::time::sleep_until(deadline.min(tokio::time::Instant::now() + POLL)).await;
            }
            _ => break report,
        }
    };
    match args.output {
        Summary::Table | Summary::Wide => {
            let text = show::text(
                &report,
                args.output == Summary::Wide,
                (io.now)(),
                io.color_out,
            );
            io.out.write_all(text.as_bytes())?;
        }
        Summary::Yaml => Document::Yaml.write(&show::json(&report), io.out)?,
        Summary::Json => Document::Json.write(&show::json(&report), io.out)?,
    }
    let waiting_for: Vec<String> = lagging(&report).map(name).collect();
    match args.wait {
        Some(wait) if !waiting_for.is_empty() => Err(Failure::refused(format!(
            "not in sync after {wait:?}: {}",
            waiting_for.join(", ")
        ))),
        _ => Ok(()),
    }
}

async fn report(session: &Session) -> Result<Report, Failure> {
    let mut mesh = session.client.mesh();
    let control_plane = mesh
        .get_status(call(GetStatusRequest {}))
        .await
        .map_err(|status| session.explain("get the status", &status))?
        .into_inner();
    let list = mesh
        .list_sidecars(call(ListSidecarsRequest {}))
        .await
        .map_err(|status| session.explain("list the sidecars", &status))?
        .into_inner();
    let mut sidecars = list.sidecars;
    sidecars.sort_by_cached_key(|sidecar| {
        (!sidecar.connected, name(sidecar), sidecar.instance.clone())
    });
    Ok(Report {
        server: session.server.clone(),
        control_plane,
        config_version: list.config_version,
        sidecars,
    })
}

/// Sidecars that are connected and not in sync.
fn lagging(report: &Report) -> impl Iterator<Item = &Sidecar> {
    report
        .sidecars
        .iter()
        .filter(|sidecar| sidecar.connected && sidecar.sync() != SidecarSync::Synced)
}
