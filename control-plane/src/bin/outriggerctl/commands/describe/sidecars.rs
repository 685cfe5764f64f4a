//! Which sidecars use a resource, and which refused it and why.

use outrigger_control_plane::model::{
    Resource as Typed, ResourceKey, ServiceSpec, Spec, WorkloadSpec, relate::implied_hosts,
};
use outrigger_proto::api::v1::{Rejection, Sidecar, SidecarSync};

use super::sheet::Sheet;
use super::{Surroundings, route};
use crate::commands::status::name;
use crate::output::style::{GREEN, RED, YELLOW};
use crate::output::table::{Cell, Table};
use crate::output::{age, json};

/// Writes the section about sidecars.
pub fn write(resource: &Typed, around: &Surroundings, sheet: &mut Sheet) {
    sheet.section("Sidecars");
    let count = |key: &str| {
        resource
            .status
            .as_ref()
            .and_then(|status| status[key].as_u64())
    };
    if let Some(accepted) = count("acceptedBy") {
        let refused = count("refusedBy").unwrap_or(0);
        sheet.line(format!("accepted by {accepted}, refused by {refused}"));
    }
    let sources = Sources::of(resource, around);
    let mut concerned: Vec<&Sidecar> = around
        .sidecars
        .iter()
        .filter(|sidecar| sidecar.connected && sources.reach(sidecar))
        .collect();
    if concerned.is_empty() {
        sheet.line("<none> that is connected uses it");
        return;
    }
    concerned.sort_by_cached_key(|sidecar| name(sidecar));
    let mut table = Table::new(vec!["NAME", "IDENTITY", "ANSWER", "VERSION"]);
    for sidecar in &concerned {
        let answer = if sources.refusals(sidecar).next().is_some() {
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
        } in sources.refusals(sidecar)
        {
            let at = json::time(at.as_ref());
            let ago = at.map_or_else(String::new, |at| {
                format!(" {} ago", age::age(at, around.now))
            });
            let title = format!(
                "{} refused {resource}{ago}, and keeps the last good version:",
                name(sidecar)
            );
            sheet.painted(RED, &title);
            sheet.line(format!("  {reason}"));
        }
    }
}

/// As what a resource reaches sidecars. A route is part of the services that it is for.
struct Sources<'a> {
    everyone: bool,
    instance: Option<&'a str>,
    /// Names of resources on the sidecars' stream.
    names: Vec<String>,
    services: Vec<(ResourceKey, Option<&'a ServiceSpec>)>,
    /// Instances that get it as part of their `workload`.
    serving: Vec<&'a str>,
}

impl<'a> Sources<'a> {
    fn of(resource: &'a Typed, around: &'a Surroundings) -> Self {
        let mut sources = Self {
            everyone: false,
            instance: None,
            names: Vec::new(),
            services: Vec::new(),
            serving: Vec::new(),
        };
        match &resource.spec {
            Spec::Mesh(_) => {
                sources.everyone = true;
                sources.names.push("mesh".to_owned());
            }
            Spec::Workload(spec) => sources.instance = Some(&spec.instance),
            Spec::Service(spec) => sources.services.push((resource.key(), Some(spec.as_ref()))),
            Spec::RateLimit(spec) => {
                let namespace = &resource.metadata.namespace;
                let targets = spec.target_refs.iter();
                let targets: Vec<String> = targets
                    .map(|target| format!("{namespace}/{}", target.name))
                    .collect();
                let workloads = around.resources.iter().filter_map(Typed::as_workload);
                let serves = |workload: &&WorkloadSpec| {
                    let mut endpoints = workload.endpoints.iter();
                    endpoints.any(|endpoint| targets.contains(&endpoint.service))
                };
                let serving = workloads.filter(serves);
                sources.serving = serving.map(|workload| &*workload.instance).collect();
            }
            Spec::Route(spec) => {
                for key in route::parents(spec, &resource.metadata.namespace) {
                    let service = around
                        .resources
                        .iter()
                        .find(|resource| resource.key() == key);
                    sources
                        .services
                        .push((key, service.and_then(Typed::as_service)));
                }
            }
        }
        for (key, _) in &sources.services {
            sources
                .names
                .push(format!("service/{}", key.qualified_name()));
            if key == &resource.key() {
                sources
                    .names
                    .push(format!("endpoints/{}", key.qualified_name()));
            }
        }
        sources
    }

    fn reach(&self, sidecar: &Sidecar) -> bool {
        self.everyone
            || self.instance == Some(&sidecar.instance)
            || self.serving.contains(&&*sidecar.instance)
            || self.refusals(sidecar).next().is_some()
            || sidecar.subscriptions.iter().any(|name| {
                self.names.contains(name)
                    || name
                        .strip_prefix("host/")
                        .is_some_and(|host| self.means(host, &sidecar.identity))
            })
    }

    /// Whether one of the services is what `authority` means to a sidecar of this identity.
    fn means(&self, authority: &str, identity: &str) -> bool {
        let host = authority
            .rsplit_once(':')
            .map_or(authority, |(host, _)| host);
        self.services.iter().any(|(key, spec)| {
            let own = host == key.name && identity.contains(&format!("/ns/{}/sa/", key.namespace));
            own || implied_hosts(&key.namespace, &key.name)
                .iter()
                .any(|implied| implied == host)
                || spec.is_some_and(|spec| spec.hosts.iter().any(|pattern| covers(pattern, host)))
        })
    }

    fn refusals<'s>(&'s self, sidecar: &'s Sidecar) -> impl Iterator<Item = &'s Rejection> {
        sidecar.rejections.iter().filter(|rejection| {
            self.instance == Some(&sidecar.instance)
                || self.names.contains(&rejection.resource)
                || (rejection.resource == "workload" && self.serving.contains(&&*sidecar.instance))
        })
    }
}

/// Whether `host` is `pattern`, or ends in it where that is `*.suffix`.
fn covers(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
        None => pattern == host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        assert!(covers("chat.models", "chat.models"));
        assert!(covers("*.chat.example", "a.b.chat.example"));
        assert!(!covers("*.chat.example", "chat.example"));
        assert!(!covers("*.chat.example", ".chat.example"));
        assert!(!covers("chat.models", "xchat.models"));
    }
}
