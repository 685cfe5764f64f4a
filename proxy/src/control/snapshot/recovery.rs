//! Fallbacks of rules, with what they lead to.

use std::sync::Arc;

use http::HeaderValue;

use super::Builder;
use crate::control::convert::{FallbackToSpec, RuleSpec, ServiceSpec};
use crate::policy::{Continuation, Fallback, FallbackTo, Recovery};

/// What a fallback to a response is called.
const RESPONSE: &str = "response";

impl Builder {
    pub(super) fn recovery(&mut self, service: &ServiceSpec, rule: &RuleSpec) -> Recovery {
        let mut fallbacks = Vec::with_capacity(rule.recovery.fallbacks.len());
        for fallback in &rule.recovery.fallbacks {
            let (name, to) = match &fallback.to {
                FallbackToSpec::Response(response) => {
                    (RESPONSE.into(), FallbackTo::Response(response.clone()))
                }
                FallbackToSpec::Backend(backend) => {
                    let name: Arc<str> = Arc::clone(&backend.service);
                    // Every destination was built before, under a name that was checked.
                    let Some(backend) = self.backend(service, rule, backend) else {
                        continue;
                    };
                    (name, FallbackTo::Backend(Box::new(backend)))
                }
            };
            fallbacks.push(Fallback {
                on: fallback.on,
                to,
                // A name has only characters that a header may have.
                mark: HeaderValue::from_str(&name)
                    .unwrap_or_else(|_| HeaderValue::from_static(RESPONSE)),
                metrics: self.metrics.fallback(
                    &service.name,
                    &rule.route,
                    &name,
                    fallback.model.as_ref().map_or("", |model| &model.name),
                ),
                name,
                model: fallback.model.clone(),
            });
        }
        Recovery {
            hedge: rule.recovery.hedge.clone(),
            continuation: rule.recovery.continuation.map(|spec| {
                Box::new(Continuation {
                    mode: spec.mode,
                    max_attempts: spec.max_attempts,
                    max_bytes: spec.max_bytes,
                    metrics: self.metrics.continuation(&service.name),
                })
            }),
            fallbacks: fallbacks.into(),
            expose_attempts: rule.recovery.expose_attempts,
        }
    }
}
