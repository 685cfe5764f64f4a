//! Whether the tokens that a request to a model may use are there.

use std::rc::Rc;

use http::header::{HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Response};

use crate::admission::tokens::{self, Estimate};
use crate::admission::{RateLimits, Report, Subject};
use crate::error::Reason;
use crate::http::arrival::Arrived;
use crate::http::exchange::Exchange;
use crate::http::headers;
use crate::http::response::ResponseBody;
use crate::identity::SpiffeId;
use crate::inference::{Api, ModelRequest};
use crate::policy::InboundPort;
use crate::policy::matching::RequestFacts;

/// Of a prompt that was not read, by its length: as [`prompt`](crate::inference) estimates text.
const BYTES_PER_TOKEN: u64 = 4;

/// A request that a budget refuses.
pub(super) struct Refused {
    report: Report,
    detail: String,
}

impl Refused {
    pub(super) fn answer(self, exchange: Box<Exchange>) -> Response<ResponseBody> {
        let Refused { report, detail } = self;
        exchange.fail_with(Reason::TokenBudget, &detail, |headers: &mut HeaderMap| {
            report.write(headers);
            headers.insert(RETRY_AFTER, HeaderValue::from(report.retry_after()));
        })
    }
}

/// What keys are made of. The model's name is the service's own: an alias has no budget of its own.
pub(super) fn subject<'a>(
    port: &'a InboundPort,
    request: &'a Arrived,
    caller: Option<&'a SpiffeId>,
) -> Subject<'a> {
    let model = request.model.as_deref();
    let name = model.and_then(ModelRequest::name).map(|name| {
        let inference = port.inference.as_ref();
        let known = inference.and_then(|it| Some(&*it.models[it.find(name)?].name));
        known.unwrap_or(name)
    });
    Subject {
        caller,
        model: name,
        tenant: model.and_then(|model| model.tenant.as_deref()),
    }
}

/// Reserves what a request may use, until its end. A request that is none to a model uses no tokens.
pub(super) fn reserve(
    limits: &RateLimits,
    facts: &RequestFacts<'_>,
    subject: &Subject<'_>,
    request: &Arrived,
    exchange: &mut Exchange,
) -> Result<Option<Report>, Refused> {
    let Some(model) = request.model.as_deref() else {
        return Ok(None);
    };
    if model.api == Api::ListModels {
        return Ok(None);
    }
    let estimate = estimate(model, &request.head.headers);
    match tokens::reserve(&limits.budgets, &limits.refusals, facts, subject, estimate) {
        Ok(None) => Ok(None),
        Ok(Some((meter, standing))) => {
            exchange.set_meter(Rc::new(meter));
            Ok(standing.map(Report::from))
        }
        Err(refused) => {
            // What the limits of requests have counted is given back.
            limits.give_back(limits.limits.len(), facts, subject);
            let tokens::Refused {
                budget,
                standing,
                needed,
            } = refused;
            let advice = if needed > budget.tokens {
                "; no window has as many: ask for less with max_tokens"
            } else {
                ""
            };
            Err(Refused {
                detail: format!(
                    "the budget {:?} of {} does not have the {needed} tokens that the request may use: {} in {:?}{advice}",
                    budget.name, budget.policy, budget.tokens, budget.per
                ),
                report: standing.into(),
            })
        }
    }
}

fn estimate(model: &ModelRequest, headers: &HeaderMap) -> Estimate {
    let by_length = || headers::content_length(headers).unwrap_or(0) / BYTES_PER_TOKEN;
    let output = match model.api {
        // No answer of theirs has tokens.
        Api::Embeddings => Some(0),
        _ => model
            .max_tokens
            .map(|most| u64::from(most) * u64::from(model.choices.max(1))),
    };
    Estimate {
        input: model.prompt_tokens.map_or_else(by_length, u64::from),
        output,
        choices: model.choices,
    }
}
