use http::{HeaderMap, HeaderValue, Method};

use super::{Api, kserve_model};

#[test]
fn requests_are_told_apart_by_method_and_path() {
    let none = HeaderMap::new();
    for (method, path, api) in [
        (Method::POST, "/v1/chat/completions", Some(Api::Chat)),
        (Method::POST, "/v1/chat/completions/", Some(Api::Chat)),
        (
            Method::POST,
            "/openai/deployments/x/chat/completions",
            Some(Api::Chat),
        ),
        (Method::POST, "/v1/completions", Some(Api::Completions)),
        (Method::POST, "/v1/embeddings", Some(Api::Embeddings)),
        (Method::POST, "/v1/responses", Some(Api::Responses)),
        (Method::POST, "/v1/messages", Some(Api::Messages)),
        (Method::POST, "/v1/audio/transcriptions", Some(Api::Audio)),
        (Method::POST, "/v1/rerank", Some(Api::Other)),
        (Method::POST, "/v2/models/m/infer", Some(Api::Kserve)),
        (Method::GET, "/v1/models", Some(Api::ListModels)),
        (Method::GET, "/v1/chat/completions", None),
        (Method::GET, "/health", None),
        (Method::POST, "/infer", None),
    ] {
        assert_eq!(Api::of(&method, path, &none), api, "{method} {path}");
    }
    let mut grpc = HeaderMap::new();
    grpc.insert("content-type", HeaderValue::from_static("application/grpc"));
    let path = "/inference.GRPCInferenceService/ModelInfer";
    assert_eq!(Api::of(&Method::POST, path, &grpc), Some(Api::KserveGrpc));
    assert_eq!(Api::of(&Method::POST, "/v1/x", &grpc), None);
}

#[test]
fn a_path_names_the_model() {
    assert_eq!(kserve_model("/v2/models/m/infer"), Some("m"));
    assert_eq!(
        kserve_model("/v2/models/m/versions/3/generate_stream"),
        Some("m")
    );
    assert_eq!(kserve_model("/p/v2/models/m/generate"), Some("m"));
    assert_eq!(kserve_model("/v2/models/m"), None);
    assert_eq!(kserve_model("/v2/models/m/ready"), None);
    assert_eq!(kserve_model("/v2/models//infer"), None);
}

#[test]
fn table_is_in_the_order_of_the_discriminants() {
    for (index, api) in Api::ALL.into_iter().enumerate() {
        assert_eq!(api as usize, index);
    }
}
