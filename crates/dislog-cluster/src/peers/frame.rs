//! What nodes send each other.

use bytes::{Bytes, BytesMut};
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use crate::raft::pulse::Pulse;
use crate::raft::transport::PeerMessage;

/// The largest frame that is decoded: an append of one batch of the largest size may be in it,
/// beside what was already there.
pub const PEER_FRAME_BYTES_MAX: usize = 32 << 20;

/// The most messages and entries in a frame that is decoded. An empty one takes two bytes on the
/// wire and some hundred in memory: without this limit a frame could take gigabytes.
const PARTS_MAX: usize = 256 << 10;

/// Where the messages of a frame are, and the entries of a message.
const PART_TAGS: &[u32] = &[3, 8];

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
    /// How things are with groups at rest.
    #[prost(message, optional, tag = "6")]
    pub(crate) pulse: Option<Pulse>,
}

/// Bytes that are no frame.
#[derive(Debug, thiserror::Error)]
pub enum PeerFrameError {
    /// They are not the encoding of one.
    #[error("not a frame of a peer: {0}")]
    Encoding(#[from] prost::DecodeError),
    /// They would take much more memory than they are worth.
    #[error("a frame of a peer has {0} messages and entries, the limit is {PARTS_MAX}")]
    Parts(usize),
}

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
    /// If these are not the bytes of a frame, or of one of too many parts.
    pub fn decode_from(bytes: Bytes) -> Result<PeerFrame, PeerFrameError> {
        let parts = count_parts(&bytes, PART_TAGS);
        if parts > PARTS_MAX {
            return Err(PeerFrameError::Parts(parts));
        }
        Ok(PeerFrame::decode(bytes)?)
    }

    /// The node that sent it.
    #[must_use]
    pub fn sender(&self) -> u64 {
        self.node_id
    }
}

/// The messages under the first of `tags` in `bytes`, and within them those under the others, up to
/// where `bytes` are not valid: the decoder comes no further.
#[must_use]
pub fn count_parts(mut bytes: &[u8], tags: &[u32]) -> usize {
    let Some((&part_tag, inner_tags)) = tags.split_first() else { return 0 };
    let mut parts = 0;
    while !bytes.is_empty() {
        let Ok((tag, wire_type)) = decode_key(&mut bytes) else { break };
        if (tag, wire_type) == (part_tag, WireType::LengthDelimited) {
            let len = decode_varint(&mut bytes).ok().and_then(|len| usize::try_from(len).ok());
            let Some((part, rest)) = len.and_then(|len| bytes.split_at_checked(len)) else { break };
            parts += 1 + count_parts(part, inner_tags);
            bytes = rest;
        } else if skip_field(wire_type, tag, &mut bytes, DecodeContext::default()).is_err() {
            break;
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_of_many_empty_parts_is_refused_before_it_is_decoded() {
        let messages = [0x1a, 0].repeat(PARTS_MAX);
        assert!(PeerFrame::decode_from(messages.clone().into()).is_ok());
        let entries = [[0x1a, 4].as_slice(), &[0x42, 0, 0x42, 0]].concat();
        let bytes = [messages, entries].concat();
        let refused = PeerFrame::decode_from(bytes.into()).unwrap_err();
        assert!(matches!(refused, PeerFrameError::Parts(parts) if parts == PARTS_MAX + 3));
        for cut in [&[0x1a][..], &[0x1a, 9, 1], &[0x1a, 2, 0x42, 9], &[0xff; 20]] {
            assert!(PeerFrame::decode_from(Bytes::copy_from_slice(cut)).is_err(), "{cut:?}");
        }
    }
}
