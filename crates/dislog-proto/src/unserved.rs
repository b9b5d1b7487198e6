//! Whether a call that failed surely had no effect.

use std::error::Error;

use h2::Reason;
use tonic::{ConnectError, Status};

/// Whether nobody served the call, so that it surely had no effect: there was no connection, or the
/// one that it was to go over ended before its turn came, or the server ended it and said that it
/// had not taken up the call. False says nothing.
#[must_use]
pub fn is_unserved(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        // hyper's word for requests that it still held when their connection ended.
        let is_canceled =
            error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled);
        let is_turned_away = error.downcast_ref::<h2::Error>().is_some_and(is_turned_away);
        if is_canceled || is_turned_away || error.is::<ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Whether a server said that it does not serve the stream, in one of the two ways of RFC 9113,
/// section 8.7: a GOAWAY, which h2 reports of those streams only that are behind the last one that
/// is served, or REFUSED_STREAM. hyper also reports a GOAWAY of a stream that it has just begun,
/// wherever that is: it ends it before its body, so no message of gRPC went out.
fn is_turned_away(error: &h2::Error) -> bool {
    let is_refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    error.is_remote() && (error.is_go_away() || is_refused)
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio::sync::mpsc;
    use tonic::body::Body;

    use super::*;

    /// What a client's connection begins with.
    const PREFACE_BYTES: usize = 24;
    const HEADERS_TYPE: u8 = 1;
    /// Without settings.
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    /// The last stream that is served and a code follow.
    const GOAWAY: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0];
    /// A code follows.
    const RST_STREAM: &[u8] = &[0, 0, 4, 3, 0, 0, 0, 0, 1];
    /// The first of a client.
    const STREAM: &[u8] = &[0, 0, 0, 1];
    const NO_ERROR: &[u8] = &[0, 0, 0, 0];
    const REFUSED_STREAM: &[u8] = &[0, 0, 0, 7];
    const CANCEL: &[u8] = &[0, 0, 0, 8];

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
        assert!(is_unserved(&status(waiting.await)));
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
        assert!(!is_unserved(&status(waiting.await.unwrap())));
    }

    /// What became of a call after which the server sent these frames and closed the connection.
    async fn after(frames: &[&[u8]]) -> Status {
        let (ours, mut theirs) = tokio::io::duplex(1 << 16);
        let shaken = handshake(TokioExecutor::new(), TokioIo::new(ours)).await;
        let (mut requests, connection) = shaken.unwrap();
        tokio::spawn(connection);
        let waiting = tokio::spawn(requests.send_request(request()));
        theirs.write_all(SETTINGS).await.unwrap();
        theirs.read_exact(&mut [0; PREFACE_BYTES]).await.unwrap();
        while next_frame(&mut theirs).await != HEADERS_TYPE {}
        theirs.write_all(&frames.concat()).await.unwrap();
        theirs.shutdown().await.unwrap();
        status(waiting.await.unwrap())
    }

    /// The type of the next frame.
    async fn next_frame(from: &mut DuplexStream) -> u8 {
        let mut head = [0; 9];
        from.read_exact(&mut head).await.unwrap();
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        from.read_exact(&mut payload).await.unwrap();
        head[3]
    }

    #[tokio::test]
    async fn what_a_server_turned_away_was_not_served() {
        assert!(is_unserved(&after(&[GOAWAY, &[0, 0, 0, 0], NO_ERROR]).await));
        assert!(is_unserved(&after(&[RST_STREAM, REFUSED_STREAM]).await));
        assert!(!is_unserved(&after(&[GOAWAY, STREAM, NO_ERROR]).await));
        assert!(!is_unserved(&after(&[RST_STREAM, CANCEL]).await));
        assert!(!is_unserved(&after(&[]).await));
    }
}
