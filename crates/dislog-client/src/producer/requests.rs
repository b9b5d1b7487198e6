//! The requests of a `ProduceStream` as they go to the transport: a batch is not copied into its
//! message.
//!
//! ```text
//!  0  compressed       u8     0: never
//!  1  message length   u32    big-endian
//!  5  topic, partition, and the key and length of the batch, as `prost` encodes them
//!     batch            the bytes as they were sealed
//! ```
//! Everything else of the call is tonic's.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use dislog_proto::v1;
use dislog_types::PartitionId;
use http::Request;
use http_body::Frame;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};
use tokio::sync::mpsc;
use tonic::body::Body;
use tower::Service;

/// The number of the field `batch`.
const BATCH: u32 = 12;

/// The bytes before a message.
const PREFIX_BYTES: usize = 5;

/// What the key and the length of a batch take at most.
const BATCH_HEAD_BYTES_MAX: usize = 11;

/// A body of requests; it ends when the sender of the batches is dropped.
pub(super) struct Requests {
    batches: mpsc::Receiver<Bytes>,
    /// What all messages begin with.
    head: Bytes,
    /// What follows the head that was given last.
    batch: Option<Bytes>,
}

impl Requests {
    /// Each of `batches` in a request to append it to a partition.
    pub(super) fn new(id: &PartitionId, batches: mpsc::Receiver<Bytes>) -> Requests {
        let head = v1::ProduceRequest {
            topic: id.topic.as_str().to_owned(),
            partition: id.partition,
            ..v1::ProduceRequest::default()
        };
        Requests { batches, head: head.encode_to_vec().into(), batch: None }
    }

    fn head_of(&self, batch: &Bytes) -> Bytes {
        let mut out =
            BytesMut::with_capacity(PREFIX_BYTES + self.head.len() + BATCH_HEAD_BYTES_MAX);
        out.put_bytes(0, PREFIX_BYTES);
        out.put_slice(&self.head);
        encode_key(BATCH, WireType::LengthDelimited, &mut out);
        encode_varint(batch.len() as u64, &mut out);
        let message_bytes = out.len() - PREFIX_BYTES + batch.len();
        let message_bytes = u32::try_from(message_bytes).expect("a batch is a few MiB");
        out[1..PREFIX_BYTES].copy_from_slice(&message_bytes.to_be_bytes());
        out.freeze()
    }
}

impl http_body::Body for Requests {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(batch) = self.batch.take() {
            return Poll::Ready(Some(Ok(Frame::data(batch))));
        }
        let Some(batch) = ready!(self.batches.poll_recv(cx)) else { return Poll::Ready(None) };
        let head = self.head_of(&batch);
        self.batch = Some(batch);
        Poll::Ready(Some(Ok(Frame::data(head))))
    }
}

/// A channel whose first request gets a body of its own.
pub(super) struct WithBody<C> {
    channel: C,
    body: Option<Requests>,
}

impl<C> WithBody<C> {
    /// `channel`, and what is sent over it.
    pub(super) fn new(channel: C, body: Requests) -> WithBody<C> {
        WithBody { channel, body: Some(body) }
    }
}

impl<C: Service<Request<Body>>> Service<Request<Body>> for WithBody<C> {
    type Response = C::Response;
    type Error = C::Error;
    type Future = C::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), C::Error>> {
        self.channel.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> C::Future {
        match self.body.take() {
            Some(body) => self.channel.call(request.map(|_| Body::new(body))),
            None => self.channel.call(request),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use http_body::Body as _;

    use super::*;

    #[tokio::test]
    async fn requests_are_what_prost_would_make_of_them() {
        let id = PartitionId { topic: "orders".parse().unwrap(), partition: 7 };
        for bytes in [0, 1, 127, 128, 70_000] {
            let (batches, receiver) = mpsc::channel(1);
            let batch = Bytes::from(vec![9; bytes]);
            batches.send(batch.clone()).await.unwrap();
            drop(batches);
            let mut requests = Requests::new(&id, receiver);
            let mut sent = Vec::new();
            let mut pieces = Vec::new();
            while let Some(frame) = poll_fn(|cx| Pin::new(&mut requests).poll_frame(cx)).await {
                let piece = frame.unwrap().into_data().unwrap();
                sent.extend_from_slice(&piece);
                pieces.push(piece);
            }
            assert_eq!(pieces[1].as_ptr(), batch.as_ptr(), "it was copied");
            assert_eq!(sent[..5], [&[0], &((sent.len() - 5) as u32).to_be_bytes()[..]].concat());
            let request = v1::ProduceRequest::decode(&sent[5..]).unwrap();
            let expected = v1::ProduceRequest {
                topic: "orders".to_owned(),
                partition: 7,
                batch,
                ..v1::ProduceRequest::default()
            };
            assert_eq!(request, expected);
        }
    }
}
