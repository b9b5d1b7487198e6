//! Stores: the files that hold frames, and the truth.
//!
//! ```text
//!   0  magic              8 bytes  "DISLOGS" and the version, 1
//!   8  CRC-32C            u32      of bytes 16..64
//!  12  zero               4 bytes
//!  16  segment id         u64      random, seeds the checksum of every frame
//!  24  base offset        u64
//!  32  base raft index    u64      that of the first frame
//!  40  previous term      u64      that of the frame before the first
//!  48  previous timestamp i64      that of the frame before the first
//!  56  zero               8 bytes
//!  64  the first 64 bytes again, in case they rot
//! 128  frames
//! ```

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use dislog_types::checksum::crc32c;

use crate::error::{LogError, SYNC};
use crate::frame::{FRAME_HEADER_BYTES, FrameHeader, MAGIC, PAYLOAD_BYTES_MAX};
use crate::fs::{File, Fs};

/// Bytes of a store before its first frame.
pub(crate) const STORE_HEADER_BYTES: u64 = 2 * COPY_BYTES as u64;

const COPY_BYTES: usize = 64;
const STORE_MAGIC: [u8; 8] = *b"DISLOGS\x01";

/// How much is read at a time where a store is read through.
const SCAN_BYTES: usize = 1 << 20;

/// What a store says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoreHeader {
    pub segment_id: u64,
    pub base_offset: u64,
    pub base_raft_index: u64,
    pub previous_term: u64,
    pub previous_timestamp_ms: i64,
}

impl StoreHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut copy = [0; COPY_BYTES];
        copy[0..8].copy_from_slice(&STORE_MAGIC);
        copy[16..24].copy_from_slice(&self.segment_id.to_le_bytes());
        copy[24..32].copy_from_slice(&self.base_offset.to_le_bytes());
        copy[32..40].copy_from_slice(&self.base_raft_index.to_le_bytes());
        copy[40..48].copy_from_slice(&self.previous_term.to_le_bytes());
        copy[48..56].copy_from_slice(&self.previous_timestamp_ms.to_le_bytes());
        let crc = crc32c(&copy[16..]);
        copy[8..12].copy_from_slice(&crc.to_le_bytes());
        copy.repeat(2)
    }

    /// The header in `bytes`, from whichever copy is sound.
    pub(crate) fn decode(bytes: &[u8]) -> Option<StoreHeader> {
        bytes.chunks_exact(COPY_BYTES).take(2).find_map(StoreHeader::decode_copy)
    }

    fn decode_copy(copy: &[u8]) -> Option<StoreHeader> {
        let u64_at = |at: usize| copy[at..at + 8].try_into().map(u64::from_le_bytes).ok();
        if copy[0..8] != STORE_MAGIC || copy[8..12] != crc32c(&copy[16..]).to_le_bytes() {
            return None;
        }
        Some(StoreHeader {
            segment_id: u64_at(16)?,
            base_offset: u64_at(24)?,
            base_raft_index: u64_at(32)?,
            previous_term: u64_at(40)?,
            previous_timestamp_ms: u64_at(48)?.cast_signed(),
        })
    }
}

/// Reads the header of a store; `None` if neither copy is sound, or the store ends before its first
/// frame could begin.
pub(crate) fn read_header(file: &dyn File) -> io::Result<Option<StoreHeader>> {
    let mut bytes = [0; STORE_HEADER_BYTES as usize];
    let whole = file.read_at(&mut bytes, 0)? == bytes.len();
    Ok(StoreHeader::decode(&bytes).filter(|_| whole))
}

/// Creates a store with nothing but its header, durable but for its name.
pub(crate) fn create(
    fs: &dyn Fs,
    path: &Path,
    header: &StoreHeader,
) -> Result<Arc<dyn File>, LogError> {
    let file = fs.create(path).map_err(|e| LogError::of("create", path, &e))?;
    file.write_at(&[&header.encode()], 0).map_err(|e| LogError::of("write", path, &e))?;
    file.sync_data().map_err(|e| LogError::of(SYNC, path, &e))?;
    Ok(file)
}

