//! The one port: accepts connections, speaks HTTP/1.1, HTTP/2 or the protocol between nodes on
//! each, and ends them in time.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dislog_tls::HandshakeError;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use crate::answering::{Answering, Services, Standing};
use crate::complaint::Complaint;
use crate::guests::Guest;
use crate::identity::{Caller, Host, Subject};
use crate::node::Node;
use crate::peer;
use crate::places::Client;
use crate::plaintext::{say_last, turn_away};
use crate::preface::{Prefixed, Protocol, detect};
use crate::security::Unwelcome;
use crate::streams::{Opened, Streams};

/// What a client may send on an HTTP/2 connection before it is read: what a connection can make the
/// server hold beside the budget. Enough for 200 MB/s at 20 ms for the first connections, and less
/// for those that come when there are many.
///
/// Ranks up to the first number have the second. A connection's rank is how many are open, or four
/// times how many its client has open, whichever is more: so one client's windows are 112 MiB at
/// most, and those of 1,024 connections 448 MiB.
const HTTP2_WINDOW_BYTES: [(usize, u32); 3] =
    [(32, 4 << 20), (128, 1 << 20), (usize::MAX, 256 << 10)];

/// How much a connection of one's own raises the rank.
const OWN_RANK: usize = 4;

/// How many of the largest frames fill a window. Larger frames than the 16 KiB of old cost fewer
/// calls and wake-ups; one that is not complete is held beside the window.
const HTTP2_FRAMES_PER_WINDOW: u32 = 16;

/// What is buffered for a slow reader of one stream.
const HTTP2_SEND_BUFFER_BYTES: usize = 256 << 10;

/// Requests under way on one connection: more than any client of ours has, so that it never waits
/// for a place.
const HTTP2_STREAMS_MAX: u32 = 512;

/// All headers of an HTTP/2 request together: the longest tokens and some more. What is larger is
/// not kept, and ends the connection if it is much larger.
const HTTP2_HEADERS_BYTES_MAX: u32 = 16 << 10;

/// What a client may refer back to in compressed headers.
const HTTP2_HEADER_TABLE_BYTES: u32 = 4 << 10;

/// Streams that a client may open and reset before they were looked at; one more ends the
/// connection. Clients that cancel requests have mostly waited for an answer.
const HTTP2_PENDING_RESETS_MAX: usize = 128;

/// Streams that the server may have to reset for errors of the client; one more ends the
/// connection.
const HTTP2_ERROR_RESETS_MAX: usize = 1_024;

/// All headers of an HTTP/1 request together, and how much of a body is read at a time.
const HTTP1_BUFFER_BYTES_MAX: usize = 32 << 10;

/// How many headers an HTTP/1 request may have.
const HTTP1_HEADERS_MAX: usize = 100;

/// How often a silent HTTP/2 connection is asked whether it is still there.
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(60);

/// How long it may take to answer.
const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a TCP connection may be silent before the kernel asks; finds dead HTTP/1.1 readers of
/// streams.
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);

/// How long to wait when the system refuses to accept, having run out of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The same when a guest was sent away for it.
const DISPLACED_PAUSE: Duration = Duration::from_millis(1);

/// How long one who is refused may take to hear why.
const REFUSED_MAX: Duration = Duration::from_secs(5);

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

