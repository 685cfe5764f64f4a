//! Filters of rules. What passes here needs no check when a request comes.

use bytes::Bytes;
use http::uri::Authority;
use http::{HeaderName, HeaderValue, StatusCode};
use outrigger_proto::dataplane::v1 as wire;
use wire::filter::Kind;

use super::service::{backend, header_match};
use super::{BackendSpec, Reason, list, port, timeout};
use crate::policy::filters::{
    Abort, AllowList, Cors, DirectResponse, FaultInjection, Filter, HeaderModifier, Origin,
    PathModifier, Redirect, Scheme, Share, UrlRewrite, is_modifiable,
};

/// The contract's default, and the Gateway API's.
const MAX_AGE_SECONDS: u64 = 5;

/// A filter, checked.
#[derive(Debug)]
pub(in crate::control) enum FilterSpec {
    Ready(Filter),
    /// Its backend is a name still.
    Mirror(BackendSpec, Share),
}

pub(super) fn filter(wire: &wire::Filter) -> Result<FilterSpec, Reason> {
    let kind = wire
        .kind
        .as_ref()
        .ok_or(": none, or of a kind that this version does not know")?;
    let within = |field: &'static str| move |problem: Reason| format!("{field}.{problem}");
    let ready = match kind {
        Kind::RequestHeaders(it) => {
            Filter::RequestHeaders(headers(it).map_err(within("request_headers"))?)
        }
        Kind::ResponseHeaders(it) => {
            Filter::ResponseHeaders(headers(it).map_err(within("response_headers"))?)
        }
        Kind::UrlRewrite(it) => Filter::Rewrite(rewrite(it).map_err(within("url_rewrite"))?),
        Kind::Redirect(it) => Filter::Redirect(redirect(it).map_err(within("redirect"))?),
        Kind::Mirror(it) => return mirror(it).map_err(within("mirror")),
        Kind::Cors(it) => Filter::Cors(cors(it).map_err(within("cors"))?),
        Kind::DirectResponse(it) => {
            Filter::DirectResponse(direct(it).map_err(within("direct_response"))?)
        }
        Kind::FaultInjection(it) => Filter::Fault(faults(it).map_err(within("fault_injection"))?),
    };
    Ok(FilterSpec::Ready(ready))
}

fn headers(wire: &wire::HeaderModifier) -> Result<HeaderModifier, Reason> {
    let pair = |header: &wire::Header| {
        let name = header_name("name", &header.name)?;
        Ok((name, header_value("value", &header.value)?))
    };
    Ok(HeaderModifier {
        set: list("set", &wire.set, pair)?,
        add: list("add", &wire.add, pair)?,
        remove: list("remove", &wire.remove, |name| header_name("", name))?,
    })
}

fn header_name(field: &str, text: &str) -> Result<HeaderName, Reason> {
    let name = HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| format!("{field}: {text:?} is not a header's name"))?;
    if is_modifiable(&name) {
        Ok(name)
    } else {
        Err(format!(
            "{field}: {text:?} concerns the connection, the message's framing or the mesh, and cannot be changed"
        ))
    }
}

/// Without CR, LF and other control characters: a value can be nothing but a value.
fn header_value(field: &str, text: &str) -> Result<HeaderValue, Reason> {
    HeaderValue::from_str(text)
        .map_err(|_| format!("{field}: {text:?} has characters that a header cannot have"))
}

fn rewrite(wire: &wire::UrlRewrite) -> Result<UrlRewrite, Reason> {
    Ok(UrlRewrite {
        hostname: hostname(&wire.hostname)?,
        path: wire.path.as_ref().map(path).transpose()?,
    })
}

/// An authority without port and user.
fn hostname(text: &str) -> Result<Option<Authority>, Reason> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse()
        .ok()
        .filter(|authority: &Authority| authority.host() == text)
        .map(Some)
        .ok_or_else(|| format!("hostname: {text:?} is not a host without a port"))
}

fn path(wire: &wire::PathModifier) -> Result<PathModifier, Reason> {
    use wire::path_modifier::Kind;
    match &wire.kind {
        Some(Kind::FullPath(path)) => PathModifier::full(path),
        Some(Kind::Prefix(it)) => PathModifier::prefix(&it.prefix, &it.replacement),
        None => return Err("path: neither full_path nor prefix".into()),
    }
    .map_err(|error| format!("path: {error}"))
}

fn redirect(wire: &wire::Redirect) -> Result<Redirect, Reason> {
    let scheme = match wire.scheme.as_str() {
        "" => None,
        "http" => Some(Scheme::Http),
        "https" => Some(Scheme::Https),
        other => return Err(format!("scheme: {other:?} is neither http nor https")),
    };
    let status = match wire.status {
        0 => StatusCode::FOUND,
        301 => StatusCode::MOVED_PERMANENTLY,
        302 => StatusCode::FOUND,
        303 => StatusCode::SEE_OTHER,
        307 => StatusCode::TEMPORARY_REDIRECT,
        308 => StatusCode::PERMANENT_REDIRECT,
        other => {
            return Err(format!(
                "status: {other} is none of 301, 302, 303, 307, 308"
            ));
        }
    };
    Ok(Redirect {
        scheme,
        hostname: hostname(&wire.hostname)?.map(|host| host.as_str().into()),
        port: match wire.port {
            0 => None,
            number => Some(port("port", number)?),
        },
        path: wire.path.as_ref().map(path).transpose()?,
        status,
    })
}

