//! The clients of `--unary`: a gRPC request for each record, with as little work as can be.
//!
//! What is to be measured is the server, and on a small machine it shares the processors with its
//! clients. So these clients are plain `h2`, without the layers of a client library: the head of
//! a request is made once, all clients of a connection are one task, and what they have to send at
//! the same time leaves in one write. No answer is taken on trust for that: each must have its
//! HTTP and gRPC status and tell of one record, behind the last one of its client.
//!
//! Left out: retries, other servers than the one that led at the start, compression. A failure ends
//! the measurement.

use std::fmt::Display;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use dislog_client::ClientTls;
use dislog_proto::{DEFAULT_PORT, v1};
use dislog_tls::Stream;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use h2::client::{Builder, ResponseFuture, SendRequest};
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use prost::Message;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use super::gathered::{self, Outgoing};
use super::produce::{Source, Tally};
use crate::failure::{Exit, Failure};

/// The method of each request.
const PRODUCE: &str = "/log.v1.Log/Produce";

/// The bytes before a gRPC message: a flag and the length, big-endian.
const PREFIX_BYTES: usize = 5;

/// What the server may send ahead: answers are small.
const ANSWERS_WINDOW_BYTES: u32 = 1 << 20;

/// How long after the end of the run answers may be outstanding: longer than a server takes to
/// give up by itself.
const LAST_ANSWER_WAIT: Duration = Duration::from_secs(60);

/// Clients that share a connection; each adds its records one after the other until the end.
/// Returns how many each had acknowledged, by its maker.
pub(super) async fn run(
    server: &str,
    tls: Option<&ClientTls>,
    topic: &str,
    sources: Vec<Source>,
    tally: &Tally,
) -> Result<Vec<(u64, u64)>, Failure> {
    let lost = |error: &dyn Display| {
        Failure::new(Exit::Unavailable, format!("the connection to {server} failed: {error}"))
    };
    let (host, uri) = (host(server), format!("http://{}{PRODUCE}", host(server)));
    let stream = TcpStream::connect(&host).await.map_err(|error| lost(&error))?;
    stream.set_nodelay(true).map_err(|error| lost(&error))?;
    let stream = match tls {
        Some(tls) => tls.connect(&host, stream).await.map_err(|error| lost(&error))?,
        None => Stream::Plain(stream),
    };
    let (io, outgoing) = gathered::split(stream);
    let (sender, connection) = Builder::new()
        .initial_window_size(ANSWERS_WINDOW_BYTES)
        .initial_connection_window_size(ANSWERS_WINDOW_BYTES)
        .handshake(io)
        .await
        .map_err(|error| lost(&error))?;
    let head = Request::post(uri)
        .header(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"))
        .header(header::TE, HeaderValue::from_static("trailers"))
        .body(())
        .map_err(|error| Failure::usage(format!("{server} is no address: {error}")))?;
    let clients: FuturesUnordered<_> = sources
        .into_iter()
        .map(|source| {
            let client = Client { sender: sender.clone(), head: head.clone(), topic, source };
            client.run(tally)
        })
        .collect();
    drop(sender);
    let driving = drive(clients, connection, outgoing);
    let end = Instant::from_std(tally.end()) + LAST_ANSWER_WAIT;
    let ended = timeout_at(end, driving).await;
    ended.unwrap_or_else(|_| Err(lost(&"an answer did not come")))
}

/// Lets clients and their connection take turns: what the clients send in one turn leaves together.
async fn drive<T>(
    mut clients: FuturesUnordered<impl Future<Output = Result<T, Failure>>>,
    connection: impl Future<Output = Result<(), h2::Error>>,
    mut outgoing: Outgoing,
) -> Result<Vec<T>, Failure> {
    let mut connection = pin!(connection);
    let mut done = Vec::with_capacity(clients.len());
    let mut turn = |cx: &mut Context<'_>| {
        while let Poll::Ready(client) = clients.poll_next_unpin(cx) {
            match client {
                Some(client) => done.push(client?),
                None => return Poll::Ready(Ok(std::mem::take(&mut done))),
            }
        }
        loop {
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                let why = ended.map_or_else(failed, |()| failed("the server closed it"));
                return Poll::Ready(Err(why));
            }
            match outgoing.poll_send(cx) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) | Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(failed(error))),
            }
        }
    };
    poll_fn(move |cx| turn(cx)).await
}

