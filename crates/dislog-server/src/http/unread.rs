//! What is left of a request that is refused before all of it was read.
//!
//! An answer that comes before its request has ended resets the stream or the connection, and a
//! client that is still sending may see that instead of the answer: curl does.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http::header;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;

/// So much is read of what is left, ...
const BYTES_MAX: usize = 64 << 10;

/// ... for so long.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// Answers once the request was heard, if it is small and comes soon.
pub(super) async fn hear_out(request: Request, next: Next) -> Response {
    // Who expects to be asked for a body waits for the answer with it.
    let sends_unasked = !request.headers().contains_key(header::EXPECT);
    let (head, body) = request.into_parts();
    let body = Lent(Arc::new(Mutex::new(Some(body))));
    let answer = next.run(Request::from_parts(head, Body::new(body.clone()))).await;
    let is_refusal = answer.status().is_client_error() || answer.status().is_server_error();
    if is_refusal && sends_unasked {
        // However far it came, it is refused.
        let _ = tokio::time::timeout(WAIT_MAX, body.read()).await;
    }
    answer
}

/// A body that can still be read when who was to read it has dropped it; nothing at its end.
#[derive(Clone)]
struct Lent(Arc<Mutex<Option<Body>>>);

impl Lent {
    fn lock(&self) -> MutexGuard<'_, Option<Body>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(mut self) {
        let mut bytes = 0;
        while bytes < BYTES_MAX
            && let Some(Ok(frame)) = self.frame().await
        {
            bytes += frame.data_ref().map_or(0, Bytes::len);
        }
    }
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut body = self.lock();
        let Some(unread) = body.as_mut() else { return Poll::Ready(None) };
        let polled = Pin::new(unread).poll_frame(context);
        if let Poll::Ready(None | Some(Err(_))) = polled {
            *body = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.lock().as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.lock().as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::pin;

    use axum::Router;
    use axum::middleware::from_fn;
    use axum::routing::post;
    use futures_util::FutureExt;
    use http::StatusCode;
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::ReceiverStream;
    use tower::ServiceExt as _;

    use super::*;

    fn channel() -> (mpsc::Sender<Result<Bytes, Infallible>>, Request) {
        let (send, sent) = mpsc::channel(1);
        (send, Request::post("/").body(Body::from_stream(ReceiverStream::new(sent))).unwrap())
    }

    /// What answers without having read anything.
    fn answering(status: StatusCode) -> Router {
        Router::new().route("/", post(move || async move { status })).layer(from_fn(hear_out))
    }

    #[tokio::test]
    async fn a_refusal_comes_once_the_request_has_ended() {
        let (send, request) = channel();
        let mut answer = pin!(answering(StatusCode::FORBIDDEN).oneshot(request));
        assert!(answer.as_mut().now_or_never().is_none());
        send.send(Ok(Bytes::from_static(b"more"))).await.unwrap();
        assert!(answer.as_mut().now_or_never().is_none());
        drop(send);
        assert_eq!(answer.await.unwrap().status(), StatusCode::FORBIDDEN);
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_on_sending_slowly_or_much_is_refused_all_the_same() {
        let (_slow, request) = channel();
        let answer = answering(StatusCode::FORBIDDEN).oneshot(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
        let (much, request) = channel();
        much.send(Ok(Bytes::from(vec![0; BYTES_MAX]))).await.unwrap();
        let answer = answering(StatusCode::FORBIDDEN).oneshot(request).now_or_never().unwrap();
        assert_eq!(answer.unwrap().status(), StatusCode::FORBIDDEN);
    }

    #[tokio::test]
    async fn what_was_done_is_said_at_once() {
        let (_send, request) = channel();
        let answer = answering(StatusCode::OK).oneshot(request).now_or_never().unwrap();
        assert_eq!(answer.unwrap().status(), StatusCode::OK);
    }
}
