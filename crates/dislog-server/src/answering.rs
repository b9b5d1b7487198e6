//! Answers the requests of a connection: who asks, whether there is a place for them, and which
//! service it is for.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse;
use bytes::Bytes;
use dislog_proto::v1::log_server::{LogServer, SERVICE_NAME as LOG};
use http::{HeaderValue, Request, Response, Version, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::Either;
use hyper::body::Incoming;
use tokio::sync::Notify;
use tonic::Status;
use tower::Service as _;

use crate::access::Asking;
use crate::budget::{Budget, Budgeted};
use crate::complaint::Complaints;
use crate::grpc::{LogService, MESSAGE_BYTES_MAX, OwnBody, OwnRequests, messages, unary};
use crate::guests::{Guest, Room};
use crate::identity::{Caller, Host};
use crate::node::Node;
use crate::peer;
use crate::places::{Client, Place, Places, UnderWay};
use crate::status::Failure;

/// Paths that are answered also where there is no place: who asks them would take a refusal for the
/// end of the node.
const PROBES: [&str; 2] = ["/livez", "/readyz"];

/// What answers requests.
#[derive(Clone)]
pub(crate) struct Services {
    /// Those for records: they are the many, and go straight to their service.
    pub(crate) log: LogServer<LogService>,
    /// Others of content type `application/grpc`.
    pub(crate) grpc: Router,
    /// All others.
    pub(crate) http: Router,
    /// What takes the frames of other nodes.
    pub(crate) peers: Arc<peer::Acceptor>,
    /// Those that were not served, and why.
    pub(crate) unwelcome: Arc<Complaints<(Host, String)>>,
    /// Those that have not asked for anything yet.
    pub(crate) room: Room,
    /// Those that have.
    pub(crate) places: Arc<Places>,
    /// Bounds them.
    pub(crate) node: Node,
}

impl Services {
    /// A place for the connection of `caller`, or what it is told.
    pub(crate) fn place(&self, client: Client, caller: &Caller) -> Result<Place, Failure> {
        let place = self.places.take(client);
        if let Err(failure) = &place {
            self.complain(caller, failure);
        }
        place
    }

    fn complain(&self, caller: &Caller, failure: &Failure) {
        let Caller { subject, from, .. } = caller;
        if self.unwelcome.is_due((Host::of(from.ip()), failure.message.clone())) {
            tracing::warn!(%from, %subject, error = failure.message, "refused a client");
        }
    }
}

/// What becomes of a connection: its first request makes its guest a client with a place, or one
/// that is refused.
pub(crate) struct Standing {
    guest: Mutex<Option<Guest>>,
    place: OnceLock<Result<Place, Failure>>,
    refused: Notify,
}

impl Standing {
    /// That of a guest.
    pub(crate) fn new(guest: Guest) -> Standing {
        let guest = Mutex::new(Some(guest));
        Standing { guest, place: OnceLock::new(), refused: Notify::new() }
    }

    /// Returns when the connection was refused: it ends once that is said.
    pub(crate) async fn refused(&self) {
        self.refused.notified().await;
    }

    fn has_place(&self) -> bool {
        self.place.get().is_some_and(Result::is_ok)
    }

    fn place(&self, services: &Services, caller: &Caller) -> Result<&Place, &Failure> {
        let place = self.place.get_or_init(|| {
            let place = services.place(Client::of(caller), caller);
            match place {
                Ok(_) => drop(self.guest.lock().unwrap_or_else(PoisonError::into_inner).take()),
                Err(_) => self.refused.notify_one(),
            }
            place
        });
        place.as_ref()
    }
}

/// What answers the requests of one connection.
pub(crate) struct Answering {
    /// With what.
    pub(crate) services: Services,
    /// Whom.
    pub(crate) caller: Caller,
    /// Whether they are served.
    pub(crate) standing: Arc<Standing>,
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Answered>, Infallible>> + Send>>;

impl Answering {
    /// What a request goes on with, or why it does not.
    fn admit(&self, request: &Request<Incoming>) -> Result<Admitted, Failure> {
        let Answering { services, caller, standing } = self;
        match standing.place(services, caller) {
            Ok(place) => match place.begin() {
                Ok(under_way) => Ok((place.budget().clone(), Some(under_way))),
                Err(failure) => {
                    services.complain(caller, &failure);
                    Err(failure)
                }
            },
            Err(_) if PROBES.contains(&request.uri().path()) => {
                Ok((services.node.budget.of_client(), None))
            }
            Err(failure) => Err(failure.clone()),
        }
    }

    fn refusal(&self, request: &Request<Incoming>, failure: Failure) -> Answer {
        if is_grpc(request) {
            return refusal(Status::from(failure).into_http());
        }
        let mut answer = failure.into_response();
        if request.version() < Version::HTTP_2 && !self.standing.has_place() {
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        refusal(answer)
    }
}

/// The budget of a request's bytes, and what counts it while it lasts.
type Admitted = (Budget, Option<UnderWay>);

impl hyper::service::Service<Request<Incoming>> for Answering {
    type Response = Response<Answered>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, mut request: Request<Incoming>) -> Answer {
        let Answering { services, caller, .. } = self;
        let node = &services.node;
        let (budget, under_way) = match self.admit(&request) {
            Ok(admitted) => admitted,
            Err(failure) => return self.refusal(&request, failure),
        };
        if !is_grpc(&request) {
            let asking = Asking::http(node, caller, request.headers());
            request.extensions_mut().insert(asking);
            request.extensions_mut().insert(budget);
            let answering = services.http.clone().call(request.map(Body::new));
            return Box::pin(async { Ok(answered(answering.await?, under_way)) });
        }
        let (mut head, body) = request.into_parts();
        let asking = match Asking::rpc(node, caller, head.uri.path(), &head.headers) {
            Ok(asking) => asking,
            Err(failure) => return refusal(Status::from(failure).into_http()),
        };
        let messages = messages(head.uri.path());
        let (body, hold) = Budgeted::new(body, budget, messages, MESSAGE_BYTES_MAX);
        if unary::is_plain_produce(&head) {
            let node = node.clone();
            return Box::pin(async move {
                let answer = unary::answer(&node, &asking, body).await;
                drop(hold);
                Ok(answer.map(|body| Answered { body: Either::Left(body), _under_way: under_way }))
            });
        }
        head.extensions.insert(asking);
        if is_of_log(head.uri.path()) {
            let request = OwnRequests::pack(Request::from_parts(head, body));
            let answering = services.log.clone().call(request);
            return Box::pin(async move {
                let answer = OwnBody::unpack(answering.await?);
                drop(hold);
                Ok(answered(answer.map(Body::new), under_way))
            });
        }
        let answering = services.grpc.clone().call(Request::from_parts(head, Body::new(body)));
        Box::pin(async move {
            let answer = answering.await?;
            drop(hold);
            Ok(answered(answer, under_way))
        })
    }
}

fn answered(answer: Response<Body>, under_way: Option<UnderWay>) -> Response<Answered> {
    answer.map(|body| Answered { body: Either::Right(body), _under_way: under_way })
}

fn refusal(answer: Response<Body>) -> Answer {
    Box::pin(async { Ok(answered(answer, None)) })
}

/// The body of an answer; the request is under way until it ends.
pub(crate) struct Answered {
    body: Either<unary::Answer, Body>,
    _under_way: Option<UnderWay>,
}

impl HttpBody for Answered {
    type Data = Bytes;
    type Error = <Either<unary::Answer, Body> as HttpBody>::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn is_of_log(path: &str) -> bool {
    is_of_service(path, LOG)
}

fn is_of_service(path: &str, service: &str) -> bool {
    let method = path.strip_prefix('/').and_then(|path| path.strip_prefix(service));
    method.is_some_and(|method| method.starts_with('/'))
}

fn is_grpc<B>(request: &Request<B>) -> bool {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}
