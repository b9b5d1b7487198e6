//! Frames: Raft entries as the store keeps them, one behind the other.
//!
//! A fixed header, then the payload. All integers are little-endian.
//!
//! ```text
//!  0  magic               4 bytes  "DLF" and the version, 1
//!  4  header CRC-32C      u32      of the segment's id (u64) and bytes 8..64
//!  8  payload length      u32      at most PAYLOAD_BYTES_MAX
//! 12  payload CRC-32C     u32
//! 16  kind                u8       then 3 zero bytes
//! 20  record count        u32      0 unless the kind is batch
//! 24  term                u64
//! 32  raft index          u64
//! 40  base offset         u64
//! 48  timestamp           i64      Unix milliseconds, never less than in the frame before
//! 56  durable raft index  u64      up to where the log was synced when this frame was written
//! 64  payload
//! ```
//!
//! The id of the segment seeds the header's checksum, so that stale bytes of another segment never
//! verify. The durable raft index lets recovery tell an unfinished write from damage: see
//! `docs/recovery.md`.

use bytes::Bytes;
use dislog_types::checksum::{crc32c, crc32c_parts};
use dislog_types::limits::BATCH_BYTES_MAX;

/// Bytes of a frame before its payload.
pub const FRAME_HEADER_BYTES: usize = 64;

/// The most bytes a payload may have.
pub const PAYLOAD_BYTES_MAX: usize = BATCH_BYTES_MAX;

/// What every frame begins with: the name of the format and its version.
pub(crate) const MAGIC: [u8; 4] = *b"DLF\x01";

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A record batch; the only kind with records.
    Batch = 1,
    /// A change of the group's membership.
    Membership = 2,
    /// The empty entry that opens a leader's term.
    LeaderStart = 3,
    /// A new start of the log: the payload is the first offset to keep, u64 little-endian.
    Trim = 4,
}

impl Kind {
    /// The kind with this number on disk.
    #[must_use]
    pub fn from_u8(number: u8) -> Option<Kind> {
        match number {
            1 => Some(Kind::Batch),
            2 => Some(Kind::Membership),
            3 => Some(Kind::LeaderStart),
            4 => Some(Kind::Trim),
            _ => None,
        }
    }
}

/// One Raft entry as the log keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is for.
    pub kind: Kind,
    /// The Raft term it was proposed in.
    pub term: u64,
    /// Its Raft position: the first frame of a log has 1.
    pub raft_index: u64,
    /// The offset of its first record; without records, the offset of the next record.
    pub base_offset: u64,
    /// How many records it holds; 0 unless it is a batch.
    pub record_count: u32,
    /// When its leader appended it, Unix milliseconds; never less than that of the frame before.
    pub timestamp_ms: i64,
    /// The batch, or what the kind says.
    pub payload: Bytes,
}

impl Frame {
    /// One past the offset of its last record.
    #[must_use]
    pub fn end_offset(&self) -> u64 {
        self.base_offset + u64::from(self.record_count)
    }

    /// Bytes it takes in the store.
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        FRAME_HEADER_BYTES + self.payload.len()
    }
}

/// The header of a frame, decoded and verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub kind: Kind,
    pub term: u64,
    pub raft_index: u64,
    pub base_offset: u64,
    pub record_count: u32,
    pub timestamp_ms: i64,
    pub durable_raft_index: u64,
    pub payload_bytes: u32,
    payload_crc: u32,
}

impl FrameHeader {
    pub(crate) fn of(frame: &Frame, durable_raft_index: u64) -> FrameHeader {
        let payload_bytes = u32::try_from(frame.payload.len()).expect("payloads are limited");
        FrameHeader {
            kind: frame.kind,
            term: frame.term,
            raft_index: frame.raft_index,
            base_offset: frame.base_offset,
            record_count: frame.record_count,
            timestamp_ms: frame.timestamp_ms,
            durable_raft_index,
            payload_bytes,
            payload_crc: crc32c(&frame.payload),
        }
    }

