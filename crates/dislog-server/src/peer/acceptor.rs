//! The side that was dialled: reads frames and hands them on.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use dislog_cluster::{PEER_FRAME_BYTES_MAX, PeerFrame};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

use super::hello::{Answer, HELLO_BYTES_MAX, Hello, VERSION, refusal};
use super::wire::{FrameReader, WireError};
use crate::complaint::Complaints;
use crate::identity::{Caller, Host, Subject};

/// How long a dialer that was refused may take to read why and to close: closing first could take
/// the reason away from it.
const FAREWELL_MAX: Duration = Duration::from_millis(500);

/// What takes the frames.
pub(crate) type Deliver = Arc<dyn Fn(PeerFrame) + Send + Sync>;

/// Takes the connections of other nodes.
pub(crate) struct Acceptor {
    node_id: u64,
    deliver: Deliver,
    /// How long a frame may take from its first byte to its last.
    frame_timeout: Duration,
    /// Frames are taken from those whose certificate says that they are nodes of this cluster.
    certified: bool,
    complaints: Complaints<Host>,
}

/// Why a dialer is sent away.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("its certificate is not that of a node of this cluster")]
    NoNode,
    #[error("no Hello came in time")]
    Silent,
    #[error("version {0} of the protocol between nodes is not spoken here, but {VERSION}")]
    Version(u32),
    #[error("this is node {found}, not node {expected}")]
    Node { expected: u64, found: u64 },
    #[error("a Refusal came in place of a Hello: {0}")]
    NoHello(String),
}

impl Acceptor {
    /// For a node of this id; `deliver` must not block. With `certified`, callers have to prove
    /// that they are nodes of the cluster.
    pub(crate) fn new(
        node_id: u64,
        frame_timeout: Duration,
        certified: bool,
        deliver: Deliver,
    ) -> Acceptor {
        Acceptor { node_id, deliver, frame_timeout, certified, complaints: Complaints::default() }
    }

    /// Serves the connection of `caller`, whose preface was read, to its end. Safe to cancel:
    /// frames are handed on whole or not at all.
    pub(crate) async fn serve<S>(&self, stream: S, caller: &Caller, hello_by: Instant)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut frames = FrameReader::new(stream, self.frame_timeout);
        let is_welcome = !self.certified || matches!(caller.subject, Subject::Node(_));
        let served = match is_welcome {
            true => self.frames(&mut frames, hello_by).await,
            false => Err(Refused::NoNode),
        };
        let Err(refused) = served else { return };
        if matches!(refused, Refused::Wire(WireError::Io(_) | WireError::Cut)) {
            tracing::debug!(error = %refused, "the connection of a node broke");
            return;
        }
        if self.complaints.is_due(Host::of(caller.from.ip())) {
            let Caller { subject, from, .. } = caller;
            tracing::warn!(%from, %subject, error = %refused, "ended a connection between nodes");
        }
        let why = refused.to_string();
        // Whether it was read makes no difference.
        let _ = timeout(FAREWELL_MAX, farewell(&mut frames, &why)).await;
    }

    async fn frames<S>(&self, frames: &mut FrameReader<S>, hello_by: Instant) -> Result<(), Refused>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let first = timeout_at(hello_by, frames.next(HELLO_BYTES_MAX)).await;
        let first = first.map_err(|_| Refused::Silent)??;
        let Some(first) = first else { return Ok(()) };
        let node_id = self.check(first)?;
        let mut answer = BytesMut::new();
        Hello::new(self.node_id, node_id).put(&mut answer);
        frames.stream().write_all(&answer).await.map_err(WireError::from)?;
        frames.stream().flush().await.map_err(WireError::from)?;
        while let Some(payload) = frames.next(PEER_FRAME_BYTES_MAX).await? {
            let frame = PeerFrame::decode_from(payload).map_err(WireError::from)?;
            let sender = frame.sender();
            if sender != node_id || sender == 0 {
                return Err(WireError::Sender { node_id, sender }.into());
            }
            (self.deliver)(frame);
        }
        Ok(())
    }

    /// Who the dialer says it is.
    fn check(&self, first: Bytes) -> Result<u64, Refused> {
        let hello = match Answer::decode(first)? {
            Answer::Hello(hello) => hello,
            Answer::Refusal(why) => return Err(Refused::NoHello(why)),
        };
        if hello.version != VERSION {
            return Err(Refused::Version(hello.version));
        }
        let (expected, found) = (hello.expected_node_id, self.node_id);
        if expected != 0 && expected != found {
            return Err(Refused::Node { expected, found });
        }
        Ok(hello.node_id)
    }
}

async fn farewell<S>(frames: &mut FrameReader<S>, why: &str)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let stream = frames.stream();
    if stream.write_all(&refusal(why)).await.is_ok() && stream.shutdown().await.is_ok() {
        frames.drain().await;
    }
}