/// Reads the frames of a store one after the other, each verified.
pub(crate) struct Scanner<'a> {
    file: &'a dyn File,
    segment_id: u64,
    /// Where the next frame begins.
    position: u64,
    buffer: Vec<u8>,
    /// Where in the file the buffer begins.
    buffer_start: u64,
    /// Where in the buffer the last frame's payload is.
    payload: Range<usize>,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(file: &'a dyn File, segment_id: u64, position: u64) -> Scanner<'a> {
        Scanner {
            file,
            segment_id,
            position,
            buffer: Vec::new(),
            buffer_start: position,
            payload: 0..0,
        }
    }

    /// Where the frame that [`next`](Self::next) will read begins.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The next frame's header; `None` where no frame verifies.
    pub(crate) fn next(&mut self) -> io::Result<Option<FrameHeader>> {
        let (start, segment_id) = (self.position, self.segment_id);
        let header = FrameHeader::decode(self.bytes(start, FRAME_HEADER_BYTES)?, segment_id);
        let Some(header) = header else {
            return Ok(None);
        };
        let payload_bytes = header.payload_bytes as usize;
        let bytes = self.bytes(start, FRAME_HEADER_BYTES + payload_bytes)?;
        match bytes.get(FRAME_HEADER_BYTES..) {
            Some(payload) if header.verifies(payload) => {}
            _ => return Ok(None),
        }
        let payload_start = (start - self.buffer_start) as usize + FRAME_HEADER_BYTES;
        self.payload = payload_start..payload_start + payload_bytes;
        self.position = start + header.frame_bytes();
        Ok(Some(header))
    }

    /// The payload of the frame that [`next`](Self::next) gave last, until it is called again.
    pub(crate) fn payload(&self) -> &[u8] {
        &self.buffer[self.payload.clone()]
    }

    /// Moves to the first frame that verifies and begins at or behind `from`; `false` if there is
    /// none.
    pub(crate) fn seek_valid(&mut self, from: u64) -> io::Result<bool> {
        let mut candidate = from;
        while let Some(found) = self.find_magic(candidate)? {
            self.position = found;
            if self.next()?.is_some() {
                self.position = found;
                return Ok(true);
            }
            candidate = found + 1;
        }
        Ok(false)
    }

    fn find_magic(&mut self, from: u64) -> io::Result<Option<u64>> {
        let mut from = from;
        loop {
            let window = self.bytes(from, SCAN_BYTES)?;
            if window.len() < MAGIC.len() {
                return Ok(None);
            }
            if let Some(found) = window.windows(MAGIC.len()).position(|bytes| bytes == MAGIC) {
                return Ok(Some(from + found as u64));
            }
            from += (window.len() - (MAGIC.len() - 1)) as u64;
        }
    }

    /// The `len` bytes at `position`, fewer at the end of the file.
    fn bytes(&mut self, position: u64, len: usize) -> io::Result<&[u8]> {
        let buffer_end = self.buffer_start + self.buffer.len() as u64;
        let within = position >= self.buffer_start && position + len as u64 <= buffer_end;
        if !within {
            let left =
                usize::try_from(self.file.len()?.saturating_sub(position)).unwrap_or(usize::MAX);
            self.buffer.resize(len.max(SCAN_BYTES).min(left), 0);
            let read = self.file.read_at(&mut self.buffer, position)?;
            self.buffer.truncate(read);
            self.buffer_start = position;
        }
        let start = (position - self.buffer_start) as usize;
        let end = (start + len).min(self.buffer.len());
        Ok(&self.buffer[start..end])
    }
}

const _: () = assert!(FRAME_HEADER_BYTES + PAYLOAD_BYTES_MAX < u32::MAX as usize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_the_loss_of_either_copy() {
        let header = StoreHeader {
            segment_id: 1,
            base_offset: 2,
            base_raft_index: 3,
            previous_term: 4,
            previous_timestamp_ms: -5,
        };
        let sound = header.encode();
        assert_eq!(sound.len() as u64, STORE_HEADER_BYTES);
        for bit in 0..sound.len() * 8 {
            let mut bytes = sound.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(StoreHeader::decode(&bytes), Some(header), "bit {bit}");
        }
        assert_eq!(StoreHeader::decode(&sound[..63]), None);
        assert_eq!(StoreHeader::decode(&[0; 128]), None);
    }
}
