//! What nodes send each other.

use bytes::{Bytes, BytesMut};
use prost::Message;

use crate::raft::transport::PeerMessage;

/// The largest frame that is decoded: an append of one batch of the largest size may be in it,
/// beside what was already there.
pub const PEER_FRAME_BYTES_MAX: usize = 32 << 20;

/// What one node has to tell another at one moment, encoded as Protocol Buffers.
#[derive(Clone, PartialEq, Message)]
pub struct PeerFrame {
    /// The cluster of the sender; 0 if it is in none yet.
    #[prost(fixed64, tag = "1")]
    pub(crate) cluster_id: u64,
    /// The sender.
    #[prost(fixed64, tag = "2")]
    pub(crate) node_id: u64,
    /// Messages of groups, in order.
    #[prost(message, repeated, tag = "3")]
    pub(crate) messages: Vec<PeerMessage>,
    /// A packet of the gossip protocol.
    #[prost(bytes = "bytes", tag = "4")]
    pub(crate) gossip: Bytes,
    /// A command for the metadata, sent to the node that leads it. Whoever sent it watches the
    /// metadata for what comes of it.
    #[prost(bytes = "bytes", tag = "5")]
    pub(crate) command: Bytes,
}

/// Bytes that are no frame.
#[derive(Debug, thiserror::Error)]
#[error("not a frame of a peer: {0}")]
pub struct PeerFrameError(#[from] prost::DecodeError);

impl PeerFrame {
    /// Its size when encoded.
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        self.encoded_len()
    }

    /// Appends the encoded frame.
    pub fn encode_into(&self, out: &mut BytesMut) {
        self.encode(out).expect("a buffer grows as needed");
    }

    /// Decodes what was encoded; payloads share the memory of `bytes`.
    ///
    /// # Errors
    /// If these are not the bytes of a frame.
    pub fn decode_from(bytes: Bytes) -> Result<PeerFrame, PeerFrameError> {
        Ok(PeerFrame::decode(bytes)?)
    }

    /// The node that sent it.
    #[must_use]
    pub fn sender(&self) -> u64 {
        self.node_id
    }
}
