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
mod unread;

use axum::Router;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, Request, State};
use axum::handler::Handler;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{MethodFilter, on};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};

use crate::access::table::Need;
use crate::access::{Action, Asking};
use crate::node::Node;
use crate::status::{Failure, kinds};

/// All HTTP paths of a node.
pub(crate) fn router(node: &Node) -> Router {
    routes()
        .router
        .fallback(no_such_path)
        .method_not_allowed_fallback(method)
        .layer(from_fn_with_state(node.closing.clone(), unread::hear_out))
        .with_state(node.clone())
}

/// The router, and what was routed: methods and paths as OpenAPI names them.
struct Routes {
    router: Router<Node>,
    routed: Vec<(MethodFilter, &'static str)>,
}

/// A route and what it needs.
#[derive(Clone, Copy)]
struct Gate {
    route: &'static str,
    need: Need,
}

impl Routes {
    /// A route. What it needs is checked before it is reached, as far as its path says what it is
    /// about; otherwise the handler does it.
    fn on<H, T>(
        mut self,
        method: MethodFilter,
        route: &'static str,
        need: Need,
        handler: H,
    ) -> Routes
    where
        H: Handler<T, Node>,
        T: 'static,
    {
        let path = route.split_once(' ').map_or(route, |(_, path)| path);
        let gate = from_fn_with_state(Gate { route, need }, pass);
        self.router = self.router.route(path, on(method, handler).layer(gate));
        self.routed.push((method, path));
        self
    }
}

/// Lets those through who may have what is behind the gate.
async fn pass(
    State(Gate { route, need }): State<Gate>,
    path: Result<RawPathParams, RawPathParamsRejection>,
    mut request: Request,
    next: Next,
) -> Result<Response, Failure> {
    let path = path.map_err(|rejection| Failure::invalid(format!("the path: {rejection}")))?;
    if !request.method().is_safe() && is_of_another_site(request.headers()) {
        return Err(Failure::new(
            &kinds::PERMISSION_DENIED,
            "a web page of another site may not change anything here",
        ));
    }
    let topic = path.iter().find(|(name, _)| *name == "topic").map(|(_, topic)| topic);
    let asking = Asking::of(request.extensions());
    let asking = asking.at_route(request.headers(), route, need, topic)?;
    request.extensions_mut().insert(asking);
    Ok(next.run(request).await)
}

/// Whether a browser sends the request for a page that is not of this server: its user did not ask
/// for it. Source: Fetch Metadata, <https://www.w3.org/TR/fetch-metadata/>; older browsers say only
/// the page's origin.
fn is_of_another_site(headers: &HeaderMap) -> bool {
    let said = |name: HeaderName| headers.get(name).map(HeaderValue::as_bytes);
    if let Some(site) = said(HeaderName::from_static("sec-fetch-site")) {
        return site != b"same-origin" && site != b"none";
    }
    let origin = said(header::ORIGIN).and_then(|origin| std::str::from_utf8(origin).ok());
    let Some(origin) = origin else { return headers.contains_key(header::ORIGIN) };
    let of_origin = origin.split_once("://").map(|(_, host)| host.as_bytes());
    of_origin.is_none() || of_origin != said(header::HOST)
}

fn routes() -> Routes {
    use Need::{Cluster, Identity, Nothing, Seeing, Topic};
    let (get, post) = (MethodFilter::GET, MethodFilter::POST);
    let (produce, consume) = (Topic(Action::Produce), Topic(Action::Consume));
    let admin = Topic(Action::Admin);
    Routes { router: Router::new(), routed: Vec::new() }
        .on(post, "POST /v1/topics/{topic}/records", produce, produce::post_records)
        .on(get, "GET /v1/topics/{topic}/records", consume, consume::get_records)
        .on(get, "GET /v1/topics/{topic}/records/{offset}", consume, consume::get_record)
        .on(get, "GET /v1/topics", Identity, topics::list_topics)
        // These say in their body, or not at all, what they are about.
        .on(post, "POST /v1/topics", admin, topics::create_topic)
        .on(post, "POST /", produce, book::post_root)
        .on(get, "GET /", consume, book::get_root)
        .on(get, "GET /v1/topics/{topic}", Seeing, topics::describe_topic)
        .on(MethodFilter::PATCH, "PATCH /v1/topics/{topic}", admin, topics::alter_topic)
        .on(MethodFilter::DELETE, "DELETE /v1/topics/{topic}", admin, topics::delete_topic)
        .on(post, "POST /v1/topics/{topic}/trim", admin, topics::trim_topic)
        .on(get, "GET /v1/cluster", Identity, probes::cluster)
        .on(get, "GET /livez", Nothing, probes::livez)
        .on(get, "GET /readyz", Nothing, probes::readyz)
        .on(get, "GET /metrics", Cluster(Action::Consume), probes::metrics)
        .on(get, "GET /openapi.json", Identity, openapi::document)
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
