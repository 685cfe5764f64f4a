//! `explain`: what a request would meet.

use outrigger_control_plane::api::convert::from_struct;
use outrigger_proto::api::v1::{ExplainRequest, ExplainResponse, ExplainedTimeout, RequestHeader};
use serde_json::{Map, Value, json};

use crate::app::Io;
use crate::cli::{ExplainArgs, Explained, Global};
use crate::commands::describe::sheet::Sheet;
use crate::failure::{Exit, Failure};
use crate::output::document::Document;
use crate::output::table::Table;
use crate::session::{Session, call};

pub async fn run(args: &ExplainArgs, global: &Global, io: &mut Io<'_>) -> Result<(), Failure> {
    let request = ExplainRequest {
        identity: args.from.clone(),
        method: args.method.to_ascii_uppercase(),
        url: args.url.clone(),
        headers: args
            .headers
            .iter()
            .map(|header| parse(header))
            .collect::<Result<_, _>>()?,
        model: args.model.clone().unwrap_or_default(),
    };
    let session = Session::open(global, io).await?;
    let response = session
        .client
        .mesh()
        .explain(call(request))
        .await
        .map_err(|status| session.explain("explain the request", &status))?
        .into_inner();
    match args.output {
        Explained::Table => {
            let text = text(args, &response, io.color_out);
            io.out.write_all(text.as_bytes())?;
        }
        Explained::Yaml => Document::Yaml.write(&document(&response), io.out)?,
        Explained::Json => Document::Json.write(&document(&response), io.out)?,
    }
    Ok(())
}

fn parse(header: &str) -> Result<RequestHeader, Failure> {
    let Some((name, value)) = header.split_once(':') else {
        let text = format!("{header:?} is not a header; write it as 'name: value'");
        return Err(Failure::new(Exit::Usage, text));
    };
    Ok(RequestHeader {
        name: name.trim().to_owned(),
        value: value.trim().to_owned(),
    })
}

fn text(args: &ExplainArgs, response: &ExplainResponse, color: bool) -> String {
    let mut sheet = Sheet::new(color);
    sheet.field(
        "Request",
        format!("{} {}", args.method.to_ascii_uppercase(), args.url),
    );
    if let Some(model) = &args.model {
        sheet.field("Model", model);
    }
    sheet.field("From", &args.from);
    sheet.field(
        "Configuration",
        format!("version {}", response.config_version),
    );
    if let Some(refused) = &response.refused {
        sheet.field(
            "Answer",
            format!("{} {}\n{}", refused.status, refused.reason, refused.detail),
        );
    }
    for hint in &response.hints {
        sheet.field("Hint", hint);
    }
    if response.rule > 0 {
        sheet.field(
            "Service",
            format!("{}, port {}", response.service, response.port),
        );
        let route = match response.route.as_str() {
            "" => "built in: to the service itself".to_owned(),
            route => format!("route {route}"),
        };
        sheet.field(
            "Rule",
            format!("{} of {}: {route}", response.rule, response.rules),
        );
        let matched = response.matched.as_ref().map(from_struct);
        sheet.field("Matched", matched.map_or("everything".to_owned(), lines));
        let timeouts: Vec<String> = response.timeouts.iter().map(timeout).collect();
        sheet.field("Timeouts", timeouts.join("\n"));
        backends(response, &mut sheet);
        policies(response, &mut sheet);
    }
    passed_over(response, &mut sheet);
    if !response.rejections.is_empty() {
        sheet.section("The sidecar would refuse");
        for rejection in &response.rejections {
            sheet.line(rejection);
        }
    }
    sheet.finish()
}

fn timeout(timeout: &ExplainedTimeout) -> String {
    let after = timeout.after.unwrap_or_default();
    let millis =
        after.seconds.unsigned_abs() * 1000 + u64::from(after.nanos.unsigned_abs()) / 1_000_000;
    let after = outrigger_control_plane::model::Duration::from_millis(millis);
    format!("{} {after} ({})", timeout.name, timeout.level)
}