fn mirror(wire: &wire::Mirror) -> Result<FilterSpec, Reason> {
    let to = wire.backend.as_ref().ok_or("backend: unset")?;
    let to = backend(to).map_err(|problem| format!("backend.{problem}"))?;
    Ok(FilterSpec::Mirror(to, share(wire.fraction)?))
}

/// Unset: all.
fn share(wire: Option<wire::Fraction>) -> Result<Share, Reason> {
    let Some(wire) = wire else {
        return Ok(Share::ALL);
    };
    let denominator = if wire.denominator == 0 {
        100
    } else {
        wire.denominator
    };
    if wire.numerator > denominator {
        return Err(format!(
            "fraction: {} of {denominator} is more than all",
            wire.numerator
        ));
    }
    Ok(Share {
        numerator: wire.numerator,
        denominator,
    })
}

fn cors(wire: &wire::Cors) -> Result<Cors, Reason> {
    let max_age = match timeout("max_age", wire.max_age)? {
        Some(age) => age.as_secs(),
        None => MAX_AGE_SECONDS,
    };
    Ok(Cors {
        origins: list("allow_origins", &wire.allow_origins, |origin| {
            Origin::new(origin).map_err(|error| format!(": {error}"))
        })?,
        credentials: wire.allow_credentials,
        methods: allow_list("allow_methods", &wire.allow_methods)?,
        headers: allow_list("allow_headers", &wire.allow_headers)?,
        expose: match allow_list("expose_headers", &wire.expose_headers)? {
            AllowList::Simple => None,
            AllowList::These(names) => Some(names),
            // Browsers would take it for a name.
            AllowList::Any if wire.allow_credentials => {
                return Err("expose_headers: \"*\" means nothing with credentials".into());
            }
            AllowList::Any => Some(HeaderValue::from_static("*")),
        },
        max_age: HeaderValue::from(max_age),
    })
}

/// Methods or names of headers: both are tokens (RFC 9110, section 5.6.2).
fn allow_list(field: &str, words: &[String]) -> Result<AllowList, Reason> {
    if words.is_empty() {
        return Ok(AllowList::Simple);
    }
    if words.iter().any(|word| word == "*") {
        return Ok(AllowList::Any);
    }
    let words = list(field, words, |word| {
        match HeaderName::from_bytes(word.as_bytes()) {
            Ok(_) => Ok(word.clone()),
            Err(_) => Err(format!(
                ": {word:?} is neither a method nor a header's name"
            )),
        }
    })?;
    Ok(AllowList::These(header_value(field, &words.join(", "))?))
}

pub(super) fn direct(wire: &wire::DirectResponse) -> Result<DirectResponse, Reason> {
    let status = final_status("status", wire.status)?;
    if matches!(status.as_u16(), 204 | 304) && !wire.body.is_empty() {
        return Err(format!(
            "body: a response with the status {status} has none"
        ));
    }
    Ok(DirectResponse {
        status,
        content_type: match wire.content_type.as_str() {
            "" => None,
            text => Some(header_value("content_type", text)?),
        },
        body: Bytes::from(wire.body.clone()),
    })
}

/// 200 to 599: what is below is not the end of an exchange.
fn final_status(field: &str, number: u32) -> Result<StatusCode, Reason> {
    u16::try_from(number)
        .ok()
        .filter(|number| (200..600).contains(number))
        .and_then(|number| StatusCode::from_u16(number).ok())
        .ok_or_else(|| format!("{field}: {number} is not a status from 200 to 599"))
}

fn faults(wire: &wire::FaultInjection) -> Result<FaultInjection, Reason> {
    use wire::fault_injection::abort::Status;
    let delay = |delay: &wire::fault_injection::Delay| {
        let pause = timeout("duration", delay.duration)?.ok_or("duration: unset")?;
        Ok::<_, Reason>((pause, share(delay.fraction)?))
    };
    let abort = |abort: &wire::fault_injection::Abort| {
        let status = match abort.status {
            Some(Status::Http(number)) => Abort::Http(final_status("http", number)?),
            // <https://github.com/grpc/grpc/blob/master/doc/statuscodes.md>
            Some(Status::Grpc(code @ 1..=16)) => Abort::Grpc(code as u16),
            Some(Status::Grpc(code)) => {
                return Err(format!("grpc: {code} is not a code from 1 to 16"));
            }
            None => return Err("status: unset".to_owned()),
        };
        Ok((status, share(abort.fraction)?))
    };
    let within = |field: &'static str| move |problem: Reason| format!("{field}.{problem}");
    let truncate = wire.truncate.as_ref();
    Ok(FaultInjection {
        headers: list("headers", &wire.headers, header_match)?,
        delay: wire
            .delay
            .as_ref()
            .map(delay)
            .transpose()
            .map_err(within("delay"))?,
        abort: wire
            .abort
            .as_ref()
            .map(abort)
            .transpose()
            .map_err(within("abort"))?,
        truncate: truncate
            .map(|truncate| Ok((truncate.after_bytes, share(truncate.fraction)?)))
            .transpose()
            .map_err(within("truncate"))?,
    })
}

#[cfg(test)]
mod tests;
