//! `describe`: one resource in words, and what the sidecars make of it.

mod balancing;
mod budgets;
mod connections;
mod filters;
mod health;
mod inference;
mod kinds;
pub mod limits;
mod policy;
mod recovery;
mod route;
mod service;
pub mod sheet;
mod sidecars;

use outrigger_control_plane::model::{Kind, Resource as Typed, Spec};
use outrigger_proto::api::v1::{ListRequest, ListSidecarsRequest, Resource, Sidecar};

use crate::app::Io;
use crate::cli::{DescribeArgs, Global};
use crate::failure::Failure;
use crate::output::json;
use crate::session::{Session, call};
use crate::target::{self, Target};
use sheet::Sheet;

/// What stands around the resource.
struct Surroundings {
    /// All services, routes and workloads that this program understands.
    resources: Vec<Typed>,
    sidecars: Vec<Sidecar>,
    now: jiff::Timestamp,
}

pub async fn run(args: &DescribeArgs, global: &Global, io: &mut Io<'_>) -> Result<(), Failure> {
    let keys = match target::parse(&args.words, args.scope.namespace.as_deref())? {
        Target::Named(keys) => keys,
        // The mesh has one name only.
        Target::Kinds(kinds) if kinds == [Kind::Mesh] => {
            vec![outrigger_control_plane::model::ResourceKey::mesh()]
        }
        Target::Kinds(_) => {
            let words = args.words.join(" ");
            return Err(Failure::usage(format!("`describe {words}` names no resource"))
                .hint(format!("Name it: `outriggerctl describe {words} NAME`; `outriggerctl get {words}` lists them.")));
        }
    };
    let session = Session::open(global, io).await?;
    let mut described = Vec::new();
    for key in &keys {
        described.push(super::get::get_one(key, &session).await?);
    }
    let around = Surroundings {
        now: (io.now)(),
        ..surroundings(&session).await?
    };
    for (index, resource) in described.iter().enumerate() {
        if index > 0 {
            writeln!(io.out, "\n")?;
        }
        io.out
            .write_all(describe(resource, &around, io.color_out).as_bytes())?;
    }
    Ok(())
}

async fn surroundings(session: &Session) -> Result<Surroundings, Failure> {
    let list = session
        .client
        .resources()
        .list(call(ListRequest::default()))
        .await;
    let list = list
        .map_err(|status| session.explain("list resources", &status))?
        .into_inner();
    let sidecars = session
        .client
        .mesh()
        .list_sidecars(call(ListSidecarsRequest {}))
        .await;
    let sidecars = sidecars
        .map_err(|status| session.explain("list the sidecars", &status))?
        .into_inner();
    Ok(Surroundings {
        resources: list.resources.iter().filter_map(typed).collect(),
        sidecars: sidecars.sidecars,
        now: jiff::Timestamp::UNIX_EPOCH,
    })
}

fn typed(resource: &Resource) -> Option<Typed> {
    serde_json::from_value(json::resource(resource)).ok()
}

fn describe(resource: &Resource, around: &Surroundings, color: bool) -> String {
    let mut sheet = Sheet::new(color);
    kinds::head(resource, around.now, &mut sheet);
    let Some(typed) = typed(resource) else {
        // From a newer control plane: the spec as it is.
        let spec = json::resource(resource)["spec"].take();
        sheet.section("Spec");
        for line in serde_yaml::to_string(&spec).unwrap_or_default().lines() {
            sheet.line(line);
        }
        return sheet.finish();
    };
    let own = typed.metadata.namespace.as_str();
    match &typed.spec {
        Spec::Mesh(spec) => kinds::mesh(spec, &mut sheet),
        Spec::Service(spec) => {
            service::service(&typed, spec, around, &mut sheet);
            health::unavailable(&json::resource(resource)["status"], &mut sheet);
        }
        Spec::Route(spec) => route::route(spec, own, &mut sheet),
        Spec::RateLimit(spec) => {
            limits::rate_limit(spec, own, &mut sheet);
            budgets::usage(&json::resource(resource)["status"], &mut sheet);
        }
        Spec::Workload(spec) => kinds::workload(spec, &mut sheet),
    }
    sidecars::write(&typed, around, &mut sheet);
    sheet.finish()
}
