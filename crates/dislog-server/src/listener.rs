//! The one port: accepts connections, speaks HTTP/1.1, HTTP/2 or the protocol between nodes on
//! each, and ends them in time.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use dislog_proto::v1::log_server::{LogServer, SERVICE_NAME as LOG};
use dislog_tls::HandshakeError;
use http::{Request, Response, header};
use http_body_util::Either;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tonic::Status;
use tower::Service as _;

use crate::access::Asking;
use crate::budget::Budgeted;
use crate::complaint::{Complaint, Complaints};
use crate::grpc::{LogService, MESSAGE_BYTES_MAX, OwnBody, unary};
use crate::identity::Caller;
use crate::node::Node;
use crate::peer;
use crate::plaintext::turn_away;
use crate::preface::{Prefixed, Protocol, detect};
use crate::security::Unwelcome;
use crate::streams::{Opened, Streams};

/// What a client may send on one HTTP/2 stream before it is read: enough for 100 MB/s at 20 ms.
const HTTP2_STREAM_WINDOW_BYTES: u32 = 2 << 20;

/// The same for all streams of a connection: what a connection can make the server hold beside the
/// budget.
const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// Larger frames than the 16 KiB of old cost fewer calls and wake-ups.
const HTTP2_FRAME_BYTES_MAX: u32 = 64 << 10;

/// What is buffered for a slow reader of one stream.
const HTTP2_SEND_BUFFER_BYTES: usize = 256 << 10;

/// Requests under way on one connection: more than any client of ours has, so that it never waits
/// for a place.
const HTTP2_STREAMS_MAX: u32 = 512;

/// All headers of a request together.
const HEADERS_BYTES_MAX: u32 = 32 << 10;

/// How often a silent HTTP/2 connection is asked whether it is still there.
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(60);

/// How long it may take to answer.
const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a TCP connection may be silent before the kernel asks; finds dead HTTP/1.1 readers of
/// streams.
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);

/// How long to wait when the system refuses to accept, having run out of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
    pub(crate) unwelcome: Arc<Complaints<(IpAddr, String)>>,
    /// Bounds them.
    pub(crate) node: Node,
}

/// Serves until the node is closing; then ends every connection, at the latest after the grace.
pub(crate) async fn serve(listener: TcpListener, services: Services) {
    let node = services.node.clone();
    let mut connections = JoinSet::new();
    tokio::select! {
        () = node.closing.wait() => {}
        () = accept_loop(&listener, &services, &mut connections) => {}
    }
    drop(listener);
    let grace = Duration::from_millis(node.config.shutdown_grace_ms);
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(grace, ended).await.is_err() {
        let count = connections.len();
        tracing::warn!(
            connections = count,
            "cut off connections that did not end within the grace"
        );
        connections.shutdown().await;
    }
}

