//! The requests of a `ProduceStream`, decoded without tonic.
//!
//! tonic goes on using the buffer in which it gathers messages, so that a batch in it is shared and
//! would be copied again to be stamped. Here each message has memory to itself. Requests that say
//! how they are encoded are left to tonic, which knows what to make of that.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use dislog_cluster::count_parts;
use dislog_proto::v1;
use dislog_types::BatchError;
use dislog_types::limits::BATCH_PARTS_MAX;
use futures_util::Stream;
use http::Request;
use http_body::Body as HttpBody;
use http_body_util::{Either, Empty};
use prost::Message as _;
use tonic::Status;
use tonic::body::Body;

use super::MESSAGE_BYTES_MAX;
use super::unary::{PREFIX_BYTES, framed_bytes, names_encoding};
use crate::status::Failure;

/// The path of the method.
const PRODUCE_STREAM: &str = "/log.v1.Log/ProduceStream";

/// The records of a request and the headers of each, by their fields' numbers.
const PART_TAGS: &[u32] = &[1, 11];

/// The request that a message is. Of what it would take much more memory than it has, nothing is
/// made.
pub(super) fn decoded(message: Bytes) -> Result<v1::ProduceRequest, Status> {
    if count_parts(&message, PART_TAGS) > BATCH_PARTS_MAX {
        return Err(Failure::from(BatchError::Parts).into());
    }
    v1::ProduceRequest::decode(message).map_err(|error| Status::internal(error.to_string()))
}

/// The requests of one stream, in their order; the first failure is the last of them.
pub(super) struct Requests(Pin<Box<dyn Stream<Item = Outcome> + Send>>);

type Outcome = Result<v1::ProduceRequest, Status>;

impl Requests {
    /// These.
    pub(super) fn new(requests: impl Stream<Item = Outcome> + Send + 'static) -> Requests {
        Requests(Box::pin(requests))
    }
}

impl Stream for Requests {
    type Item = Outcome;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Outcome>> {
        self.0.as_mut().poll_next(cx)
    }
}

/// The body of a request, to be decoded here; goes with it as its extension.
#[derive(Clone)]
pub(crate) struct OwnRequests(Arc<Mutex<Option<Gathering>>>);

impl OwnRequests {
    /// As given, or with its body in an extension if it is to be decoded here.
    pub(crate) fn pack<B>(request: Request<B>) -> Request<Either<B, Empty<Bytes>>>
    where
        B: HttpBody<Data = Bytes, Error: Into<tonic::codegen::StdError>> + Send + 'static,
    {
        let is_own = request.uri().path() == PRODUCE_STREAM;
        if !is_own || names_encoding(request.headers()) {
            return request.map(Either::Left);
        }
        let (mut head, body) = request.into_parts();
        let requests = Gathering::new(Body::new(body));
        head.extensions.insert(OwnRequests(Arc::new(Mutex::new(Some(requests)))));
        Request::from_parts(head, Either::Right(Empty::new()))
    }

    /// Those of a packed request; once.
    pub(super) fn unpack(extensions: &tonic::Extensions) -> Option<Requests> {
        let own = extensions.get::<OwnRequests>()?;
        let requests = own.0.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(Requests::new(requests))
    }
}

/// A body, and what has come of its next message.
struct Gathering {
    body: Body,
    /// What came last and is not part of a message yet.
    rest: Bytes,
    /// The next message with its prefix.
    message: BytesMut,
    ended: bool,
}

impl Gathering {
    fn new(body: Body) -> Gathering {
        Gathering { body, rest: Bytes::new(), message: BytesMut::new(), ended: false }
    }

    /// Moves what has come into the next message; the message, if that completes it.
    fn gather(&mut self) -> Result<Option<Bytes>, Status> {
        self.take_up_to(PREFIX_BYTES);
        let Some(framed_bytes) = framed_bytes(&self.message) else { return Ok(None) };
        if self.message[0] != 0 {
            return Err(Status::internal("the message is compressed, without saying how"));
        }
        let message_bytes = framed_bytes - PREFIX_BYTES;
        if message_bytes > MESSAGE_BYTES_MAX {
            return Err(Status::out_of_range(format!(
                "the message has {message_bytes} bytes, the limit is {MESSAGE_BYTES_MAX}"
            )));
        }
        self.take_up_to(framed_bytes);
        if self.message.len() < framed_bytes {
            return Ok(None);
        }
        let mut whole = std::mem::take(&mut self.message).freeze();
        whole.advance(PREFIX_BYTES);
        Ok(Some(whole))
    }

