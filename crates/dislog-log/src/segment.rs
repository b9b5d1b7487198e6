//! Segments: a store and its index, read as one.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};

use crate::error::{Damage, ReadError};
use crate::frame::{FRAME_HEADER_BYTES, Frame, FrameHeader, Kind};
use crate::fs::{File, Fs, Mapping};
use crate::index::{self, Index, Row};
use crate::store::{STORE_HEADER_BYTES, Scanner, StoreHeader};

/// A segment's files, and what never changes about them.
pub(crate) struct Segment {
    pub store_path: PathBuf,
    pub index_path: PathBuf,
    pub header: StoreHeader,
    files: Mutex<Option<Files>>,
    /// The index of a damaged log, whose files are left as they were found.
    rows: Option<Arc<MemoryRows>>,
}

/// An index in memory.
#[derive(Debug)]
struct MemoryRows(Vec<u8>);

impl Mapping for MemoryRows {
    fn copy_to(&self, buffer: &mut [u8], position: u64) {
        let start = usize::try_from(position).expect("positions in memory fit it");
        buffer.copy_from_slice(&self.0[start..start + buffer.len()]);
    }
}

#[derive(Clone)]
struct Files {
    store: Arc<dyn File>,
    index: Index,
}

/// How much of a segment there is to read: durable frames only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// How many frames.
    pub rows: u64,
    /// Where in the store they end.
    pub end_position: u64,
    /// One past their last offset.
    pub end_offset: u64,
    /// One past their last raft index.
    pub end_raft_index: u64,
    /// The term of the last frame.
    pub last_term: u64,
    /// The timestamp of the last frame, Unix milliseconds.
    pub last_timestamp_ms: i64,
}

impl Extent {
    /// That of a segment without frames.
    pub(crate) fn empty(header: &StoreHeader) -> Extent {
        Extent {
            rows: 0,
            end_position: STORE_HEADER_BYTES,
            end_offset: header.base_offset,
            end_raft_index: header.base_raft_index,
            last_term: header.previous_term,
            last_timestamp_ms: header.previous_timestamp_ms,
        }
    }

    /// With one more frame, whatever was before it.
    pub(crate) fn with(&self, frame: &FrameHeader, position: u64) -> Extent {
        Extent {
            rows: self.rows + 1,
            end_position: position + frame.frame_bytes(),
            end_offset: frame.end_offset(),
            end_raft_index: frame.raft_index + 1,
            last_term: frame.term,
            last_timestamp_ms: frame.timestamp_ms,
        }
    }
}

/// What to read of a segment.
pub(crate) struct Wanted {
    /// The number of the first row.
    pub first_row: u64,
    /// One past the number of the last row.
    pub end_row: u64,
    /// Stop before passing this many bytes, but not before the first frame.
    pub bytes_max: u64,
}

impl Segment {
    pub(crate) fn new(dir: &Path, header: StoreHeader) -> Segment {
        Segment {
            store_path: dir.join(format!("{:020}.store", header.base_offset)),
            index_path: dir.join(format!("{:020}.index", header.base_offset)),
            header,
            files: Mutex::new(None),
            rows: None,
        }
    }

    /// The same segment, with `rows` (encoded) as its index in place of the one on disk.
    pub(crate) fn with_rows(&self, dir: &Path, rows: Vec<u8>) -> Segment {
        Segment { rows: Some(Arc::new(MemoryRows(rows))), ..Segment::new(dir, self.header) }
    }

    /// Lets go of the files until they are read again.
    pub(crate) fn close(&self) {
        *self.files.lock().expect("no panic while it is held") = None;
    }

    fn files(&self, fs: &dyn Fs, extent: &Extent) -> Result<Files, ReadError> {
        let mut files = self.files.lock().expect("no panic while it is held");
        if let Some(open) = files.as_ref().filter(|open| open.index.covers(extent.rows)) {
            return Ok(open.clone());
        }
        let store =
            fs.open(&self.store_path).map_err(|e| ReadError::failed(&self.store_path, &e))?;
        let index = match &self.rows {
            Some(rows) => Index::of(Arc::clone(rows) as Arc<dyn Mapping>, self.header, extent.rows),
            None => self.map_index(fs, extent)?,
        };
        Ok(files.insert(Files { store, index }).clone())
    }

    fn map_index(&self, fs: &dyn Fs, extent: &Extent) -> Result<Index, ReadError> {
        let is_whole = fs
            .open(&self.index_path)
            .and_then(|file| file.len())
            .is_ok_and(|bytes| bytes >= extent.rows * index::ROW_BYTES);
        match Index::map(fs, &self.index_path, self.header, extent.rows) {
            Ok(index) if is_whole => Ok(index),
            _ => self.rebuild_index(fs, extent),
        }
    }