fn backends(response: &ExplainResponse, sheet: &mut Sheet) {
    let mut table = Table::new(vec![
        "SERVICE",
        "PORT",
        "PROTOCOL",
        "WEIGHT",
        "SHARE",
        "ENDPOINTS",
    ]);
    for backend in &response.backends {
        let mut endpoints: Vec<String> = backend
            .endpoints
            .iter()
            .map(|endpoint| endpoint.address.clone())
            .collect();
        endpoints.extend(backend.dns.iter().map(|name| format!("DNS {name}")));
        table.row(vec![
            backend.service.as_str().into(),
            backend.port.to_string().into(),
            backend.protocol.as_str().into(),
            backend.weight.to_string().into(),
            format!("{:.1} %", backend.percent).into(),
            endpoints.join(", ").into(),
        ]);
    }
    sheet.section("Backends");
    sheet.table(&table);
}

/// What a rule and its service say besides what stands above; nothing is left out that a later version adds.
fn policies(response: &ExplainResponse, sheet: &mut Sheet) {
    const SHOWN: [&str; 7] = [
        "route",
        "matches",
        "backends",
        "timeouts",
        "ports",
        "endpoints",
        "dns",
    ];
    let parts = [
        ("Rule's policies", &response.policy),
        ("Service's policies", &response.service_policy),
    ];
    for (title, part) in parts {
        let Some(Value::Object(mut fields)) = part.as_ref().map(from_struct) else {
            continue;
        };
        fields.retain(|name, _| !SHOWN.contains(&name.as_str()));
        sheet.section(title);
        for line in lines(Value::Object(fields)).lines() {
            sheet.line(line);
        }
    }
}

fn passed_over(response: &ExplainResponse, sheet: &mut Sheet) {
    if response.passed_over.is_empty() {
        return;
    }
    let mut table = Table::new(vec!["RULE", "ROUTE", "DOES NOT MATCH BY"]);
    for rule in &response.passed_over {
        let route = match rule.route.as_str() {
            "" => "<built in>",
            route => route,
        };
        table.row(vec![
            rule.rule.to_string().into(),
            route.into(),
            rule.unmet.join(", ").into(),
        ]);
    }
    sheet.section("Rules before it");
    sheet.table(&table);
}

/// YAML without what is not set.
fn lines(mut value: Value) -> String {
    prune(&mut value);
    let text = serde_yaml::to_string(&value).unwrap_or_default();
    text.trim_end().to_owned()
}

fn prune(value: &mut Value) {
    let is_nothing = |value: &Value| match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    };
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(prune);
            fields.retain(|_, value| !is_nothing(value));
        }
        Value::Array(items) => items.iter_mut().for_each(prune),
        _ => {}
    }
}

fn document(response: &ExplainResponse) -> Value {
    let part = |part: &Option<prost_types::Struct>| part.as_ref().map(from_struct);
    let backends: Vec<Value> = response
        .backends
        .iter()
        .map(|backend| {
            let endpoints = backend.endpoints.iter().map(|endpoint| {
                json!({
                    "address": endpoint.address,
                    "identity": endpoint.identity,
                    "mtls": endpoint.mtls,
                    "weight": endpoint.weight,
                })
            });
            json!({
                "service": backend.service,
                "port": backend.port,
                "protocol": backend.protocol,
                "weight": backend.weight,
                "percent": backend.percent,
                "endpoints": endpoints.collect::<Vec<_>>(),
                "dns": backend.dns,
            })
        })
        .collect();
    let timeouts: Map<String, Value> = response
        .timeouts
        .iter()
        .map(|it| {
            let shown = timeout(it);
            let after = shown.split(' ').nth(1).unwrap_or_default();
            (
                it.name.clone(),
                json!({ "after": after, "level": it.level }),
            )
        })
        .collect();
    let passed_over: Vec<Value> = response
        .passed_over
        .iter()
        .map(|rule| json!({ "rule": rule.rule, "route": rule.route, "unmet": rule.unmet }))
        .collect();
    json!({
        "configVersion": response.config_version,
        "refused": response.refused.as_ref().map(|refused| {
            json!({ "reason": refused.reason, "status": refused.status, "detail": refused.detail })
        }),
        "hints": response.hints,
        "service": response.service,
        "port": response.port,
        "route": response.route,
        "rule": response.rule,
        "rules": response.rules,
        "matched": part(&response.matched),
        "backends": backends,
        "timeouts": timeouts,
        "policy": part(&response.policy),
        "servicePolicy": part(&response.service_policy),
        "passedOver": passed_over,
        "rejections": response.rejections,
    })
}

#[cfg(test)]
mod tests;
