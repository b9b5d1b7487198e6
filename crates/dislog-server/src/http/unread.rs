//! What is left of a request that is refused before all of it was read.
//!
//! An answer that comes before its request has ended resets the stream or the connection, and a
//! client that is still sending may see that instead of the answer: curl does.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http::header;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;

use crate::node::Closing;

/// So much is read of what is left, ...
const BYTES_MAX: usize = 64 << 10;

/// ... for so long.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// Answers once the request was heard, if it is small and comes soon. One of which something was
/// read is answered at once: it may be a stream that goes on for long.
pub(super) async fn hear_out(
    State(closing): State<Closing>,
    request: Request,
    next: Next,
) -> Response {
    // Who expects to be asked for a body waits for the answer with it.
    let sends_unasked = !request.headers().contains_key(header::EXPECT);
    let (head, body) = request.into_parts();
    let body = Lent(Arc::new(Mutex::new(Unread { body: Some(body), is_whole: true })));
    let answer = next.run(Request::from_parts(head, Body::new(body.clone()))).await;
    let is_refusal = answer.status().is_client_error() || answer.status().is_server_error();
    if is_refusal && sends_unasked && body.lock().is_whole {
        // However far it came, it is refused.
        let read = tokio::time::timeout(WAIT_MAX, body.read());
        tokio::select! {
            _ = read => {}
            () = closing.wait() => {}
        }
    }
    answer
}

/// A body that can still be read when who was to read it has dropped it.
#[derive(Clone)]
struct Lent(Arc<Mutex<Unread>>);

struct Unread {
    /// Nothing at its end.
    body: Option<Body>,
    /// Nothing of it was read.
    is_whole: bool,
}

impl Lent {
    fn lock(&self) -> MutexGuard<'_, Unread> {
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
        let mut unread = self.lock();
        let Some(body) = unread.body.as_mut() else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(context);
        unread.is_whole &= polled.is_pending();
        if let Poll::Ready(None | Some(Err(_))) = polled {
            unread.body = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.lock().body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.lock().body.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::pin;

    use axum::Router;
    use axum::middleware::from_fn_with_state;
    use axum::routing::post;
    use futures_util::FutureExt;
    use http::StatusCode;
    use tokio::sync::{mpsc, watch};
    use tokio_stream::wrappers::ReceiverStream;
    use tower::ServiceExt as _;

    use super::*;

    fn channel(path: &str) -> (mpsc::Sender<Result<Bytes, Infallible>>, Request) {
        let (send, sent) = mpsc::channel(1);
        let body = Body::from_stream(ReceiverStream::new(sent));
        (send, Request::post(path).body(body).unwrap())
    }

    /// What answers, and what ends it.
    fn server() -> (Router, watch::Sender<bool>) {
        let (close, _) = watch::channel(false);
        let begins = |request: Request| async {
            let _ = request.into_body().frame().await;
            StatusCode::BAD_REQUEST
        };
        let router = Router::new()
            .route("/refuses", post(async || StatusCode::FORBIDDEN))
            .route("/begins", post(begins))
            .route("/does", post(async || StatusCode::OK))
            .layer(from_fn_with_state(Closing::new(&close), hear_out));
        (router, close)
    }

    #[tokio::test]
    async fn a_refusal_comes_once_the_request_has_ended() {
        let ((server, _close), (send, request)) = (server(), channel("/refuses"));
        let mut answer = pin!(server.oneshot(request));
        assert!(answer.as_mut().now_or_never().is_none());
        send.send(Ok(Bytes::from_static(b"more"))).await.unwrap();
        assert!(answer.as_mut().now_or_never().is_none());
        drop(send);
        assert_eq!(answer.await.unwrap().status(), StatusCode::FORBIDDEN);
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_on_sending_slowly_or_much_is_refused_all_the_same() {
        let ((server, _close), (_slow, request)) = (server(), channel("/refuses"));
        let answer = server.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
        let (much, request) = channel("/refuses");
        much.send(Ok(Bytes::from(vec![0; BYTES_MAX]))).await.unwrap();
        let answer = server.oneshot(request).now_or_never().unwrap();
        assert_eq!(answer.unwrap().status(), StatusCode::FORBIDDEN);
    }

    #[tokio::test]
    async fn nobody_waits_for_the_rest_of_what_was_begun_or_done_or_when_the_node_ends() {
        let (server, close) = server();
        for (path, status) in [("/begins", StatusCode::BAD_REQUEST), ("/does", StatusCode::OK)] {
            let (send, request) = channel(path);
            send.send(Ok(Bytes::from_static(b"a line"))).await.unwrap();
            let answer = server.clone().oneshot(request).now_or_never().expect(path);
            assert_eq!(answer.unwrap().status(), status);
        }
        let (_send, request) = channel("/refuses");
        let mut answer = pin!(server.oneshot(request));
        assert!(answer.as_mut().now_or_never().is_none());
        close.send_replace(true);
        assert_eq!(answer.now_or_never().unwrap().unwrap().status(), StatusCode::FORBIDDEN);
    }
}
