//! Writing the active segment.

use std::path::Path;
use std::sync::Arc;

use crate::error::{LogError, SYNC};
use crate::frame::{FRAME_HEADER_BYTES, Frame, FrameHeader};
use crate::fs::{File, Fs};
use crate::index::{self, Row};
use crate::segment::{Extent, Segment, View};
use crate::store::{self, StoreHeader};

/// How much is written again at a time.
const REWRITE_BYTES: usize = 1 << 20;

/// Where groups are smaller than this, they find room that was written before: see
/// [`Writer::reserve`].
const RESERVE_FOR_BYTES: u64 = 64 << 10;

/// How many groups their usual size is taken of, about.
const USUAL_OF: u64 = 8;

/// How much room is made at least, so that it is worth the trouble, and at most, so that it takes
/// no time.
const RESERVE_BYTES_MIN: u64 = 16 << 10;
const RESERVE_BYTES_MAX: u64 = 1 << 20;

/// The active segment, held by whoever writes the log.
///
/// - `extent` covers exactly the frames written so far; only some of them may be durable.
/// - The store is zeros from the extent to `reserved`.
/// - What lies behind the extent in the index is rubbish of a failed write, and is overwritten.
#[derive(Debug)]
pub(crate) struct Writer {
    pub segment: Arc<Segment>,
    pub extent: Extent,
    store: Arc<dyn File>,
    index: Arc<dyn File>,
    reserved: u64,
    /// Written since the last sync began.
    group_bytes: u64,
    /// The size of the groups before: a moving average.
    usual_bytes: u64,
}

/// A store and its index.
type Files = (Arc<dyn File>, Arc<dyn File>);

impl Writer {
    /// Creates the segment behind this one.
    pub(crate) fn create_next(
        &self,
        fs: &dyn Fs,
        dir: &Path,
        segment_id: u64,
    ) -> Result<Writer, LogError> {
        let header = StoreHeader {
            segment_id,
            base_offset: self.extent.end_offset,
            base_raft_index: self.extent.end_raft_index,
            previous_term: self.extent.last_term,
            previous_timestamp_ms: self.extent.last_timestamp_ms,
        };
        let (group_bytes, usual_bytes) = (self.group_bytes, self.usual_bytes);
        Ok(Writer { group_bytes, usual_bytes, ..Writer::create(fs, dir, header)? })
    }

    /// Creates a segment and makes its name durable. A full disk leaves nothing of it behind: the
    /// segment before it may yet take frames, and then another would begin where this one did not.
    pub(crate) fn create(fs: &dyn Fs, dir: &Path, header: StoreHeader) -> Result<Writer, LogError> {
        let segment = Segment::new(dir, header);
        remove_files(fs, dir, &segment)?;
        let created = Writer::create_files(fs, dir, &segment);
        if let Err(LogError::DiskFull { .. }) = created {
            remove_files(fs, dir, &segment)?;
        }
        let (store, index) = created?;
        let extent = Extent::empty(&header);
        let reserved = extent.end_position;
        let segment = Arc::new(segment);
        Ok(Writer { segment, extent, store, index, reserved, group_bytes: 0, usual_bytes: 0 })
    }

    fn create_files(fs: &dyn Fs, dir: &Path, segment: &Segment) -> Result<Files, LogError> {
        let (store_path, index_path) = (&segment.store_path, &segment.index_path);
        let index = fs.create(index_path).map_err(|e| LogError::of("create", index_path, &e))?;
        let store = store::create(fs, store_path, &segment.header)?;
        fs.sync_dir(dir).map_err(|e| LogError::of(SYNC, dir, &e))?;
        Ok((store, index))
    }

    /// Goes on behind `view`.
    pub(crate) fn resume(fs: &dyn Fs, view: View) -> Result<Writer, LogError> {
        let View { segment, extent } = view;
        let open = |path: &Path| fs.open(path).map_err(|e| LogError::of("open", path, &e));
        let (store, index) = (open(&segment.store_path)?, open(&segment.index_path)?);
        let reserved = store.len().map_err(|e| LogError::of("read", &segment.store_path, &e))?;
        Ok(Writer { segment, extent, store, index, reserved, group_bytes: 0, usual_bytes: 0 })
    }

    /// Whether `frame` still fits a segment of `segment_bytes`; a segment without frames takes any
    /// frame.
    pub(crate) fn fits(&self, extent: &Extent, frame: &Frame, segment_bytes: u64) -> bool {
        let records = frame.end_offset() - self.segment.header.base_offset;
        let end_position = extent.end_position + frame.frame_bytes() as u64;
        let relative_fits = records < u64::from(u32::MAX) && end_position < u64::from(u32::MAX);
        extent.rows == 0 || (end_position <= segment_bytes && relative_fits)
    }

    /// Writes `frames` behind the extent, not yet durably. If that fails the extent stays as it
    /// was.
    pub(crate) fn write(
        &mut self,
        frames: &[Frame],
        durable: u64,
        segment_bytes: u64,
    ) -> Result<(), LogError> {
        let mut extent = self.extent;
        let mut rows = Vec::with_capacity(frames.len() * index::ROW_BYTES as usize);
        let mut headers: Vec<[u8; FRAME_HEADER_BYTES]> = Vec::with_capacity(frames.len());
        for frame in frames {
            let header = FrameHeader::of(frame, durable);
            Row::of(&header, extent.end_position).encode(&self.segment.header, &mut rows);
            headers.push(header.encode(self.segment.header.segment_id));
            extent = extent.with(&header, extent.end_position);
        }
        let parts: Vec<&[u8]> =
            headers.iter().zip(frames).flat_map(|(h, f)| [&h[..], &f.payload[..]]).collect();
        index::append(&*self.index, self.extent.rows, &rows)
            .map_err(|e| LogError::of("write", &self.segment.index_path, &e))?;
        self.store
            .write_at(&parts, self.extent.end_position)
            .map_err(|e| LogError::of("write", &self.segment.store_path, &e))?;
        self.group_bytes += extent.end_position - self.extent.end_position;
        self.extent = extent;
        let small = self.group_bytes.max(self.usual_bytes) < RESERVE_FOR_BYTES;
        if small && extent.end_position > self.reserved {
            self.reserve(segment_bytes)?;
        }
        Ok(())
    }

