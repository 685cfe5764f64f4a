//! `status`: the control plane, every sidecar, and whether they are in sync.

mod show;

pub use show::name;

use std::time::Duration;

use outrigger_proto::api::v1::{
    ControlPlaneStatus, GetStatusRequest, ListSidecarsRequest, Sidecar, SidecarSync,
};
use tokio::time::Instant;

use crate::app::Io;
use crate::cli::{Global, StatusArgs, Summary};
use crate::failure::Failure;
use crate::output::document::Document;
use crate::session::{Session, call};

/// How often `--wait` looks. What was applied just before is compiled and on its way within some 5 ms, but not at once: so
/// all must be in sync twice in a row.
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
    let report = match args.wait {
        None => report(&session).await?,
        Some(wait) => settled(&session, wait).await?,
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

/// The state once all connected sidecars are in sync and stay so, or when the time is up.
async fn settled(session: &Session, wait: Duration) -> Result<Report, Failure> {
    let deadline = Instant::now() + wait;
    let mut settled_at = None;
    loop {
        let report = report(session).await?;
        let settled = lagging(&report).next().is_none();
        if settled && settled_at == Some(report.config_version) || Instant::now() >= deadline {
            return Ok(report);
        }
        settled_at = settled.then_some(report.config_version);
        tokio::time::sleep_until(deadline.min(Instant::now() + POLL)).await;
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
