//! `Produce` without the generated service around it.
//!
//! Most requests of a log add one small record each, and then what a general gRPC service does per
//! request costs more than the append: boxes, buffers, a stream of one message each way. Here a
//! message is decoded where it arrived, and the answer is one frame and its trailers. Requests
//! that say how they are encoded are left to tonic, which knows what to make of that.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use dislog_proto::v1;
use http::{HeaderMap, HeaderValue, Response, header, request};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use prost::Message as _;
use tonic::Status;

use super::{produce, requests};
use crate::access::Asking;
use crate::identity::Caller;
use crate::node::Node;

/// The path of the method.
const PRODUCE: &str = "/log.v1.Log/Produce";

/// Names the compression of messages.
const ENCODING: &str = "grpc-encoding";

/// The bytes before a message: whether it is compressed, and its length, big-endian.
pub(super) const PREFIX_BYTES: usize = 5;

/// Whether this is a request for [`answer`].
pub(crate) fn is_plain_produce(head: &request::Parts) -> bool {
    head.uri.path() == PRODUCE && !names_encoding(&head.headers)
}

/// Whether messages are compressed, as the head says; then tonic refuses them.
pub(super) fn names_encoding(headers: &HeaderMap) -> bool {
    headers.get(ENCODING).is_some_and(|encoding| encoding != "identity")
}

/// Answers a request whose body bounds the length of its message. Cancelled, the append may happen
/// all the same.
pub(crate) async fn answer<B>(node: &Node, asking: &Asking, body: B) -> Response<Answer>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin,
{
    match produce(node, asking, body).await {
        Ok(response) => Answer::response(&response),
        Err(status) => {
            let Caller { subject, from, .. } = &asking.caller;
            tracing::debug!(%subject, %from, %status, "an append was refused");
            status.into_http()
        }
    }
}

async fn produce<B>(node: &Node, asking: &Asking, body: B) -> Result<v1::ProduceResponse, Status>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin,
{
    let message = message(body).await?;
    let request = requests::decoded(message)?;
    Ok(produce::produce(node, asking, request).await?)
}

/// The first message of a body, once all of the body has come. What is behind it is not kept.
async fn message<B>(mut body: B) -> Result<Bytes, Status>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin,
{
    // One frame holds most messages, and then nothing is copied.
    let (mut first, mut several) = (Bytes::new(), BytesMut::new());
    while !body.is_end_stream()
        && let Some(frame) = body.frame().await
    {
        let frame = frame.map_err(|error| Status::from_error(error.into()))?;
        let Ok(data) = frame.into_data() else { continue };
        let gathered: &[u8] = if several.is_empty() { &first } else { &several };
        if framed_bytes(gathered).is_some_and(|bytes| bytes <= gathered.len()) {
            continue;
        }
        if first.is_empty() {
            first = data;
            continue;
        }
        if several.is_empty() {
            several.reserve(framed_bytes(&first).unwrap_or_default());
            several.put_slice(&first);
        }
        several.put(data);
    }
    let mut framed = if several.is_empty() { first } else { several.freeze() };
    if framed.is_empty() {
        return Err(Status::internal("Missing request message."));
    }
    let bytes = framed_bytes(&framed).filter(|bytes| *bytes <= framed.len());
    let bytes = bytes.ok_or_else(|| Status::internal("the request ends within its message"))?;
    if framed[0] != 0 {
        return Err(Status::internal("the message is compressed, without saying how"));
    }
    framed.truncate(bytes);
    Ok(framed.split_off(PREFIX_BYTES))
}

/// The bytes of the first message with its prefix, if that is there.
pub(super) fn framed_bytes(framed: &[u8]) -> Option<usize> {
    let length = framed.get(1..PREFIX_BYTES)?.try_into().ok()?;
    usize::try_from(u32::from_be_bytes(length)).ok()?.checked_add(PREFIX_BYTES)
}

/// The body of an answer: a message, then the trailers that say that all went well. Without
/// either, the head says what went wrong.
#[derive(Default)]
pub(crate) struct Answer {
    message: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl Answer {
    fn response(response: &v1::ProduceResponse) -> Response<Answer> {
        let bytes = response.encoded_len();
        let mut message = BytesMut::with_capacity(PREFIX_BYTES + bytes);
        message.put_u8(0);
        message.put_u32(u32::try_from(bytes).expect("four numbers are a few bytes"));
        response.encode(&mut message).expect("there is room for it");
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
        let body = Answer { message: Some(message.freeze()), trailers: Some(trailers) };
        let mut response = Response::new(body);
        let grpc = HeaderValue::from_static("application/grpc");
        response.headers_mut().insert(header::CONTENT_TYPE, grpc);
        response
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let message = self.message.take().map(Frame::data);
        let frame = message.or_else(|| self.trailers.take().map(Frame::trailers));
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.message.is_none() && self.trailers.is_none()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::StreamBody;

    use super::*;

    async fn message_of(pieces: &[&'static [u8]]) -> Result<Bytes, Status> {
        let frames: Vec<_> =
            pieces.iter().map(|piece| Ok::<_, Infallible>(Frame::data((*piece).into()))).collect();
        message(StreamBody::new(stream::iter(frames))).await
    }

    #[tokio::test]
    async fn a_message_may_come_in_any_pieces() {
        let framed: &[u8] = b"\0\0\0\0\x05hello";
        assert_eq!(message_of(&[framed]).await.unwrap(), "hello");
        for one in 0..framed.len() {
            for two in one..framed.len() {
                let pieces = [&framed[..one], &framed[one..two], &framed[two..], b"\0more"];
                assert_eq!(message_of(&pieces).await.unwrap(), "hello", "cut at {one}, {two}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_message_is_refused() {
        for wrong in [&b""[..], b"\0\0\0", b"\0\0\0\0\x05hell", b"\x01\0\0\0\x05hello"] {
            assert!(message_of(&[wrong]).await.is_err(), "{wrong:?}");
        }
    }
}