    /// Writes zeros behind the extent, to be synced with it. A file that grows has its new length
    /// recorded by every sync, which takes a second write; into room that is there a sync writes
    /// just the frames. Small groups gain most by that; large ones would only be written twice, and
    /// a small one now and then changes nothing about that.
    fn reserve(&mut self, segment_bytes: u64) -> Result<(), LogError> {
        let end = self.extent.end_position;
        let wanted = end.clamp(RESERVE_BYTES_MIN, RESERVE_BYTES_MAX);
        let bytes = wanted.min(segment_bytes.saturating_sub(end));
        let zeros = vec![0; usize::try_from(bytes).expect("it is limited")];
        match self.store.write_at(&[&zeros], end) {
            Ok(()) => self.reserved = end + bytes,
            Err(error) => match LogError::of("write", &self.segment.store_path, &error) {
                // What there is was enough for the frames.
                LogError::DiskFull { .. } => self.reserved = end,
                stopped => return Err(stopped),
            },
        }
        Ok(())
    }

    /// A sync begins of what was written: a group.
    pub(crate) fn group_ends(&mut self) {
        let group_bytes = std::mem::take(&mut self.group_bytes);
        self.usual_bytes = (self.usual_bytes * (USUAL_OF - 1) + group_bytes) / USUAL_OF;
    }

    /// Makes everything written durable.
    pub(crate) fn sync(&self) -> Result<(), LogError> {
        self.store.sync_data().map_err(|e| LogError::of(SYNC, &self.segment.store_path, &e))
    }

    /// Cuts the segment behind the first `extent.rows` frames, durably.
    pub(crate) fn cut(&mut self, extent: Extent) -> Result<(), LogError> {
        assert!(extent.end_position <= self.extent.end_position, "a cut never lengthens");
        self.store
            .set_len(extent.end_position)
            .map_err(|e| LogError::of("cut", &self.segment.store_path, &e))?;
        self.extent = extent;
        self.reserved = extent.end_position;
        self.sync()
    }

    /// Writes the frames behind `proven_raft_index` again, as they are, and syncs them; the store's
    /// header too unless one of its frames is proven.
    ///
    /// After a failed sync the page cache may hold frames that the disk never got, and call them
    /// clean: a process that starts again on the same machine sees them whole, and a sync alone
    /// would not write them.
    pub(crate) fn rewrite(&self, fs: &dyn Fs, proven_raft_index: u64) -> Result<(), LogError> {
        let path = &self.segment.store_path;
        let unproven = |row: &Row| row.raft_index <= proven_raft_index;
        let number = self.segment.partition_point(fs, &self.extent, unproven);
        let row = number.and_then(|number| match number {
            number if number < self.extent.rows => {
                self.segment.row(fs, &self.extent, number).map(Some)
            }
            _ => Ok(None),
        });
        let row = row.map_err(|error| LogError::Stopped {
            operation: "read",
            path: path.clone(),
            message: error.to_string(),
        })?;
        if proven_raft_index < self.segment.header.base_raft_index {
            let header = self.segment.header.encode();
            self.store.write_at(&[&header], 0).map_err(|e| LogError::of("write", path, &e))?;
        }
        let mut position = row.map_or(self.extent.end_position, |row| row.position);
        let mut buffer = vec![0; REWRITE_BYTES];
        while position < self.extent.end_position {
            let left = self.extent.end_position - position;
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(REWRITE_BYTES);
            let read = self.store.read_at(&mut buffer[..wanted], position);
            let read = match read {
                Ok(0) => Err(std::io::ErrorKind::UnexpectedEof.into()),
                other => other,
            };
            let read = read.map_err(|e| LogError::of("read", path, &e))?;
            let written = self.store.write_at(&[&buffer[..read]], position);
            written.map_err(|e| LogError::of("write", path, &e))?;
            position += read as u64;
        }
        self.sync()
    }

    /// Ends the segment. Its index becomes durable too, so that rows of frames that were cut away,
    /// or of a write that failed, do not come back: a sealed segment's index is trusted as far as
    /// its checksums go.
    pub(crate) fn seal(&mut self) -> Result<(), LogError> {
        self.cut(self.extent)?;
        let path = &self.segment.index_path;
        self.index
            .set_len(self.extent.rows * index::ROW_BYTES)
            .map_err(|e| LogError::of("cut", path, &e))?;
        self.index.sync_data().map_err(|e| LogError::of(SYNC, path, &e))
    }

    /// The store, to be synced without holding the writer.
    pub(crate) fn store(&self) -> Arc<dyn File> {
        Arc::clone(&self.store)
    }

    /// As far as it is written.
    pub(crate) fn view(&self) -> View {
        View { segment: Arc::clone(&self.segment), extent: self.extent }
    }
}

/// Removes the files of a segment, if there are any, durably.
fn remove_files(fs: &dyn Fs, dir: &Path, segment: &Segment) -> Result<(), LogError> {
    for path in [&segment.store_path, &segment.index_path] {
        fs.remove_if_there(path).map_err(|e| LogError::of("remove", path, &e))?;
    }
    fs.sync_dir(dir).map_err(|e| LogError::of(SYNC, dir, &e))
}
