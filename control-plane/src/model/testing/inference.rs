//! Arbitrary `Service.spec.inference`.

use proptest::collection::btree_map;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

use super::{labels, timeout};
use crate::model::{
    CacheSalt, Engine, EngineKind, Inference, Isolation, Model, ModelMatch, ModelMatchType,
    TokenStreams, UnknownModels, Unsalted,
};

pub(super) fn inference() -> impl Strategy<Value = Inference> {
    let model = (of("[a-z]{1,4}/[a-z0-9:.]{1,6}"), labels());
    // Aliases that begin with the name are nobody else's.
    let models = btree_map("[a-z]{3,6}", (model, any::<bool>()), 0..3).prop_map(|models| {
        let model = |(name, ((served_as, subset), alias)): (String, _)| Model {
            aliases: if alias {
                vec![format!("{name}-*")]
            } else {
                Vec::new()
            },
            name,
            served_as,
            subset,
        };
        models.into_iter().map(model).collect::<Vec<_>>()
    });
    let streams = (timeout(), timeout(), timeout(), of(any::<bool>())).prop_map(
        |(first_token_timeout, token_idle_timeout, keep_alive, request_usage)| TokenStreams {
            first_token_timeout,
            token_idle_timeout,
            keep_alive,
            request_usage,
        },
    );
    let isolation = (
        of(select(vec![
            CacheSalt::Off,
            CacheSalt::Identity,
            CacheSalt::Namespace,
        ])),
        of(select(vec![Unsalted::Refuse, Unsalted::Pass])),
    )
        .prop_map(|(cache_salt, unsalted)| Isolation {
            cache_salt,
            unsalted,
        });
    (
        of(1u64..=1 << 26),
        models,
        of(select(vec![UnknownModels::Pass, UnknownModels::Refuse])),
        of(any::<bool>()),
        of("[a-z]{1,5}"),
        streams,
        (isolation, of(engine()), of(any::<bool>())),
    )
        .prop_map(
            |(
                max_body_bytes,
                models,
                unknown_models,
                answer_model_list,
                provider,
                streams,
                (isolation, engine, expose_load),
            )| {
                Inference {
                    max_body_bytes,
                    unknown_models: unknown_models.filter(|_| !models.is_empty()),
                    models,
                    answer_model_list,
                    provider,
                    streams,
                    isolation,
                    engine,
                    expose_load,
                    out_of_band_load: None,
                }
            },
        )
}

fn engine() -> impl Strategy<Value = Engine> {
    (
        of(select(EngineKind::ALL.to_vec())),
        of("/[a-z]{1,6}"),
        of(1u16..),
        of(20u64..60_000),
    )
        .prop_map(|(kind, path, port, interval)| Engine {
            kind,
            path,
            port,
            interval: interval.map(crate::model::Duration::from_millis),
        })
}

pub(super) fn model_match() -> impl Strategy<Value = ModelMatch> {
    prop_oneof![
        (
            of(Just(ModelMatchType::Exact)),
            "[a-z]{1,4}(/[a-z0-9:.]{1,6})?"
        ),
        (Just(Some(ModelMatchType::Glob)), "[a-z*]{1,4}"),
    ]
    .prop_map(|(match_type, value)| ModelMatch { match_type, value })
}
