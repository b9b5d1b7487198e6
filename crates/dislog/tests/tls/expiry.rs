//! Connections that outlast what they were made with: the certificate, or the trust in whoever made
//! it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use dislog_client::{ConsumerOptions, End};
use h2::client::SendRequest;
use rcgen::SanType;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;

/// How long certificates of these tests are valid: long enough to connect with them, on a busy
/// machine, too.
const LIFE: Duration = Duration::from_secs(6);

/// How much later than a certificate its connections may end. Their streams are told at once.
const LATE_MAX: Duration = Duration::from_secs(3);

impl Certs {
    /// The certificate of a client that is valid until then.
    fn short(&self, name: &str, until: SystemTime) -> String {
        self.odd(name, |params| params.not_after = until.into())
    }
}

/// What is read until the other side ends the connection, how it ended, and when.
async fn read_to_end(mut stream: Stream) -> (String, Option<std::io::Error>, SystemTime) {
    let mut read = Vec::new();
    let ended = timeout(HANG, stream.read_to_end(&mut read)).await.expect("it is not ended");
    (String::from_utf8(read).unwrap(), ended.err(), SystemTime::now())
}

/// An HTTP/2 connection, and how it ends.
async fn http2(
    at: &str,
    tls_dir: &str,
) -> (SendRequest<Bytes>, JoinHandle<Result<(), h2::Error>>) {
    let wire = connected(at, tls_dir, b"h2").await;
    let (requests, connection) = h2::client::handshake(wire).await.unwrap();
    (requests, tokio::spawn(connection))
}

/// Answers a request over HTTP/2: its status, and all of its body.
async fn get(requests: &SendRequest<Bytes>, path: &str) -> Result<(u16, String), h2::Error> {
    let mut requests = requests.clone().ready().await?;
    let request = http::Request::get(format!("https://localhost{path}"));
    let (answer, _) = requests.send_request(request.body(()).unwrap(), true)?;
    let answer = answer.await?;
    let status = answer.status().as_u16();
    let (mut body, mut text) = (answer.into_body(), Vec::new());
    while let Some(data) = body.data().await {
        text.extend_from_slice(&data?);
    }
    Ok((status, String::from_utf8(text).unwrap()))
}

fn is_on_time(ended: SystemTime, until: SystemTime) {
    let late = ended.duration_since(until).expect("it ended before its certificate");
    assert!(late < LATE_MAX + Duration::from_secs(1), "it ended {late:?} after its certificate");
}
