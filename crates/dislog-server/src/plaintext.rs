//! Tells those who do not speak TLS, in the protocol that they do speak, that they should.

use std::io;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use dislog_tls::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::peer;
use crate::preface::{Prefixed, Protocol, detect};

/// What they are told.
const WHY: &str = "this server speaks TLS: give the client a CA file and a certificate";

/// How long the other side may take to say more and to read the answer: closing first could take
/// the answer away from it.
const FAREWELL_MAX: Duration = Duration::from_millis(500);

/// A frame of HTTP/2 (RFC 9113 §4.1) without flags, on stream 0.
fn http2_frame(kind: u8, payload: &[u8], out: &mut BytesMut) {
    let len = u32::try_from(payload.len()).expect("it is short");
    out.put_uint(u64::from(len), 3);
    out.put_slice(&[kind, 0, 0, 0, 0, 0]);
    out.put_slice(payload);
}

/// SETTINGS, which come first, and GOAWAY with the reason INADEQUATE_SECURITY.
fn http2_refusal() -> BytesMut {
    const SETTINGS: u8 = 4;
    const GOAWAY: u8 = 7;
    const INADEQUATE_SECURITY: u32 = 12;
    let mut goaway = BytesMut::new();
    goaway.put_u32(0);
    goaway.put_u32(INADEQUATE_SECURITY);
    goaway.put_slice(WHY.as_bytes());
    let mut out = BytesMut::new();
    http2_frame(SETTINGS, &[], &mut out);
    http2_frame(GOAWAY, &goaway, &mut out);
    out
}

fn http1_refusal() -> BytesMut {
    let body = format!("{WHY}, and write https://\n");
    let head = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n",
        body.len()
    );
    BytesMut::from((head + body.as_str()).as_bytes())
}

/// Says so, and closes.
pub(crate) async fn turn_away(stream: TcpStream) {
    let telling = async {
        let (protocol, stream) = detect(Stream::Plain(stream)).await?;
        let refusal = match protocol {
            Protocol::Http1 => http1_refusal(),
            Protocol::Http2 => http2_refusal(),
            Protocol::Peer => peer::refusal(WHY),
        };
        say_last(stream, &refusal).await
    };
    // Whether it was read makes no difference.
    let _ = timeout(FAREWELL_MAX, telling).await;
}

/// Sends this and no more, and waits until the other side has closed too.
pub(crate) async fn say_last(mut stream: Prefixed, words: &[u8]) -> io::Result<()> {
    stream.write_all(words).await?;
    stream.shutdown().await?;
    let mut rest = [0; 1 << 10];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}
