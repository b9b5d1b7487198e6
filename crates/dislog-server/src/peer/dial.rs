//! Reaching another node.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use dislog_tls::{Carried, HandshakeError, Stream, refusal_in};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::hello::{Answer, HELLO_BYTES_MAX, Hello, PREFACE, VERSION};
use super::wire::{FrameReader, WireError};
use crate::pass::Pass;
use crate::security::Security;

/// A connection may be silent for so long before the kernel asks whether anybody is there, ...
const KEEPALIVE_AFTER: Duration = Duration::from_secs(5);

/// ... asks again, ...
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);

/// ... and gives up: about ten seconds in all.
const KEEPALIVE_RETRIES: u32 = 3;

/// How long what was sent may go without acknowledgement, or the other side not read.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(10);

/// Why a node could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Nobody answers.
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    /// One side does not trust the other.
    #[error("no TLS connection: {0}")]
    Tls(String),
    /// Nobody answers, or not in time.
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// What is there is no node, or broke off.
    #[error("no node answered: {0}")]
    Answer(String),
    /// It speaks another version.
    #[error("it speaks version {0} of the protocol between nodes, this node speaks {VERSION}")]
    Version(u32),
    /// The other side says why.
    #[error("it refused: {0}")]
    Refused(String),
    /// Somebody else is there.
    #[error("it is node {found}, not node {expected}")]
    Node {
        /// Who should be there.
        expected: u64,
        /// Who is.
        found: u64,
    },
}

impl From<HandshakeError> for DialError {
    fn from(error: HandshakeError) -> DialError {
        match error {
            HandshakeError::Io(error) => DialError::Connect(error),
            HandshakeError::Refused(why) => DialError::Tls(why),
        }
    }
}

/// Who answers at `address` (`host:port`; names are looked up).
///
/// # Errors
/// If no node does within `patience`.
pub(crate) async fn dial_check(
    address: &str,
    security: &Security,
    patience: Duration,
) -> Result<u64, DialError> {
    Ok(dial(address, security, Hello::new(0, 0), patience).await?.node_id)
}

/// A connection on which frames can be sent.
pub(super) struct Dialled {
    /// It.
    pub(super) stream: Stream,
    /// Who is there.
    pub(super) node_id: u64,
    /// For how long that is so.
    pub(super) pass: Pass,
}

/// Reaches the node at `address`.
pub(super) async fn dial(
    address: &str,
    security: &Security,
    hello: Hello,
    patience: Duration,
) -> Result<Dialled, DialError> {
    let dialing = async {
        let (mut stream, pass) = security.dial(address, Carried::Frames).await?;
        set_options(stream.tcp()).map_err(DialError::Connect)?;
        let node_id = greet(&mut stream, hello, patience).await?;
        Ok(Dialled { stream, node_id, pass })
    };
    timeout(patience, dialing).await.unwrap_or(Err(DialError::Timeout(patience)))
}

/// What a connection between nodes needs: no delay, and an end when the other side vanished.
pub(crate) fn set_options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
    Ok(())
}

/// Says who dials, and learns who answers. The acceptor sends no more than its Hello before the
/// end, so nothing that was read is lost.
async fn greet<S>(stream: &mut S, hello: Hello, patience: Duration) -> Result<u64, DialError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let broke = |error: io::Error| match refusal_in(&error) {
        Some(why) => DialError::Tls(why),
        None => DialError::Answer(error.to_string()),
    };
    let mut out = BytesMut::from(&PREFACE[..]);
    hello.put(&mut out);
    stream.write_all(&out).await.map_err(broke)?;
    stream.flush().await.map_err(broke)?;
    let found = match answer(stream, patience).await {
        Ok(Answer::Hello(answer)) if answer.version != VERSION => {
            return Err(DialError::Version(answer.version));
        }
        Ok(Answer::Hello(answer)) => answer.node_id,
        Ok(Answer::Refusal(why)) => return Err(DialError::Refused(why)),
        Err(WireError::Io(error)) => return Err(broke(error)),
        Err(error) => return Err(DialError::Answer(error.to_string())),
    };
    let expected = hello.expected_node_id;
    if expected != 0 && expected != found {
        return Err(DialError::Node { expected, found });
    }
    Ok(found)
}

/// What the acceptor has to say: nothing is the connection's end.
pub(super) async fn answer<R>(stream: &mut R, patience: Duration) -> Result<Answer, WireError>
where
    R: AsyncRead + Unpin,
{
    let payload = FrameReader::new(stream, patience).next(HELLO_BYTES_MAX).await?;
    Answer::decode(payload.ok_or(WireError::Cut)?)
}
