//! HTTP: records as JSON, lines, events or bytes; topics; probes; the book's two forms.
//!
//! The document at `/openapi.json` describes every path; a test holds the two together. Every
//! refusal is a problem document (RFC 9457).

mod body;
mod book;
mod consume;
mod ndjson;
mod openapi;
mod params;
mod probes;
mod problem;
mod produce;
mod record_json;
mod tail;
mod topics;

use axum::Router;
use axum::handler::Handler;
use axum::routing::{MethodFilter, on};
use http::{Method, Uri};

use crate::node::Node;
use crate::status::{Failure, kinds};

/// All HTTP paths of a node.
pub(crate) fn router(node: &Node) -> Router {
    routes()
        .router
        .fallback(no_such_path)
        .method_not_allowed_fallback(method)
        .with_state(node.clone())
}

/// The router, and what was routed: methods and paths as OpenAPI names them.
struct Routes {
    router: Router<Node>,
    routed: Vec<(MethodFilter, &'static str)>,
}

impl Routes {
    fn on<H, T>(mut self, method: MethodFilter, path: &'static str, handler: H) -> Routes
    where
        H: Handler<T, Node>,
        T: 'static,
    {
        self.router = self.router.route(path, on(method, handler));
        self.routed.push((method, path));
        self
    }
}

fn routes() -> Routes {
    const RECORDS: &str = "/v1/topics/{topic}/records";
    const TOPIC: &str = "/v1/topics/{topic}";
    Routes { router: Router::new(), routed: Vec::new() }
        .on(MethodFilter::POST, RECORDS, produce::post_records)
        .on(MethodFilter::GET, RECORDS, consume::get_records)
        .on(MethodFilter::GET, "/v1/topics/{topic}/records/{offset}", consume::get_record)
        .on(MethodFilter::GET, "/v1/topics", topics::list_topics)
        .on(MethodFilter::POST, "/v1/topics", topics::create_topic)
        .on(MethodFilter::GET, TOPIC, topics::describe_topic)
        .on(MethodFilter::PATCH, TOPIC, topics::alter_topic)
        .on(MethodFilter::DELETE, TOPIC, topics::delete_topic)
        .on(MethodFilter::POST, "/v1/topics/{topic}/trim", topics::trim_topic)
        .on(MethodFilter::GET, "/v1/cluster", probes::cluster)
        .on(MethodFilter::GET, "/livez", probes::livez)
        .on(MethodFilter::GET, "/readyz", probes::readyz)
        .on(MethodFilter::GET, "/metrics", probes::metrics)
        .on(MethodFilter::GET, "/openapi.json", openapi::document)
        .on(MethodFilter::POST, "/", book::post_root)
        .on(MethodFilter::GET, "/", book::get_root)
}

async fn no_such_path(uri: Uri) -> Failure {
    let message = format!("there is nothing at {}; /openapi.json lists what there is", uri.path());
    Failure::new(&kinds::NO_SUCH_PATH, message)
}

async fn method(method: Method, uri: Uri) -> Failure {
    let path = uri.path();
    let message = format!("{method} is not a method of {path}; /openapi.json lists what there is");
    Failure::new(&kinds::METHOD, message)
}
