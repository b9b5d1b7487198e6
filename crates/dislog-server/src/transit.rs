//! Bytes that were handed to the transport and that it has yet to write to a socket.
//!
//! They cannot be taken back, so there are few of them: all streams together share a limit, and
//! beyond it each may have one small piece under way at a time, so that each goes on as fast as its
//! client reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::page::PIECE_BYTES_MAX;

/// The most bytes of a piece when the limit is used up. A stream takes about as much in any case.
const SCARCE_PIECE_BYTES_MAX: usize = 4 << 10;

/// The bytes of all streams of a node.
pub(crate) struct Transit {
    bytes_max: usize,
    bytes: Arc<AtomicUsize>,
}

/// The pieces of one stream.
#[derive(Default)]
pub(crate) struct Lane {
    shared: Arc<LaneShared>,
}

#[derive(Default)]
struct LaneShared {
    pieces: AtomicUsize,
    written: Notify,
}

/// A piece; it has arrived when the transport drops it.
struct Piece {
    bytes: Bytes,
    of_node: Arc<AtomicUsize>,
    of_stream: Arc<LaneShared>,
}

impl Transit {
    /// A limit of so many bytes, but for a small piece of every stream.
    pub(crate) fn new(bytes_max: usize) -> Transit {
        Transit { bytes_max, bytes: Arc::default() }
    }

    /// Waits until the stream may send: how many bytes.
    pub(crate) async fn room(&self, lane: &Lane) -> usize {
        loop {
            let written = lane.shared.written.notified();
            if self.bytes.load(Ordering::Relaxed) < self.bytes_max {
                return PIECE_BYTES_MAX;
            }
            if lane.shared.pieces.load(Ordering::Acquire) == 0 {
                return SCARCE_PIECE_BYTES_MAX;
            }
            written.await;
        }
    }

    /// A piece to hand to the transport.
    pub(crate) fn piece(&self, lane: &Lane, bytes: Bytes) -> Bytes {
        self.bytes.fetch_add(bytes.len(), Ordering::Relaxed);
        lane.shared.pieces.fetch_add(1, Ordering::Relaxed);
        let (of_node, of_stream) = (Arc::clone(&self.bytes), Arc::clone(&lane.shared));
        Bytes::from_owner(Piece { bytes, of_node, of_stream })
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.of_node.fetch_sub(self.bytes.len(), Ordering::Relaxed);
        self.of_stream.pieces.fetch_sub(1, Ordering::Release);
        // A permit is kept for a stream that is about to wait.
        self.of_stream.written.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn beyond_the_limit_a_stream_has_one_small_piece_under_way() {
        let transit = Transit::new(100);
        let [full, other] = [Lane::default(), Lane::default()];
        assert_eq!(transit.room(&full).await, PIECE_BYTES_MAX);
        let first = transit.piece(&full, vec![1; 90].into());
        assert_eq!(transit.room(&full).await, PIECE_BYTES_MAX);
        let second = transit.piece(&full, vec![2; 90].into());
        assert_eq!(second, vec![2; 90]);
        assert!(transit.room(&full).now_or_never().is_none());
        assert_eq!(transit.room(&other).await, SCARCE_PIECE_BYTES_MAX);
        let third = transit.piece(&other, vec![3; 90].into());
        drop(second);
        assert!(transit.room(&full).now_or_never().is_none(), "the first is under way");
        let part = first.slice(..1);
        drop(first);
        assert!(transit.room(&full).now_or_never().is_none(), "a part of it is");
        drop(part);
        assert_eq!(transit.room(&full).await, PIECE_BYTES_MAX);
        drop(third);
        assert_eq!(transit.bytes.load(Ordering::Relaxed), 0);
    }
}
