//! The description of every path, for programs.

use axum::Json;
use utoipa::OpenApi;

use crate::http::{book, consume, probes, produce, topics};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Dislog",
        description = "A durable commit log over HTTP. The same port speaks gRPC (`log.v1.Log`).",
        license(name = "Apache-2.0"),
    ),
    paths(
        produce::post_records,
        consume::get_records,
        consume::get_record,
        topics::list_topics,
        topics::create_topic,
        topics::describe_topic,
        topics::alter_topic,
        topics::delete_topic,
        topics::trim_topic,
        probes::cluster,
        probes::livez,
        probes::readyz,
        probes::metrics,
        document,
        book::post_root,
        book::get_root,
    )
)]
struct Document;

/// This document.
#[utoipa::path(
    get, path = "/openapi.json", tag = "node", operation_id = "openapi",
    responses((status = 200, content_type = "application/json", body = String)),
)]
pub(super) async fn document() -> Json<utoipa::openapi::OpenApi> {
    Json(Document::openapi())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use axum::routing::MethodFilter;

    use super::*;
    use crate::http::routes;

    #[test]
    fn the_document_has_exactly_the_paths_that_are_routed() {
        let document = serde_json::to_value(Document::openapi()).unwrap();
        let paths = document["paths"].as_object().unwrap().iter();
        let documented: BTreeSet<(String, String)> = paths
            .flat_map(|(path, methods)| {
                let methods = methods.as_object().unwrap().keys();
                methods.map(move |method| (method.clone(), path.clone()))
            })
            .collect();
        let routed = routes().routed.into_iter();
        let routed: BTreeSet<(String, String)> =
            routed.map(|(method, path)| (name(method).to_owned(), path.to_owned())).collect();
        assert_eq!(documented, routed);
    }

    #[test]
    fn every_operation_and_field_that_is_referred_to_is_described() {
        let document = Document::openapi().to_json().unwrap();
        let value: serde_json::Value = serde_json::from_str(&document).unwrap();
        let schemas = value["components"]["schemas"].as_object().unwrap();
        for reference in document.split("#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(schemas.contains_key(name), "{name} is referred to and not there");
        }
    }

    fn name(method: MethodFilter) -> &'static str {
        match method {
            MethodFilter::GET => "get",
            MethodFilter::POST => "post",
            MethodFilter::PATCH => "patch",
            MethodFilter::DELETE => "delete",
            other => panic!("{other:?} has no name here"),
        }
    }
}