    /// The number of the first row for which `before` is false; `before` holds for a prefix.
    pub(crate) fn partition_point(
        &self,
        fs: &dyn Fs,
        extent: &Extent,
        before: impl Fn(&Row) -> bool,
    ) -> Result<u64, ReadError> {
        self.with_index(fs, extent, |index| index.partition_point(extent.rows, &before))
    }

    /// Row `number`, below `extent.rows`.
    pub(crate) fn row(&self, fs: &dyn Fs, extent: &Extent, number: u64) -> Result<Row, ReadError> {
        self.with_index(fs, extent, |index| index.row(number))
    }

    /// Asks the index, and once more after making it anew if it turns out to be bad.
    fn with_index<T>(
        &self,
        fs: &dyn Fs,
        extent: &Extent,
        ask: impl Fn(&Index) -> Option<T>,
    ) -> Result<T, ReadError> {
        if let Some(answer) = ask(&self.files(fs, extent)?.index) {
            return Ok(answer);
        }
        let index = self.rebuild_index(fs, extent)?;
        let answer = ask(&index);
        if let Some(files) = &mut *self.files.lock().expect("no panic while it is held") {
            files.index = index;
        }
        let message = "the index stays bad after it was made anew".to_owned();
        answer.ok_or_else(|| ReadError::Failed { path: self.index_path.clone(), message })
    }

    /// Writes the rows of `extent` again, from the store, over those in the index. Where they
    /// cannot be written (a full disk must not stop readers) they stay in memory.
    fn rebuild_index(&self, fs: &dyn Fs, extent: &Extent) -> Result<Index, ReadError> {
        let failed = |error: io::Error| ReadError::failed(&self.store_path, &error);
        let store =
            fs.open(&self.store_path).map_err(|e| ReadError::failed(&self.store_path, &e))?;
        let mut scanner = Scanner::new(&*store, self.header.segment_id, STORE_HEADER_BYTES);
        let mut rows = Vec::new();
        let mut end_offset = self.header.base_offset;
        while (rows.len() as u64) < extent.rows * index::ROW_BYTES {
            let position = scanner.position();
            match scanner.next().map_err(|e| ReadError::failed(&self.store_path, &e))? {
                Some(header) => {
                    let row = Row::of(&header, position);
                    if row.fits(&self.header) {
                        end_offset = header.end_offset();
                        row.encode(&self.header, &mut rows);
                    }
                }
                None if scanner.seek_valid(position + 1).map_err(failed)? => {}
                None => return Err(self.damaged(position, end_offset, extent.end_offset)),
            }
        }
        let mapped = fs
            .open_or_create(&self.index_path)
            .and_then(|file| index::append(&*file, 0, &rows))
            .and_then(|()| Index::map(fs, &self.index_path, self.header, extent.rows));
        let in_memory = || Index::of(Arc::new(MemoryRows(rows)), self.header, extent.rows);
        Ok(mapped.unwrap_or_else(|_| in_memory()))
    }

    /// Reads frames, each verified. Ends before the first that isn't; if that is the very first, it
    /// is an error.
    pub(crate) fn read(
        &self,
        fs: &dyn Fs,
        extent: &Extent,
        wanted: &Wanted,
    ) -> Result<Vec<Frame>, ReadError> {
        let first = self.row(fs, extent, wanted.first_row)?;
        let limit = first.position.saturating_add(wanted.bytes_max);
        let fitting = match limit {
            limit if limit >= extent.end_position => extent.rows,
            _ => self.partition_point(fs, extent, |row| row.position <= limit)? - 1,
        };
        let end_row = fitting.clamp(wanted.first_row + 1, wanted.end_row);
        let end_position = match end_row {
            row if row == extent.rows => extent.end_position,
            row => self.row(fs, extent, row)?.position,
        };
        let bytes = self.read_bytes(fs, extent, first.position..end_position)?;
        let mut frames = Vec::with_capacity((end_row - wanted.first_row) as usize);
        for number in wanted.first_row..end_row {
            let row = self.row(fs, extent, number)?;
            match self.frame_at(&bytes, (row.position - first.position) as usize, &row) {
                Some(frame) => frames.push(frame),
                None if frames.is_empty() => return Err(self.damaged_row(fs, extent, number)?),
                None => break,
            }
        }
        Ok(frames)
    }