/// Never waits for those who were accepted.
async fn accept_loop(listener: &TcpListener, services: &Services, connections: &mut JoinSet<()>) {
    let mut refused = Complaint::default();
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                let (guest, displaced, gone) = services.room.enter(Host::of(from.ip()));
                if let Some(host) = gone {
                    tell_of_displaced(services, host);
                }
                let connection = connection(stream, from, services.clone(), guest);
                connections.spawn(async {
                    tokio::select! {
                        biased;
                        () = connection => {}
                        () = displaced.wait() => {}
                    }
                });
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                if refused.is_due() {
                    tracing::error!(%error, "cannot accept connections, trying again");
                }
                let pause = match services.room.displace() {
                    Some(_) => DISPLACED_PAUSE,
                    None => ACCEPT_PAUSE,
                };
                tokio::time::sleep(pause).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

fn tell_of_displaced(services: &Services, host: Host) {
    if services.unwelcome.is_due((host, "guests".to_owned())) {
        tracing::warn!(
            from = %host, guests_max = services.node.config.guests_max,
            "ended connections that made no request, to make room for new ones: most of them come \
             from there; keep it out by other means if it should not do that"
        );
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

async fn connection(stream: TcpStream, from: SocketAddr, services: Services, guest: Guest) {
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
    if protocol == Protocol::Peer {
        return welcome_peer(stream, services, caller, head_by, (counted, guest)).await;
    }
    let standing = Arc::new(Standing::new(guest));
    let answering = Answering { services, caller, standing };
    let ended = match protocol {
        Protocol::Http2 => serve_http2(stream, answering).await,
        _ => serve_http1(stream, answering, header_timeout).await,
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
    let (stream, subject, pass) = match services.node.security.accept(stream).await {
        Ok(welcome) => welcome,
        Err(unwelcome) => {
            let broke = matches!(unwelcome, Unwelcome::Handshake(HandshakeError::Io(_)));
            if !broke && services.unwelcome.is_due((Host::of(from.ip()), unwelcome.to_string())) {
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
        if services.unwelcome.is_due((Host::of(from.ip()), "protocol".to_owned())) {
            tracing::warn!(%from, %subject, ?protocol, "refused a protocol not agreed on");
        }
        return None;
    }
    Some((protocol, stream, Caller { subject, from, pass }))
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
    let stay = Stay::of(&answering);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_buf_size(HTTP1_BUFFER_BYTES_MAX)
        .max_headers(HTTP1_HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), answering);
    let mut connection = pin!(connection);
    let grace = tokio::select! {
        ended = connection.as_mut() => return ended,
        grace = stay.over() => grace,
    };
    connection.as_mut().graceful_shutdown();
    timeout(grace, connection).await.unwrap_or(Ok(()))
}

async fn serve_http2(stream: Prefixed, answering: Answering) -> hyper::Result<()> {
    let stay = Stay::of(&answering);
    let window_bytes = window_bytes(rank(&answering));
    let opened = Opened::default();
    let connection = http2::Builder::new(opened.clone())
        .timer(TokioTimer::new())
        .initial_stream_window_size(window_bytes / 2)
        .initial_connection_window_size(window_bytes)
        .max_frame_size(window_bytes / HTTP2_FRAMES_PER_WINDOW)
        .max_send_buf_size(HTTP2_SEND_BUFFER_BYTES)
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .max_header_list_size(HTTP2_HEADERS_BYTES_MAX)
        .header_table_size(HTTP2_HEADER_TABLE_BYTES)
        .max_pending_accept_reset_streams(HTTP2_PENDING_RESETS_MAX)
        .max_local_error_reset_streams(HTTP2_ERROR_RESETS_MAX)
        .keep_alive_interval(HTTP2_PING_INTERVAL)
        .keep_alive_timeout(HTTP2_PING_TIMEOUT)
        .serve_connection(TokioIo::new(stream), answering);
    let mut connection = pin!(connection);
    let mut streams = Streams::new(opened);
    let grace = tokio::select! {
        ended = streams.drive(connection.as_mut()) => return ended,
        grace = stay.over() => grace,
    };
    connection.as_mut().graceful_shutdown();
    timeout(grace, streams.drive(connection)).await.unwrap_or(Ok(()))
}

/// For how long a connection of HTTP may stay.
struct Stay {
    services: Services,
    caller: Caller,
    standing: Arc<Standing>,
}

impl Stay {
    fn of(answering: &Answering) -> Stay {
        let Answering { services, caller, standing } = answering;
        let (services, caller) = (services.clone(), caller.clone());
        Stay { services, caller, standing: Arc::clone(standing) }
    }

    /// Returns once no more may be asked: how long what was may take to end.
    async fn over(self) -> Duration {
        let Stay { services, caller, standing } = self;
        let node = &services.node;
        tokio::select! {
            // All connections together have a grace.
            () = node.closing.wait() => Duration::MAX,
            () = standing.refused() => REFUSED_MAX,
            why = caller.pass.watch() => {
                tell_of_end(&services, &caller, &why);
                node.request_timeout()
            }
        }
    }
}

fn tell_of_end(services: &Services, caller: &Caller, why: &str) {
    let Caller { subject, from, .. } = caller;
    if services.unwelcome.is_due((Host::of(from.ip()), why.to_owned())) {
        tracing::info!(%from, %subject, why, "ended a connection");
    }
}

/// Guests count as well, or who makes no request until he has many connections would have large
/// windows on each.
fn rank(answering: &Answering) -> usize {
    let Answering { services, caller, .. } = answering;
    let client = Client::of(caller);
    if client == Client::Node {
        return 1;
    }
    let guests = services.room.count_of(Host::of(caller.from.ip()));
    let own = services.places.count(&client) + guests;
    (OWN_RANK * own).max(services.node.connections.load(Ordering::Relaxed))
}

fn window_bytes(rank: usize) -> u32 {
    let found = HTTP2_WINDOW_BYTES.iter().find(|(rank_max, _)| rank <= *rank_max);
    found.expect("the last is for all").1
}

/// Peers are heard longer than clients: until the leaderships are handed over. One that cannot be a
/// node stays a guest while it is told so.
async fn welcome_peer(
    stream: Prefixed,
    services: Services,
    caller: Caller,
    hello_by: Instant,
    (counted, guest): (Counted, Guest),
) {
    if services.node.security.is_on() && !matches!(caller.subject, Subject::Node(_)) {
        return serve_peer(stream, &services, &caller, hello_by).await;
    }
    match services.place(Client::Node, &caller) {
        Ok(place) => {
            drop(guest);
            tokio::spawn(async move {
                serve_peer(stream, &services, &caller, hello_by).await;
                drop((counted, place));
            });
        }
        Err(failure) => {
            // Whether it was read makes no difference.
            let refusal = peer::refusal(&failure.message);
            let _ = timeout(REFUSED_MAX, say_last(stream, &refusal)).await;
        }
    }
}

async fn serve_peer(stream: Prefixed, services: &Services, caller: &Caller, hello_by: Instant) {
    if let Err(error) = peer::set_options(stream.tcp()) {
        tracing::debug!(%error, "the connection of a node went away at once");
        return;
    }
    tokio::select! {
        () = services.peers.serve(stream, caller, hello_by) => {}
        why = caller.pass.watch() => tell_of_end(services, caller, &why),
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
