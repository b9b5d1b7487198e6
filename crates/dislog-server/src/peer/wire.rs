//! Frames on a stream of bytes; the byte map is at the module above.

use std::io;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use dislog_cluster::PeerFrameError;
use dislog_types::checksum::crc32c;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, timeout_at};

/// The length and the checksum before each payload.
const HEAD_BYTES: usize = 8;

/// Room made before reading: many small frames cost one call.
const READ_BYTES: usize = 64 << 10;

/// When less than this is left of that room, more is made.
const READ_BYTES_MIN: usize = 8 << 10;

/// What a claimed length is worth before its bytes arrive; from then on, as much as has arrived.
const CLAIM_BYTES_MAX: usize = 256 << 10;

/// Payloads up to this size are copied: whoever keeps a small record does not keep the memory of
/// all that was read with it.
const COPIED_BYTES_MAX: usize = 4 << 10;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// It broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It ended within a frame, or before the one that was due.
    #[error("it ended too early")]
    Cut,
    /// Most likely the other side does not speak this protocol.
    #[error("a frame of {bytes} bytes was announced, {bytes_max} is the limit")]
    Length {
        /// What was announced.
        bytes: usize,
        /// What is allowed here.
        bytes_max: usize,
    },
    /// Bytes were changed on their way, or are no frames at all.
    #[error("the checksum of a frame is wrong")]
    Checksum,
    /// A frame was begun and not finished.
    #[error("a frame took longer than {} ms to arrive", .0.as_millis())]
    Slow(Duration),
    /// The payload is none.
    #[error(transparent)]
    Payload(#[from] PeerFrameError),
    /// The payload is neither Hello nor Refusal.
    #[error("the first frame is no Hello")]
    NoHello,
    /// A frame of one node on the connection of another.
    #[error("node {node_id} sent a frame in the name of node {sender}")]
    Sender {
        /// Whose connection it is.
        node_id: u64,
        /// Who the frame says that it is from.
        sender: u64,
    },
}

/// Appends a frame whose payload `encode` appends.
pub(super) fn put_frame(out: &mut BytesMut, encode: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_bytes(0, HEAD_BYTES);
    encode(out);
    let (head, payload) = out[start..].split_at_mut(HEAD_BYTES);
    let len = u32::try_from(payload.len()).expect("larger frames are not sent");
    head[..4].copy_from_slice(&len.to_le_bytes());
    head[4..].copy_from_slice(&crc32c(payload).to_le_bytes());
}

/// Reads frames. Bytes that were read and not taken stay in it.
pub(super) struct FrameReader<R> {
    reader: R,
    buffer: BytesMut,
    /// How long a frame may take from its first byte to its last.
    frame_timeout: Duration,
    /// When the frame under way must have arrived.
    deadline: Option<Instant>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(super) fn new(reader: R, frame_timeout: Duration) -> FrameReader<R> {
        FrameReader { reader, buffer: BytesMut::new(), frame_timeout, deadline: None }
    }

    /// The next payload; nothing at the end. Safe to cancel.
    pub(super) async fn next(&mut self, bytes_max: usize) -> Result<Option<Bytes>, WireError> {
        loop {
            let missing = match take_frame(&mut self.buffer, bytes_max)? {
                Found::Payload(payload) => {
                    self.deadline = None;
                    return Ok(Some(payload));
                }
                Found::Missing(bytes) => bytes,
            };
            self.make_room(missing);
            if self.read().await? > 0 {
                continue;
            }
            return if self.buffer.is_empty() { Ok(None) } else { Err(WireError::Cut) };
        }
    }

    /// Reads to the end, of which nothing is wanted any more.
    pub(super) async fn drain(&mut self) {
        loop {
            self.buffer.clear();
            self.make_room(0);
            if !matches!(self.reader.read_buf(&mut self.buffer).await, Ok(1..)) {
                return;
            }
        }
    }

    pub(super) fn stream(&mut self) -> &mut R {
        &mut self.reader
    }

    fn make_room(&mut self, missing: usize) {
        let room = self.buffer.capacity() - self.buffer.len();
        if room < missing.clamp(READ_BYTES_MIN, CLAIM_BYTES_MAX) {
            let worth = missing.min(self.buffer.len().max(CLAIM_BYTES_MAX));
            self.buffer.reserve(worth.max(READ_BYTES));
        }
    }

    async fn read(&mut self) -> Result<usize, WireError> {
        if self.buffer.is_empty() {
            // Between frames there is no hurry.
            return Ok(self.reader.read_buf(&mut self.buffer).await?);
        }
        let deadline = *self.deadline.get_or_insert_with(|| Instant::now() + self.frame_timeout);
        match timeout_at(deadline, self.reader.read_buf(&mut self.buffer)).await {
            Ok(read) => Ok(read?),
            Err(_) => Err(WireError::Slow(self.frame_timeout)),
        }
    }
}

enum Found {
    Payload(Bytes),
    /// At least so many bytes are missing.
    Missing(usize),
}

fn take_frame(buffer: &mut BytesMut, bytes_max: usize) -> Result<Found, WireError> {
    let Some((&[a, b, c, d, e, f, g, h], _)) = buffer.split_first_chunk() else {
        return Ok(Found::Missing(HEAD_BYTES - buffer.len()));
    };
    let bytes = u32::from_le_bytes([a, b, c, d]) as usize;
    if bytes > bytes_max {
        return Err(WireError::Length { bytes, bytes_max });
    }
    let arrived = buffer.len() - HEAD_BYTES;
    if arrived < bytes {
        return Ok(Found::Missing(bytes - arrived));
    }
    buffer.advance(HEAD_BYTES);
    if crc32c(&buffer[..bytes]) != u32::from_le_bytes([e, f, g, h]) {
        return Err(WireError::Checksum);
    }
    if bytes > COPIED_BYTES_MAX {
        return Ok(Found::Payload(buffer.split_to(bytes).freeze()));
    }
    let payload = Bytes::copy_from_slice(&buffer[..bytes]);
    buffer.advance(bytes);
    Ok(Found::Payload(payload))
}
