//! Which sidecars hold a resource, and which refused it and why.

use outrigger_control_plane::model::{Resource as Typed, ResourceKey, Spec};
use outrigger_proto::api::v1::{Rejection, Sidecar, SidecarSync};

use super::sheet::Sheet;
use super::{Surroundings, kinds};
use crate::commands::status::name;
use crate::output::style::{GREEN, RED, YELLOW};
use crate::output::table::{Cell, Table};
use crate::output::{age, json};

/// Writes the section about sidecars.
pub fn write(resource: &Typed, around: &Surroundings, sheet: &mut Sheet) {
    let names = names(resource);
    let mut concerned: Vec<&Sidecar> = around
        .sidecars
        .iter()
        .filter(|sidecar| sidecar.connected && concerns(resource, sidecar, &names))
        .collect();
    concerned.sort_by_cached_key(|sidecar| name(sidecar));
    sheet.section("Sidecars");
    if concerned.is_empty() {
        sheet.line("<none> that is connected uses it");
        return;
    }
    let mut table = Table::new(vec!["NAME", "IDENTITY", "ANSWER", "VERSION"]);
    for sidecar in &concerned {
        let answer = if refusals(sidecar, &names).next().is_some() {
            Cell::colored("REFUSED", RED)
        } else if sidecar.sync() == SidecarSync::Pending {
            Cell::colored("pending", YELLOW)
        } else {
            Cell::colored("accepted", GREEN)
        };
        table.row(vec![
            name(sidecar).into(),
            sidecar.identity.as_str().into(),
            answer,
            sidecar.acked_version.to_string().into(),
        ]);
    }
    sheet.table(&table);
    for sidecar in concerned {
        for Rejection {
            resource,
            reason,
            at,
        } in refusals(sidecar, &names)
        {
            let ago = json::time(at.as_ref()).map_or_else(String::new, |at| {
                format!(" {} ago", age::age(at, around.now))
            });
            sheet.painted(
                RED,
                &format!(
                    "{} refused {resource}{ago}, and keeps the last good version:",
                    name(sidecar)
                ),
            );
            sheet.line(format!("  {reason}"));
        }
    }
}

fn refusals<'a>(sidecar: &'a Sidecar, names: &'a [String]) -> impl Iterator<Item = &'a Rejection> {
    sidecar
        .rejections
        .iter()
        .filter(|rejection| names.contains(&rejection.resource))
}

/// What the resource is called on the way to the sidecars. A route is part of the services that it is for.
fn names(resource: &Typed) -> Vec<String> {
    let service = |key: ResourceKey| format!("service/{}", key.qualified_name());
    match &resource.spec {
        Spec::Mesh(_) => vec!["mesh".to_owned()],
        Spec::Service(_) => vec![
            service(resource.key()),
            format!("endpoints/{}", resource.qualified_name()),
        ],
        Spec::Route(spec) => kinds::parents(spec, &resource.metadata.namespace)
            .into_iter()
            .map(service)
            .collect(),
        Spec::Workload(_) => vec!["workload".to_owned()],
    }
}

fn concerns(resource: &Typed, sidecar: &Sidecar, names: &[String]) -> bool {
    match &resource.spec {
        Spec::Mesh(_) => true,
        Spec::Workload(spec) => sidecar.instance == spec.instance,
        Spec::Service(_) | Spec::Route(_) => {
            names
                .iter()
                .any(|name| sidecar.subscriptions.contains(name))
                || refusals(sidecar, names).next().is_some()
        }
    }
}