fn failed(error: impl Display) -> Failure {
    Failure::new(Exit::Unavailable, format!("the connection failed: {error}"))
}

/// One client.
struct Client<'a> {
    sender: SendRequest<Bytes>,
    head: Request<()>,
    topic: &'a str,
    source: Source,
}

impl Client<'_> {
    async fn run(mut self, tally: &Tally) -> Result<(u64, u64), Failure> {
        let (mut number, mut next_offset) = (0, 0);
        while let Some((due, record)) = self.source.next(number).await {
            let answer = self.produce(record.value).await?;
            if answer.offset < next_offset || answer.count != 1 || answer.duplicate {
                return Err(Failure::new(Exit::Failed, format!("a wrong answer: {answer:?}")));
            }
            tally.done(due);
            next_offset = answer.offset + 1;
            number += 1;
        }
        Ok((self.source.maker, number))
    }

    async fn produce(&mut self, value: Bytes) -> Result<v1::ProduceResponse, Failure> {
        let record = v1::Record { value, ..v1::Record::default() };
        let request = v1::ProduceRequest {
            records: vec![record],
            topic: self.topic.to_owned(),
            ..v1::ProduceRequest::default()
        };
        poll_fn(|cx| self.sender.poll_ready(cx)).await.map_err(failed)?;
        let (response, mut body) =
            self.sender.send_request(self.head.clone(), false).map_err(failed)?;
        body.send_data(framed(&request), true).map_err(failed)?;
        answer(response).await
    }
}

/// The request as a gRPC message.
fn framed(request: &v1::ProduceRequest) -> Bytes {
    let bytes = request.encoded_len();
    let mut message = BytesMut::with_capacity(PREFIX_BYTES + bytes);
    message.put_u8(0);
    message.put_u32(u32::try_from(bytes).expect("a record is smaller"));
    request.encode(&mut message).expect("there is room for it");
    message.freeze()
}

/// The answer, which says that the record was appended.
async fn answer(response: ResponseFuture) -> Result<v1::ProduceResponse, Failure> {
    let (head, mut body) = response.await.map_err(failed)?.into_parts();
    if head.status != StatusCode::OK {
        return Err(Failure::new(Exit::Failed, format!("the server answered {}", head.status)));
    }
    let mut message = Bytes::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(failed)?;
        body.flow_control().release_capacity(data.len()).map_err(failed)?;
        message = if message.is_empty() { data } else { [message, data].concat().into() };
    }
    let trailers = body.trailers().await.map_err(failed)?;
    // An answer without a message has its status in the head.
    check_status(trailers.as_ref().unwrap_or(&head.headers))?;
    decode(&message)
}

fn check_status(headers: &HeaderMap) -> Result<(), Failure> {
    if headers.get(Status::GRPC_STATUS).is_some_and(|status| status == "0") {
        return Ok(());
    }
    let refused = match Status::from_header_map(headers) {
        Some(status) => format!("the server refused a record: {}", status.message()),
        None => "an answer has no gRPC status".to_owned(),
    };
    Err(Failure::new(Exit::Failed, refused))
}

fn decode(message: &[u8]) -> Result<v1::ProduceResponse, Failure> {
    let wrong = || Failure::new(Exit::Failed, format!("an answer cannot be read: {message:?}"));
    let (prefix, content) = message.split_at_checked(PREFIX_BYTES).ok_or_else(wrong)?;
    let length = u32::try_from(content.len()).map_err(|_| wrong())?.to_be_bytes();
    if prefix[0] != 0 || prefix[1..] != length {
        return Err(wrong());
    }
    v1::ProduceResponse::decode(content).map_err(|_| wrong())
}

/// `host:port` of a server as it is named on the command line.
fn host(server: &str) -> String {
    let host = server.trim().trim_start_matches("http://").trim_start_matches("https://");
    let host = host.trim_end_matches('/');
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if has_port { host.to_owned() } else { format!("{host}:{DEFAULT_PORT}") }
}
