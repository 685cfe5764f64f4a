#![allow(clippy::unwrap_used)]
use bytes::Bytes;

use super::NotReplaced;
use crate::inference::api::Api;
use crate::inference::probe;
use crate::inference::request::ModelRequest;
use crate::policy::{Inference, Model, ModelMatch, TokenStreams};

fn inference(served_as: Option<&str>, request_usage: bool) -> Inference {
    Inference {
        models: vec![Model {
            name: "tiny".into(),
            aliases: vec![ModelMatch::pattern("small-*")],
            served_as: served_as.map(Box::from),
            subset: Default::default(),
        }],
        streams: TokenStreams {
            request_usage,
            ..TokenStreams::default()
        },
        ..Inference::default()
    }
}

/// The body as it is sent; `None`: as it came.
fn edited(inference: &Inference, body: &str) -> Option<String> {
    let body = Bytes::copy_from_slice(body.as_bytes());
    let mut request = ModelRequest::new(Api::Chat);
    probe::read(&mut request, &body).unwrap();
    let edits = request.edits(inference)?;
    let edited = request.edited(&edits).concat();
    assert_eq!(edited.len() as i64, body.len() as i64 + edits.growth());
    Some(String::from_utf8(edited).unwrap())
}

#[test]
fn a_name_is_replaced_and_all_else_stays() {
    let renamed = inference(Some("org/t\"1"), false);
    let body = |name: &str| format!("{{ \"a\" :1.0,\"model\" : \"{name}\" ,\"b\":\"\\u00e9\"}}\n");
    assert_eq!(edited(&renamed, &body("tiny")), Some(body("org/t\\\"1")));
    assert_eq!(edited(&renamed, &body("small-2")), Some(body("org/t\\\"1")));
    assert_eq!(edited(&renamed, &body("large")), None);
    assert_eq!(edited(&renamed, "{}"), None);
    // An alias is the model's name to its server.
    let same = inference(None, false);
    assert_eq!(edited(&same, &body("tiny")), None);
    assert_eq!(edited(&same, &body("small-2")), Some(body("tiny")));
}

#[test]
fn usage_is_asked_for_where_the_client_did_not() {
    let asks = inference(None, true);
    for (body, sent) in [
        (
            r#"{"stream":true}"#,
            r#"{"stream_options":{"include_usage":true},"stream":true}"#,
        ),
        (
            r#"{"stream":true,"stream_options":null}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
        ),
        (
            r#"{"stream":true,"stream_options":{}}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
        ),
        (
            r#"{"stream":true,"stream_options":{"x":1}}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true,"x":1}}"#,
        ),
        (
            r#"{"stream_options":{"include_usage":false},"stream":true}"#,
            r#"{"stream_options":{"include_usage":true},"stream":true}"#,
        ),
        (
            r#"{"stream":true,"model":"small-1"}"#,
            r#"{"stream_options":{"include_usage":true},"stream":true,"model":"tiny"}"#,
        ),
    ] {
        assert_eq!(edited(&asks, body).as_deref(), Some(sent), "{body}");
    }
    for body in [
        r#"{"stream":false}"#,
        r#"{}"#,
        r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
    ] {
        assert_eq!(edited(&asks, body), None, "{body}");
    }
}

#[test]
fn another_model_is_asked_for() {
    let ask = |body: &str, model: &str, inference: Option<&Inference>| {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let mut request = ModelRequest::new(Api::Chat);
        probe::read(&mut request, &body).unwrap();
        let edits = request.edits_to(model, inference)?;
        let edited = edits.map(|edits| {
            let edited = request.edited(&edits).concat();
            assert_eq!(edited.len() as i64, body.len() as i64 + edits.growth());
            String::from_utf8(edited).unwrap()
        });
        Ok(edited)
    };
    let target = inference(Some("org/tiny"), true);
    let large = r#"{"model":"large","n":1}"#;
    let to = |model: &str| Ok(Some(format!(r#"{{"model":"{model}","n":1}}"#)));
    // A service that says nothing of models, one that lists it by name or alias, and one that does not list it.
    assert_eq!(ask(large, "tiny", None), to("tiny"));
    assert_eq!(ask(large, "tiny", Some(&target)), to("org/tiny"));
    assert_eq!(ask(large, "small-1", Some(&target)), to("org/tiny"));
    assert_eq!(ask(large, "mid", Some(&target)), to("mid"));
    assert_eq!(ask(large, "a\"b", None), to("a\\\"b"));
    assert_eq!(ask(large, "large", None), Ok(None));
    // Usage is the target's wish.
    let stream = r#"{"model":"large","stream":true}"#;
    let wished =
        r#"{"stream_options":{"include_usage":true},"model":"org/tiny","stream":true}"#.to_owned();
    assert_eq!(ask(stream, "tiny", Some(&target)), Ok(Some(wished)));
    // A request that leaves the choice to the server.
    let unnamed = |rest: &str| Ok(Some(format!(r#"{{"model":"tiny"{rest}}}"#)));
    assert_eq!(ask(r#"{"n":1}"#, "tiny", None), unnamed(r#","n":1"#));
    assert_eq!(ask("{}", "tiny", None), unnamed(""));
    // What is not understood is not replaced, and nothing is sent that could be read in two ways.
    for body in [
        r#"{"model":7}"#,
        r#"{"model":null}"#,
        r#"{"Model":"large"}"#,
        "no JSON",
        "",
    ] {
        assert_eq!(ask(body, "tiny", None), Err(NotReplaced), "{body}");
    }
}
