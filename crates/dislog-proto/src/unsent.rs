//! Whether a call that failed ever left this side.

use std::error::Error;

use tonic::{ConnectError, Status};

/// Whether nothing of the call was sent, so that it surely had no effect: there was no connection,
/// or the one that it was to go over ended before its turn came. False says nothing.
#[must_use]
pub fn is_unsent(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        // hyper's word for requests that it still held when their connection ended.
        let is_canceled =
            error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled);
        if is_canceled || error.is::<ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::pending;

    use hyper::client::conn::http2::handshake;
    use hyper::server::conn::http2;
    use hyper::service::service_fn;
    use hyper::{Request, Response};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::sync::mpsc;
    use tonic::body::Body;

    use super::*;

    fn request() -> Request<Body> {
        Request::new(Body::empty())
    }

    fn status(failed: Result<impl Sized, hyper::Error>) -> Status {
        Status::from_error(failed.err().expect("nobody answered").into())
    }

    #[tokio::test]
    async fn what_waits_when_its_connection_ends_was_not_sent() {
        let (ours, _theirs) = tokio::io::duplex(1 << 16);
        let shaken = handshake(TokioExecutor::new(), TokioIo::new(ours)).await;
        let (mut requests, connection) = shaken.unwrap();
        let waiting = requests.send_request(request());
        drop(connection);
        assert!(is_unsent(&status(waiting.await)));
    }

    #[tokio::test]
    async fn what_a_server_got_was_sent() {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let (arrived, mut arrivals) = mpsc::unbounded_channel();
        let answer = service_fn(move |_| {
            arrived.send(()).unwrap();
            pending::<Result<Response<Body>, Infallible>>()
        });
        let server = http2::Builder::new(TokioExecutor::new());
        let serving = tokio::spawn(server.serve_connection(TokioIo::new(theirs), answer));
        let shaken = handshake(TokioExecutor::new(), TokioIo::new(ours)).await;
        let (mut requests, connection) = shaken.unwrap();
        tokio::spawn(connection);
        let waiting = tokio::spawn(requests.send_request(request()));
        arrivals.recv().await.unwrap();
        serving.abort();
        assert!(!is_unsent(&status(waiting.await.unwrap())));
    }
}
