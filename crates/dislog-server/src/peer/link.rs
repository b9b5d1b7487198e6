//! What waits for one address, and the task that takes it there.
//!
//! The queue is the only thing that senders and the task share. A link is in one of three states:
//! idle or connected (what is sent is queued and the task woken), dialling (the same), or
//! unreachable: until a moment that the last failure set, what is sent is dropped at once. Nothing
//! is retried by itself, so that a link without frames costs nothing.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use dislog_cluster::{PEER_FRAME_BYTES_MAX, PeerFrame};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;

use super::dial::{DialError, Dialled, answer, dial};
use super::hello::{Answer, Hello};
use super::wire::{WireError, put_frame};
use crate::complaint::Complaint;
use crate::security::Security;

/// Encoded bytes of frames that may wait for one address; what is sent beyond is dropped. A few of
/// the largest frames, and a second of a fast network.
pub(super) const QUEUE_BYTES_MAX: usize = 64 << 20;

/// Frames are encoded up to about so many bytes before they are written.
const WRITE_BYTES: usize = 1 << 20;

/// So much is given to the system at once, and then others have their turn: it copies what it is
/// given, and a large frame would hold up all that its thread does for those who append.
const PIECE_BYTES: usize = 128 << 10;

/// A buffer that grew beyond this for a large frame is not kept. Frames are rarely larger than
/// 4 MiB, and fresh memory is expensive.
const KEPT_BUFFER_BYTES_MAX: usize = 8 << 20;

/// How long dialling may take: the kernel repeats a lost first packet after a second. Less than
/// [`STABLE_MIN`], so that a dial in vain is not taken for a connection.
const DIAL_TIMEOUT: Duration = Duration::from_secs(3);

/// After a first failure nothing is sent for so long, ...
const BACKOFF_MIN: Duration = Duration::from_millis(20);

/// ... and twice as long after each further one, for at most so long.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// A connection that lasted so long ends the row of failures.
const STABLE_MIN: Duration = Duration::from_secs(4);

const _: () = assert!(DIAL_TIMEOUT.as_secs() < STABLE_MIN.as_secs());

/// The way to one address.
pub(super) struct Link {
    address: Arc<str>,
    queue: Mutex<Queue>,
    /// The task has something to do.
    wake: Notify,
}

struct Queue {
    frames: VecDeque<Waiting>,
    /// Of all of `frames`.
    bytes: usize,
    /// Until then nothing is queued.
    unreachable_until: Option<Instant>,
    used: Instant,
    /// No more will be sent.
    closed: bool,
    /// Frames that found too much waiting before them, or were too large themselves.
    dropped: u64,
    full: Complaint,
}

struct Waiting {
    /// Who it is for; 0 for whoever is there.
    node_id: u64,
    bytes: usize,
    frame: PeerFrame,
}

impl Link {
    pub(super) fn new(address: Arc<str>) -> Link {
        let queue = Queue {
            frames: VecDeque::new(),
            bytes: 0,
            unreachable_until: None,
            used: Instant::now(),
            closed: false,
            dropped: 0,
            full: Complaint::default(),
        };
        Link { address, queue: Mutex::new(queue), wake: Notify::new() }
    }

    /// Queues a frame for `node_id`, or drops it.
    pub(super) fn push(&self, node_id: u64, frame: PeerFrame) {
        let bytes = frame.encoded_bytes();
        let mut queue = self.queue();
        queue.used = Instant::now();
        if queue.closed || queue.unreachable_until.is_some_and(|until| queue.used < until) {
            return;
        }
        if bytes > PEER_FRAME_BYTES_MAX || queue.bytes + bytes > QUEUE_BYTES_MAX {
            queue.dropped += 1;
            if queue.full.is_due() {
                tracing::warn!(
                    address = %self.address, waiting_bytes = queue.bytes, bytes,
                    dropped = queue.dropped, "too much waits for a node: frames to it are dropped"
                );
            }
            return;
        }
        queue.bytes += bytes;
        queue.frames.push_back(Waiting { node_id, bytes, frame });
        let first = queue.frames.len() == 1;
        drop(queue);
        if first {
            self.wake.notify_one();
        }
    }

    /// Sends what waits, if it is connected, and no more.
    pub(super) fn close(&self) {
        self.queue().closed = true;
        self.wake.notify_one();
    }

    /// When it was last sent to.
    pub(super) fn used(&self) -> Instant {
        self.queue().used
    }

    /// Bytes that wait, and frames that were dropped because too many did.
    #[cfg(test)]
    pub(super) fn load(&self) -> (usize, u64) {
        let queue = self.queue();
        (queue.bytes, queue.dropped)
    }

    /// Returns once frames wait; false if none will. Safe to cancel.
    async fn wait(&self) -> bool {
        loop {
            {
                let queue = self.queue();
                if !queue.frames.is_empty() || queue.closed {
                    return !queue.frames.is_empty();
                }
            }
            self.wake.notified().await;
        }
    }

    /// Moves frames that wait to `batch`, about as many as are written at once.
    fn take(&self, batch: &mut Vec<Waiting>) {
        let mut queue = self.queue();
        let mut bytes = 0;
        while bytes < WRITE_BYTES
            && let Some(waiting) = queue.frames.pop_front()
        {
            bytes += waiting.bytes;
            batch.push(waiting);
        }
        queue.bytes -= bytes;
    }