    fn read_bytes(
        &self,
        fs: &dyn Fs,
        extent: &Extent,
        range: std::ops::Range<u64>,
    ) -> Result<Bytes, ReadError> {
        let store = self.files(fs, extent)?.store;
        let mut buffer = BytesMut::zeroed((range.end - range.start) as usize);
        let read = store
            .read_at(&mut buffer, range.start)
            .map_err(|e| ReadError::failed(&self.store_path, &e))?;
        buffer.truncate(read);
        Ok(buffer.freeze())
    }

    fn frame_at(&self, bytes: &Bytes, at: usize, row: &Row) -> Option<Frame> {
        let header = FrameHeader::decode(bytes.get(at..)?, self.header.segment_id)?;
        let payload_start = at + FRAME_HEADER_BYTES;
        let payload_end = payload_start + header.payload_bytes as usize;
        let expected = header.raft_index == row.raft_index && header.base_offset == row.base_offset;
        if !expected || payload_end > bytes.len() {
            return None;
        }
        let payload = bytes.slice(payload_start..payload_end);
        header.verifies(&payload).then(|| header.into_frame(payload))
    }

    /// The damage that the frame of row `number` is.
    fn damaged_row(
        &self,
        fs: &dyn Fs,
        extent: &Extent,
        number: u64,
    ) -> Result<ReadError, ReadError> {
        let row = self.row(fs, extent, number)?;
        let to_offset = match number + 1 {
            next if next < extent.rows => self.row(fs, extent, next)?.base_offset,
            _ => extent.end_offset,
        };
        Ok(self.damaged(row.position, row.base_offset, to_offset))
    }

    pub(crate) fn damaged(&self, position: u64, from_offset: u64, to_offset: u64) -> ReadError {
        let file = self.store_path.clone();
        ReadError::Damaged(Damage { file, position, from_offset, to_offset })
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment").field("store_path", &self.store_path).finish_non_exhaustive()
    }
}

/// A segment and how much of it there is.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub segment: Arc<Segment>,
    pub extent: Extent,
}

impl View {
    /// Batches from the one that holds `offset`, which the extent covers.
    pub(crate) fn read_batches(
        &self,
        fs: &dyn Fs,
        offset: u64,
        limit_offset: u64,
        bytes_max: usize,
    ) -> Result<Vec<Frame>, ReadError> {
        let (segment, extent) = (&self.segment, &self.extent);
        let behind = segment.partition_point(fs, extent, |row| row.base_offset <= offset)?;
        let end_row = segment.partition_point(fs, extent, |row| row.base_offset < limit_offset)?;
        let mut first_row = behind.saturating_sub(1);
        while first_row < end_row {
            let wanted = Wanted { first_row, end_row, bytes_max: bytes_max as u64 };
            let frames = segment.read(fs, extent, &wanted)?;
            first_row += frames.len() as u64;
            let batches = dense_batches(frames, offset, limit_offset);
            if !batches.is_empty() {
                return Ok(batches);
            }
        }
        let to_offset = match first_row {
            row if row < extent.rows => segment.row(fs, extent, row)?.base_offset,
            _ => extent.end_offset,
        };
        Err(segment.damaged(0, offset, to_offset))
    }

    /// Frames of every kind from raft index `from` on, which the extent covers.
    pub(crate) fn read_frames(
        &self,
        fs: &dyn Fs,
        from: u64,
        to: u64,
        bytes_max: u64,
    ) -> Result<Vec<Frame>, ReadError> {
        let (segment, extent) = (&self.segment, &self.extent);
        let first_row = segment.partition_point(fs, extent, |row| row.raft_index < from)?;
        let end_row = segment.partition_point(fs, extent, |row| row.raft_index < to)?;
        if first_row == end_row || segment.row(fs, extent, first_row)?.raft_index != from {
            return Err(segment.damaged(0, extent.end_offset, extent.end_offset));
        }
        segment.read(fs, extent, &Wanted { first_row, end_row, bytes_max })
    }
}

/// The batches among `frames` from the one that holds `offset` on, up to a gap or a batch that
/// passes the limit.
fn dense_batches(frames: Vec<Frame>, offset: u64, limit_offset: u64) -> Vec<Frame> {
    let mut next = None;
    frames
        .into_iter()
        .filter(|frame| frame.kind == Kind::Batch)
        .skip_while(|frame| frame.end_offset() <= offset)
        .take_while(|frame| {
            let dense = next.map_or(frame.base_offset <= offset, |next| frame.base_offset == next);
            next = Some(frame.end_offset());
            dense && frame.end_offset() <= limit_offset
        })
        .collect()
}
