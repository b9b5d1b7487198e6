//! Whether a server can be talked to at all: one look at one address, without retries.
//!
//! A client goes on trying while servers restart, which is wrong for a person who mistyped an
//! address or took the wrong certificate. A certificate that the server refuses shows only when
//! something is read (RFC 8446 §4.4.2.4), so a few bytes of HTTP/2 are exchanged.

use std::io;
use std::time::Duration;

use dislog_tls::{ClientTls, HandshakeError, Stream, refusal_in};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::Error;
use crate::client::Client;
use crate::connection::given_address;

/// What an HTTP/2 client sends first (RFC 9113 §3.4), and its settings: none.
const GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// The bytes before the payload of an HTTP/2 frame.
const FRAME_HEAD_BYTES: usize = 9;

const FRAME_SETTINGS: u8 = 4;
const FRAME_GOAWAY: u8 = 7;

/// The fields of GOAWAY before its text.
const GOAWAY_HEAD_BYTES: usize = 8;

/// A longer frame is none of those that are looked at.
const FRAME_BYTES_MAX: usize = 1 << 10;

impl Client {
    /// Whether the server at `address` can be talked to, found out within
    /// [`ClientOptions::connect_timeout`](crate::ClientOptions::connect_timeout).
    ///
    /// # Errors
    /// [`Error::Address`], [`Error::Unreachable`], or [`Error::Tls`] if one side refuses the other.
    pub async fn check(&self, address: &str) -> Result<(), Error> {
        let (tls, patience) = (&self.options().tls, self.options().connect_timeout);
        let server = given_address(address, tls.is_some())?;
        let failed = match timeout(patience, greet(&server, tls.as_ref())).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error,
            Err(_) => HandshakeError::Io(io::Error::other(no_answer(patience))),
        };
        let server = server.to_string();
        Err(match failed {
            HandshakeError::Refused(why) => Error::Tls { server, why },
            HandshakeError::Io(error) => Error::Unreachable { server, why: plain(&error) },
        })
    }
}

async fn greet(server: &str, tls: Option<&ClientTls>) -> Result<(), HandshakeError> {
    let stream = TcpStream::connect(server).await?;
    let mut stream = match tls {
        Some(tls) => tls.connect(server, stream).await?,
        None => Stream::Plain(stream),
    };
    stream.write_all(GREETING).await?;
    stream.flush().await?;
    let mut first = true;
    // Settings come first, and it is the frame behind them that could be a refusal; settings of
    // some length are those of a server that goes on.
    while let Some((kind, payload)) = frame(&mut stream).await? {
        if kind == FRAME_GOAWAY {
            let text = payload.get(GOAWAY_HEAD_BYTES..).unwrap_or_default();
            let text = String::from_utf8_lossy(text);
            let text: String = text.chars().filter(|char| !char.is_control()).collect();
            return Err(HandshakeError::Refused(text));
        }
        if !first || kind != FRAME_SETTINGS || !payload.is_empty() {
            return Ok(());
        }
        first = false;
    }
    Ok(())
}

/// The next frame; nothing at the end, or if it is no frame that says anything here.
async fn frame(stream: &mut Stream) -> Result<Option<(u8, Vec<u8>)>, HandshakeError> {
    let mut head = [0; FRAME_HEAD_BYTES];
    if let Err(error) = stream.read_exact(&mut head).await {
        return match refusal_in(&error) {
            Some(why) => Err(HandshakeError::Refused(why)),
            None if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            None => Err(HandshakeError::Io(error)),
        };
    }
    let [a, b, c, kind, ..] = head;
    let bytes = u32::from_be_bytes([0, a, b, c]) as usize;
    if bytes > FRAME_BYTES_MAX {
        return Ok(None);
    }
    let mut payload = vec![0; bytes];
    stream.read_exact(&mut payload).await?;
    Ok(Some((kind, payload)))
}

fn no_answer(patience: Duration) -> String {
    format!("no answer in {} seconds", patience.as_secs_f32())
}

/// What the system said, without its error number.
fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        _ => error.to_string(),
    }
}