    /// Who the frames that wait are for, if they agree; otherwise whoever is there will do, and the
    /// frames for others are dropped then.
    fn expected_node_id(&self) -> u64 {
        let queue = self.queue();
        let mut ids = queue.frames.iter().map(|waiting| waiting.node_id).filter(|&id| id != 0);
        let first = ids.next().unwrap_or(0);
        if ids.all(|id| id == first) { first } else { 0 }
    }

    /// Drops what waits, and for a while what is sent.
    fn set_unreachable(&self, backoff: Duration) {
        let mut queue = self.queue();
        queue.frames.clear();
        queue.bytes = 0;
        queue.unreachable_until = Some(Instant::now() + backoff);
    }

    fn is_closed(&self) -> bool {
        self.queue().closed
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("nothing panics while it is locked")
    }
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the node closed the connection: {0}")]
    Closed(WireError),
    #[error("the node refused: {0}")]
    Refused(String),
    #[error("cannot write: {0}")]
    Write(std::io::Error),
    #[error("{0}")]
    Over(Arc<str>),
}

/// Takes what is sent over `link` from node `node_id` to where it should go, until it is closed.
pub(super) async fn run(link: Arc<Link>, node_id: u64, security: Security) {
    let mut complaint = Complaint::default();
    let mut backoff = BACKOFF_MIN;
    while link.wait().await && !link.is_closed() {
        let started = Instant::now();
        let hello = Hello::new(node_id, link.expected_node_id());
        let ended = match Box::pin(dial(&link.address, &security, hello, DIAL_TIMEOUT)).await {
            Ok(Dialled { stream, node_id: found, pass }) => {
                tracing::debug!(address = %link.address, node_id = found, "connected to a node");
                let (reader, writer) = tokio::io::split(stream);
                tokio::select! {
                    ended = write_frames(&link, found, reader, writer) => ended,
                    why = pass.watch() => Err(Ended::Over(why)),
                }
            }
            Err(error) => {
                complain(&mut complaint, &link.address, &error);
                Ok(())
            }
        };
        match ended {
            Ok(()) => {}
            Err(Ended::Closed(error)) => {
                tracing::debug!(address = %link.address, %error, "a node closed the connection");
            }
            Err(error) if complaint.is_due() => {
                tracing::warn!(address = %link.address, %error, "lost the connection to a node");
            }
            Err(_) => {}
        }
        if started.elapsed() > STABLE_MIN {
            backoff = BACKOFF_MIN;
        }
        link.set_unreachable(backoff);
        backoff = (2 * backoff).min(BACKOFF_MAX);
    }
}

fn complain(complaint: &mut Complaint, address: &str, error: &DialError) {
    if complaint.is_due() {
        tracing::warn!(%address, %error, "cannot reach a node, trying again");
    }
}

/// Writes what is sent over `link` until it is closed or the connection ends.
async fn write_frames<R, W>(
    link: &Link,
    found: u64,
    mut reader: R,
    mut writer: W,
) -> Result<(), Ended>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut farewell = pin!(farewell(&mut reader));
    let (mut batch, mut buffer) = (Vec::new(), BytesMut::new());
    loop {
        let waiting = tokio::select! {
            biased;
            waiting = link.wait() => waiting,
            ended = farewell.as_mut() => return Err(ended),
        };
        if !waiting {
            // The connection was of use; how it ends makes no difference.
            let _ = writer.shutdown().await;
            return Ok(());
        }
        link.take(&mut batch);
        encode(&mut batch, found, &mut buffer);
        let written = tokio::select! {
            biased;
            written = write(&mut writer, &buffer) => written,
            ended = farewell.as_mut() => return Err(ended),
        };
        if let Err(error) = written {
            // What the other side said last is worth more than that it does not listen any more.
            let last = tokio::time::timeout(Duration::ZERO, farewell.as_mut()).await;
            return Err(match last {
                Ok(refused @ Ended::Refused(_)) => refused,
                _ => Ended::Write(error),
            });
        }
        buffer.clear();
        if buffer.capacity() > KEPT_BUFFER_BYTES_MAX {
            buffer = BytesMut::new();
        }
    }
}

/// Empties `batch` into `buffer`; frames for others than `found` are dropped.
fn encode(batch: &mut Vec<Waiting>, found: u64, buffer: &mut BytesMut) {
    for Waiting { node_id, frame, .. } in batch.drain(..) {
        if node_id == 0 || node_id == found {
            put_frame(buffer, |buffer| frame.encode_into(buffer));
        } else {
            tracing::debug!(node_id, found, "a frame for a node that is not there any more");
        }
    }
}

async fn write<W: AsyncWrite + Unpin>(writer: &mut W, bytes: &[u8]) -> std::io::Result<()> {
    for piece in bytes.chunks(PIECE_BYTES) {
        writer.write_all(piece).await?;
        tokio::task::yield_now().await;
    }
    writer.flush().await
}

/// Waits for the only thing that the other side still says.
async fn farewell<R: AsyncRead + Unpin>(reader: &mut R) -> Ended {
    match answer(reader, DIAL_TIMEOUT).await {
        Ok(Answer::Refusal(why)) => Ended::Refused(why),
        Ok(Answer::Hello(_)) => Ended::Closed(WireError::NoHello),
        Err(error) => Ended::Closed(error),
    }
}