    /// Adds to the message until it has so many bytes.
    fn take_up_to(&mut self, bytes: usize) {
        let missing = bytes.saturating_sub(self.message.len());
        self.message.reserve(missing);
        self.message.put(self.rest.split_to(missing.min(self.rest.len())));
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<v1::ProduceRequest>, Status>> {
        loop {
            if let Some(message) = self.gather()? {
                return Poll::Ready(decoded(message).map(Some));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => self.rest = frame.into_data().unwrap_or_default(),
                Some(Err(status)) => return Poll::Ready(Err(status)),
                None if self.message.is_empty() => return Poll::Ready(Ok(None)),
                None => {
                    let message = "the stream ends within a message";
                    return Poll::Ready(Err(Status::internal(message)));
                }
            }
        }
    }
}

impl Stream for Gathering {
    type Item = Outcome;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Outcome>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let next = ready!(self.poll(cx)).transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        Poll::Ready(next)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::{StreamExt as _, stream};
    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;

    fn request(batch: &[u8]) -> v1::ProduceRequest {
        let batch = Bytes::copy_from_slice(batch);
        v1::ProduceRequest { topic: "t".to_owned(), batch, ..v1::ProduceRequest::default() }
    }

    fn framed(request: &v1::ProduceRequest) -> Vec<u8> {
        let mut framed = vec![0];
        framed.extend_from_slice(&(request.encoded_len() as u32).to_be_bytes());
        request.encode(&mut framed).unwrap();
        framed
    }

    async fn gathered(pieces: Vec<Bytes>) -> Vec<Result<v1::ProduceRequest, Status>> {
        let frames = pieces.into_iter().map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
        let body = StreamBody::new(stream::iter(frames));
        Gathering::new(Body::new(body)).collect().await
    }

    #[tokio::test]
    async fn requests_may_come_in_any_pieces() {
        let requests = [request(b"one"), v1::ProduceRequest::default(), request(&[2; 300])];
        let sent: Bytes = requests.iter().flat_map(framed).collect();
        for size in 1..sent.len() {
            let mut pieces: Vec<Bytes> =
                sent.chunks(size).map(|piece| sent.slice_ref(piece)).collect();
            pieces.insert(pieces.len() / 2, Bytes::new());
            let gathered: Result<Vec<_>, Status> = gathered(pieces).await.into_iter().collect();
            assert_eq!(gathered.unwrap(), requests, "in pieces of {size}");
        }
    }

    #[tokio::test]
    async fn a_batch_has_its_memory_to_itself() {
        let sent = Bytes::from([framed(&request(&[1; 5_000])), framed(&request(b"2"))].concat());
        let first = gathered(vec![sent]).await.swap_remove(0).unwrap();
        let place = first.batch.as_ptr();
        assert_eq!(BytesMut::from(first.batch).as_ptr(), place, "it was copied to be changed");
    }

    #[test]
    fn many_empty_records_and_headers_are_refused_before_they_are_made() {
        let records = |count: usize| Bytes::from([0x0a, 0].repeat(count));
        assert_eq!(decoded(records(BATCH_PARTS_MAX)).unwrap().records.len(), BATCH_PARTS_MAX);
        // One record, and in it as many headers.
        let headers = [0x5a, 0].repeat(BATCH_PARTS_MAX);
        let header = v1::Header::default();
        let record = v1::Record { headers: vec![header; 2], ..v1::Record::default() };
        assert_eq!(record.encode_to_vec(), [0x5a, 0, 0x5a, 0]);
        let mut one = vec![0x0a];
        prost::encoding::encode_varint(headers.len() as u64, &mut one);
        for refused in [records(BATCH_PARTS_MAX + 1), Bytes::from([one, headers].concat())] {
            let status = decoded(refused).unwrap_err();
            assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status}");
            assert!(status.message().contains("131072 records and headers"), "{status}");
        }
    }

    #[tokio::test]
    async fn what_is_no_message_ends_the_stream() {
        let too_long = (MESSAGE_BYTES_MAX as u32 + 1).to_be_bytes();
        let too_long = [&[0][..], &too_long].concat();
        let cut = &framed(&request(b"one"))[..7];
        for wrong in [&b"\0\0"[..], b"\x01\0\0\0\x01x", b"\0\0\0\0\x01\xff", &too_long, cut] {
            let sent = [&framed(&request(b"one"))[..], wrong, &[0; 20]].concat();
            let end = if wrong == cut || wrong.len() == 2 { sent.len() - 20 } else { sent.len() };
            let gathered = gathered(vec![Bytes::from(sent).slice(..end)]).await;
            assert!(matches!(&gathered[..], [Ok(_), Err(_)]), "{wrong:?}: {gathered:?}");
        }
    }
}
