//! Indexes: a row for every frame of a store, derived from it, memory-mapped to read.
//!
//! ```text
//!  0  base offset of the frame, less the segment's       u32
//!  4  position of the frame in the store                 u32
//!  8  raft index of the frame, less the segment's        u32
//! 12  CRC-32C of the segment's id and the other fields   u32
//! 16  term                                               u64
//! 24  timestamp, Unix milliseconds                       i64
//! ```
//!
//! All integers are little-endian. Rows are in the order of the store, so all of offset, raft
//! index, position and timestamp ascend, and each can be looked up by binary search. A row that
//! does not verify makes the index bad, and a bad index is made anew from the store: nothing here
//! is ever an error to a user.

use std::io;
use std::path::Path;
use std::sync::Arc;

use dislog_types::checksum::crc32c_parts;

use crate::frame::FrameHeader;
use crate::fs::{File, Fs, Mapping};
use crate::store::StoreHeader;

/// Bytes of a row.
pub(crate) const ROW_BYTES: u64 = 32;

/// Rows a mapping has room for at first; doubled as the index grows.
const MAPPED_ROWS_MIN: u64 = 4_096;

/// What an index says of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub base_offset: u64,
    pub raft_index: u64,
    pub position: u64,
    pub term: u64,
    pub timestamp_ms: i64,
}

impl Row {
    pub(crate) fn of(header: &FrameHeader, position: u64) -> Row {
        Row {
            base_offset: header.base_offset,
            raft_index: header.raft_index,
            position,
            term: header.term,
            timestamp_ms: header.timestamp_ms,
        }
    }

    /// Whether the row can be encoded: its numbers are relative to the segment's, in 32 bits. The
    /// writer sees to it; whoever has the row from a disk must ask.
    pub(crate) fn fits(&self, store: &StoreHeader) -> bool {
        let fits = |value: u64, base: u64| {
            value.checked_sub(base).is_some_and(|relative| u32::try_from(relative).is_ok())
        };
        fits(self.base_offset, store.base_offset)
            && fits(self.raft_index, store.base_raft_index)
            && fits(self.position, 0)
    }

    /// Appends the bytes of a row that fits to `out`.
    pub(crate) fn encode(&self, store: &StoreHeader, out: &mut Vec<u8>) {
        let relative = |value: u64, base: u64| u32::try_from(value - base).expect("the row fits");
        let mut row = [0; ROW_BYTES as usize];
        row[0..4].copy_from_slice(&relative(self.base_offset, store.base_offset).to_le_bytes());
        row[4..8].copy_from_slice(&relative(self.position, 0).to_le_bytes());
        row[8..12].copy_from_slice(&relative(self.raft_index, store.base_raft_index).to_le_bytes());
        row[16..24].copy_from_slice(&self.term.to_le_bytes());
        row[24..32].copy_from_slice(&self.timestamp_ms.to_le_bytes());
        let crc = row_crc(&row, store);
        row[12..16].copy_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&row);
    }

    fn decode(row: &[u8; ROW_BYTES as usize], store: &StoreHeader) -> Option<Row> {
        let u32_at = |at: usize| row[at..at + 4].try_into().map(u32::from_le_bytes).ok();
        let u64_at = |at: usize| row[at..at + 8].try_into().map(u64::from_le_bytes).ok();
        if u32_at(12)? != row_crc(row, store) {
            return None;
        }
        Some(Row {
            base_offset: store.base_offset.checked_add(u64::from(u32_at(0)?))?,
            position: u64::from(u32_at(4)?),
            raft_index: store.base_raft_index.checked_add(u64::from(u32_at(8)?))?,
            term: u64_at(16)?,
            timestamp_ms: u64_at(24)?.cast_signed(),
        })
    }
}

fn row_crc(row: &[u8; ROW_BYTES as usize], store: &StoreHeader) -> u32 {
    crc32c_parts(&[&store.segment_id.to_le_bytes(), &row[0..12], &row[16..32]])
}

/// An index to read from. The number of its rows is kept by the segment, which knows how many are
/// written.
#[derive(Clone, Debug)]
pub(crate) struct Index {
    mapping: Arc<dyn Mapping>,
    mapped_rows: u64,
    store: StoreHeader,
}

impl Index {
    /// Maps the index at `path`, with room for at least `rows`.
    pub(crate) fn map(
        fs: &dyn Fs,
        path: &Path,
        store: StoreHeader,
        rows: u64,
    ) -> io::Result<Index> {
        let mapped_rows = rows.next_power_of_two().max(MAPPED_ROWS_MIN);
        Ok(Index { mapping: fs.map(path, mapped_rows * ROW_BYTES)?, mapped_rows, store })
    }

    /// An index of `rows` rows that are somewhere else.
    pub(crate) fn of(mapping: Arc<dyn Mapping>, store: StoreHeader, rows: u64) -> Index {
        Index { mapping, mapped_rows: rows, store }
    }

    /// Whether it has room for so many rows.
    pub(crate) fn covers(&self, rows: u64) -> bool {
        rows <= self.mapped_rows
    }

    /// Row `number`, which must have been written; `None` if it does not verify.
    pub(crate) fn row(&self, number: u64) -> Option<Row> {
        let mut bytes = [0; ROW_BYTES as usize];
        self.mapping.copy_to(&mut bytes, number * ROW_BYTES);
        Row::decode(&bytes, &self.store)
    }

    /// The number of the first of `rows` rows for which `before` is false; `before` holds for a
    /// prefix. `None` if a row does not verify.
    pub(crate) fn partition_point(&self, rows: u64, before: impl Fn(&Row) -> bool) -> Option<u64> {
        let (mut low, mut high) = (0, rows);
        while low < high {
            let middle = low + (high - low) / 2;
            if before(&self.row(middle)?) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Some(low)
    }
}

/// Writes `rows` (encoded) behind the first `written` rows of the index `file`.
pub(crate) fn append(file: &dyn File, written: u64, rows: &[u8]) -> io::Result<()> {
    file.write_at(&[rows], written * ROW_BYTES)
}