    pub(crate) fn encode(&self, segment_id: u64) -> [u8; FRAME_HEADER_BYTES] {
        let mut out = [0; FRAME_HEADER_BYTES];
        out[0..4].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&self.payload_bytes.to_le_bytes());
        out[12..16].copy_from_slice(&self.payload_crc.to_le_bytes());
        out[16] = self.kind as u8;
        out[20..24].copy_from_slice(&self.record_count.to_le_bytes());
        out[24..32].copy_from_slice(&self.term.to_le_bytes());
        out[32..40].copy_from_slice(&self.raft_index.to_le_bytes());
        out[40..48].copy_from_slice(&self.base_offset.to_le_bytes());
        out[48..56].copy_from_slice(&self.timestamp_ms.to_le_bytes());
        out[56..64].copy_from_slice(&self.durable_raft_index.to_le_bytes());
        let crc = crc32c_parts(&[&segment_id.to_le_bytes(), &out[8..]]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The header that `bytes` begins with; `None` unless it is one of this segment, unchanged.
    pub(crate) fn decode(bytes: &[u8], segment_id: u64) -> Option<FrameHeader> {
        let bytes: &[u8; FRAME_HEADER_BYTES] = bytes.first_chunk()?;
        if bytes[0..4] != MAGIC {
            return None;
        }
        let crc = crc32c_parts(&[&segment_id.to_le_bytes(), &bytes[8..]]);
        if u32_at(bytes, 4) != crc {
            return None;
        }
        let header = FrameHeader {
            kind: Kind::from_u8(bytes[16])?,
            term: u64_at(bytes, 24),
            raft_index: u64_at(bytes, 32),
            base_offset: u64_at(bytes, 40),
            record_count: u32_at(bytes, 20),
            timestamp_ms: u64_at(bytes, 48).cast_signed(),
            durable_raft_index: u64_at(bytes, 56),
            payload_bytes: u32_at(bytes, 8),
            payload_crc: u32_at(bytes, 12),
        };
        let end_fits = header.base_offset.checked_add(u64::from(header.record_count)).is_some()
            && header.raft_index < u64::MAX;
        let payload_fits = header.payload_bytes as usize <= PAYLOAD_BYTES_MAX;
        (end_fits && payload_fits).then_some(header)
    }

    /// Whether `payload` is what was written.
    pub(crate) fn verifies(&self, payload: &[u8]) -> bool {
        payload.len() == self.payload_bytes as usize && crc32c(payload) == self.payload_crc
    }

    pub(crate) fn end_offset(&self) -> u64 {
        self.base_offset + u64::from(self.record_count)
    }

    pub(crate) fn frame_bytes(&self) -> u64 {
        FRAME_HEADER_BYTES as u64 + u64::from(self.payload_bytes)
    }

    pub(crate) fn into_frame(self, payload: Bytes) -> Frame {
        Frame {
            kind: self.kind,
            term: self.term,
            raft_index: self.raft_index,
            base_offset: self.base_offset,
            record_count: self.record_count,
            timestamp_ms: self.timestamp_ms,
            payload,
        }
    }
}

fn u32_at(bytes: &[u8; FRAME_HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8; FRAME_HEADER_BYTES], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Frame {
        Frame {
            kind: Kind::Batch,
            term: 3,
            raft_index: 9,
            base_offset: 40,
            record_count: 2,
            timestamp_ms: 1_700_000_000_000,
            payload: Bytes::from_static(b"payload"),
        }
    }

    #[test]
    fn a_header_survives() {
        let header = FrameHeader::of(&frame(), 8);
        let decoded = FrameHeader::decode(&header.encode(5), 5).unwrap();
        assert_eq!(decoded, header);
        assert!(decoded.verifies(b"payload"));
        assert_eq!(decoded.into_frame(Bytes::from_static(b"payload")), frame());
    }

    #[test]
    fn every_flipped_bit_and_every_other_segment_is_noticed() {
        let bytes = FrameHeader::of(&frame(), 8).encode(5);
        assert_eq!(FrameHeader::decode(&bytes, 6), None);
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FrameHeader::decode(&bytes, 5), None, "bit {bit}");
        }
    }

    #[test]
    fn cut_off_bytes_are_no_header() {
        let bytes = FrameHeader::of(&frame(), 8).encode(5);
        for len in 0..bytes.len() {
            assert_eq!(FrameHeader::decode(&bytes[..len], 5), None);
        }
    }
}
