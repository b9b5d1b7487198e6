//! Tells nodes, HTTP/2 and HTTP/1.1 apart by the first bytes of a connection.
//!
//! hyper's automatic server does the same but waits for those bytes without a limit of time, so
//! that silent connections would hold their places for ever.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use dislog_tls::{ALPN_HTTP1, ALPN_HTTP2, ALPN_PEER, Stream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::peer::PREFACE as PEER_PREFACE;

/// What is read of a connection before others have their turn: who sends without end has a task
/// that would never stop by itself, and thousands of small frames in it are much work.
const TURN_BYTES_MAX: usize = 128 << 10;

/// What an HTTP/2 client sends first (RFC 9113 §3.4).
const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The protocol of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Or 1.0, or what is no HTTP at all: the HTTP/1 parser answers it.
    Http1,
    /// With prior knowledge.
    Http2,
    /// Another node, whose preface is left out of what is read.
    Peer,
}

/// A connection whose first bytes were read already.
pub(crate) struct Prefixed {
    prefix: Bytes,
    stream: Stream,
    /// Read since others had their turn.
    turn_bytes: usize,
}

/// Reads until the protocol is clear. An error means that the client went away first.
pub(crate) async fn detect(mut stream: Stream) -> io::Result<(Protocol, Prefixed)> {
    let mut start = [0; HTTP2_PREFACE.len()];
    let mut len = 0;
    loop {
        let read = stream.read(&mut start[len..]).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        len += read;
        if let Some((protocol, taken)) = protocol(&start[..len]) {
            let prefix = Bytes::copy_from_slice(&start[taken..len]);
            return Ok((protocol, Prefixed { prefix, stream, turn_bytes: 0 }));
        }
    }
}

/// The protocol of a connection that starts like this, and how many of these bytes it has no use
/// for; nothing while that is not clear.
fn protocol(start: &[u8]) -> Option<(Protocol, usize)> {
    if start.starts_with(PEER_PREFACE) {
        return Some((Protocol::Peer, PEER_PREFACE.len()));
    }
    if start.starts_with(HTTP2_PREFACE) {
        return Some((Protocol::Http2, 0));
    }
    let unclear = PEER_PREFACE.starts_with(start) || HTTP2_PREFACE.starts_with(start);
    if unclear { None } else { Some((Protocol::Http1, 0)) }
}

impl Prefixed {
    /// The connection below.
    pub(crate) fn tcp(&self) -> &TcpStream {
        self.stream.tcp()
    }

    /// Whether both sides agreed on this protocol, or did not talk about it.
    pub(crate) fn agreed_on(&self, protocol: Protocol) -> bool {
        let agreed = match protocol {
            Protocol::Http1 => ALPN_HTTP1,
            Protocol::Http2 => ALPN_HTTP2,
            Protocol::Peer => ALPN_PEER,
        };
        self.stream.protocol().is_none_or(|protocol| protocol == agreed)
    }
}

impl AsyncRead for Prefixed {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.prefix.is_empty() {
            if this.turn_bytes >= TURN_BYTES_MAX {
                this.turn_bytes = 0;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let before = buffer.filled().len();
            let read = ready!(Pin::new(&mut this.stream).poll_read(cx, buffer));
            this.turn_bytes += buffer.filled().len() - before;
            return Poll::Ready(read);
        }
        let taken = this.prefix.len().min(buffer.remaining());
        buffer.put_slice(&this.prefix[..taken]);
        this.prefix.advance(taken);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Prefixed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;

    use super::*;

    #[tokio::test]
    async fn who_sends_without_end_lets_others_have_their_turn() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sender = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        // As much as the system takes before anything is read.
        let mut queued = 0;
        while let Ok(written) = sender.try_write(&[7; 64 << 10]) {
            queued += written;
        }
        assert!(queued > 2 * TURN_BYTES_MAX, "{queued}");
        let stream = Stream::Plain(stream);
        let mut stream = Prefixed { prefix: Bytes::new(), stream, turn_bytes: 0 };
        let mut left = queued;
        while left > 0 {
            let in_a_turn = poll_fn(|cx| {
                let mut bytes = 0;
                loop {
                    let mut place = [0; 4 << 10];
                    let mut buffer = ReadBuf::new(&mut place);
                    let reading = pin!(&mut stream).poll_read(cx, &mut buffer);
                    match reading {
                        Poll::Ready(read) => read.unwrap(),
                        Poll::Pending if bytes == 0 => return Poll::Pending,
                        Poll::Pending => return Poll::Ready(bytes),
                    }
                    bytes += buffer.filled().len();
                    assert!(bytes < TURN_BYTES_MAX + (4 << 10), "others wait");
                }
            });
            left -= in_a_turn.await;
        }
    }
}