async fn accept_loop(listener: &TcpListener, services: &Services, connections: &mut JoinSet<()>) {
    let connections_max = usize::try_from(services.node.config.connections_max)
        .unwrap_or(usize::MAX)
        .min(Semaphore::MAX_PERMITS);
    let places = Arc::new(Semaphore::new(connections_max));
    let (mut full, mut refused) = (Complaint::default(), Complaint::default());
    loop {
        if places.available_permits() == 0 && full.is_due() {
            tracing::warn!(connections_max, "all connections allowed are open; more must wait");
        }
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, from)) => {
                connections.spawn(connection(stream, from, services.clone(), place));
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                if refused.is_due() {
                    tracing::error!(%error, "cannot accept connections, trying again");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

/// The client went away before it was accepted; says nothing about the next one.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

async fn connection(
    stream: TcpStream,
    from: SocketAddr,
    services: Services,
    place: OwnedSemaphorePermit,
) {
    let counted = Counted::new(services.node.clone());
    let header_timeout = Duration::from_millis(services.node.config.header_timeout_ms);
    if let Err(error) = set_options(&stream) {
        tracing::debug!(%error, "a connection went away at once");
        return;
    }
    let head_by = Instant::now() + header_timeout;
    let closing = services.node.closing.clone();
    let greeted = tokio::select! {
        greeted = timeout_at(head_by, greet(stream, from, &services)) => greeted,
        () = closing.wait() => return,
    };
    let Ok(Some((protocol, stream, caller))) = greeted else { return };
    let ended = match protocol {
        Protocol::Http1 => {
            serve_http1(stream, Answering { services, caller }, header_timeout).await
        }
        Protocol::Http2 => serve_http2(stream, Answering { services, caller }).await,
        Protocol::Peer => {
            // Peers are heard longer than clients: until the leaderships are handed over.
            tokio::spawn(async move {
                serve_peer(stream, &services, &caller, head_by).await;
                drop((counted, place));
            });
            return;
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Finds out who is there, and which protocol they speak; nothing if they are not to be served.
async fn greet(
    stream: TcpStream,
    from: SocketAddr,
    services: &Services,
) -> Option<(Protocol, Prefixed, Caller)> {
    let (stream, subject) = match services.node.security.accept(stream).await {
        Ok(welcome) => welcome,
        Err(unwelcome) => {
            let broke = matches!(unwelcome, Unwelcome::Handshake(HandshakeError::Io(_)));
            if !broke && services.unwelcome.is_due((from.ip(), unwelcome.to_string())) {
                tracing::warn!(%from, error = %unwelcome, "refused a connection");
            }
            if let Unwelcome::Plaintext(stream) = unwelcome {
                turn_away(stream).await;
            }
            return None;
        }
    };
    let (protocol, stream) = detect(stream).await.ok()?;
    if !stream.agreed_on(protocol) {
        if services.unwelcome.is_due((from.ip(), "protocol".to_owned())) {
            tracing::warn!(%from, %subject, ?protocol, "refused a protocol not agreed on");
        }
        return None;
    }
    Some((protocol, stream, Caller { subject, from }))
}

fn set_options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(TCP_KEEPALIVE))
}

async fn serve_http1(
    stream: Prefixed,
    answering: Answering,
    header_timeout: Duration,
) -> hyper::Result<()> {
    let closing = answering.services.node.closing.clone();
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_buf_size(HEADERS_BYTES_MAX as usize)
        .serve_connection(TokioIo::new(stream), answering);
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = closing.wait() => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

async fn serve_http2(stream: Prefixed, answering: Answering) -> hyper::Result<()> {
    let closing = answering.services.node.closing.clone();
    let opened = Opened::default();
    let connection = http2::Builder::new(opened.clone())
        .timer(TokioTimer::new())
        .initial_stream_window_size(HTTP2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(HTTP2_CONNECTION_WINDOW_BYTES)
        .max_frame_size(HTTP2_FRAME_BYTES_MAX)
        .max_send_buf_size(HTTP2_SEND_BUFFER_BYTES)
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .max_header_list_size(HEADERS_BYTES_MAX)
        .keep_alive_interval(HTTP2_PING_INTERVAL)
        .keep_alive_timeout(HTTP2_PING_TIMEOUT)
        .serve_connection(TokioIo::new(stream), answering);
    let mut connection = pin!(connection);
    let mut streams = Streams::new(opened);
    tokio::select! {
        ended = streams.drive(connection.as_mut()) => return ended,
        () = closing.wait() => connection.as_mut().graceful_shutdown(),
    }
    streams.drive(connection).await
}

async fn serve_peer(stream: Prefixed, services: &Services, caller: &Caller, hello_by: Instant) {
    if let Err(error) = peer::set_options(stream.tcp()) {
        tracing::debug!(%error, "the connection of a node went away at once");
        return;
    }
    tokio::select! {
        () = services.peers.serve(stream, caller, hello_by) => {}
        () = services.node.closed.wait() => {}
    }
}

/// An open connection, counted while it lives.
struct Counted(Node);

impl Counted {
    fn new(node: Node) -> Counted {
        node.connections.fetch_add(1, Ordering::Relaxed);
        Counted(node)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

type AnswerBody = Either<unary::Answer, Body>;

type Answer = Pin<Box<dyn Future<Output = Result<Response<AnswerBody>, Infallible>> + Send>>;

/// What answers the requests of one connection.
struct Answering {
    services: Services,
    caller: Caller,
}

impl hyper::service::Service<Request<Incoming>> for Answering {
    type Response = Response<AnswerBody>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, mut request: Request<Incoming>) -> Answer {
        let Answering { services, caller } = self;
        let node = &services.node;
        if !is_grpc(&request) {
            let asking = Asking::http(node, caller, request.headers());
            request.extensions_mut().insert(asking);
            let answering = services.http.clone().call(request.map(Body::new));
            return Box::pin(async { Ok(answering.await?.map(Either::Right)) });
        }
        let (mut head, body) = request.into_parts();
        let asking = match Asking::rpc(node, caller, head.uri.path(), &head.headers) {
            Ok(asking) => asking,
            Err(failure) => {
                let refusal = Status::from(failure).into_http();
                return Box::pin(async { Ok(refusal.map(Either::Right)) });
            }
        };
        let (body, hold) = Budgeted::new(body, node.budget.clone(), MESSAGE_BYTES_MAX);
        if unary::is_plain_produce(&head) {
            let node = node.clone();
            return Box::pin(async move {
                let answer = unary::answer(&node, &asking, body).await;
                drop(hold);
                Ok(answer.map(Either::Left))
            });
        }
        head.extensions.insert(asking);
        if is_of_log(head.uri.path()) {
            let answering = services.log.clone().call(Request::from_parts(head, body));
            return Box::pin(async move {
                let answer = OwnBody::unpack(answering.await?);
                let answer = answer.map(|body| Either::Right(Body::new(body)));
                drop(hold);
                Ok(answer)
            });
        }
        let answering = services.grpc.clone().call(Request::from_parts(head, Body::new(body)));
        Box::pin(async move {
            let answer = answering.await?.map(Either::Right);
            drop(hold);
            Ok(answer)
        })
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
