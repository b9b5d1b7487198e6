//! Opening a log that was left in any state.
//!
//! The store is the truth. Sealed segments are durable by construction (a segment is synced before
//! its successor is created), so anything in them that does not verify is damage; they are checked
//! where they end, and read in full only if that does not fit. The active segment is read in full.
//! Where its frames stop verifying, three questions decide, in this order:
//!
//! 1. Does the checkpoint say that this place was durable? Then it is damage.
//! 2. Is there a valid frame behind it which was written when this place was already durable? Then
//!    it is damage.
//! 3. Otherwise this is the unfinished write that a crash left, never acknowledged: it is cut off.
//!
//! Nothing is cut, removed or created in a damaged log.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::checkpoint::{self, Found, StoredCheckpoint};
use crate::error::{Damage, LogError};
use crate::frame::FrameHeader;
use crate::fs::{File, Fs};
use crate::index::{ROW_BYTES, Row};
use crate::segment::{Extent, Segment, View};
use crate::store::{STORE_HEADER_BYTES, Scanner, StoreHeader, read_header};

/// How much is read at a time to see whether it is zeros.
const ZEROS_READ_BYTES: usize = 64 << 10;

/// The files of a log, examined; nothing was changed yet.
#[derive(Debug)]
pub(crate) struct Examined {
    pub checkpoint: Found,
    /// The segments that can be read, oldest first. The last is the active one unless `damage` says
    /// that it is gone.
    pub segments: Vec<ExaminedSegment>,
    pub damage: Vec<Damage>,
    /// Files without meaning: leftovers of a trim, of creating a segment, of replacing a
    /// checkpoint.
    pub leftovers: Vec<PathBuf>,
}

/// One segment, examined.
#[derive(Debug)]
pub(crate) struct ExaminedSegment {
    pub view: View,
    /// Bytes behind the extent that are no frames and were never durable.
    pub torn_bytes: u64,
    /// Up to which raft index its own frames say that it was durable.
    pub proven_raft_index: u64,
    /// The rows that the index should have, encoded; `None` if the store was not read.
    pub rows: Option<Vec<u8>>,
    /// Whether the index on disk has them.
    pub index_agrees: bool,
}

impl std::fmt::Debug for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Found::Missing => f.write_str("Missing"),
            Found::Bad => f.write_str("Bad"),
            Found::Sound(stored) => write!(f, "{stored:?}"),
        }
    }
}

impl Examined {
    pub(crate) fn stored_checkpoint(&self) -> Option<&StoredCheckpoint> {
        match &self.checkpoint {
            Found::Sound(stored) => Some(stored),
            Found::Missing | Found::Bad => None,
        }
    }
}

/// Reads what is needed to know the state of the log in `dir`, or with `everything` all of it.
pub(crate) fn examine(fs: &dyn Fs, dir: &Path, everything: bool) -> Result<Examined, LogError> {
    let failed = |e: io::Error| LogError::of("read", dir, &e);
    let mut examined = Examined {
        checkpoint: checkpoint::read(fs, dir).map_err(failed)?,
        segments: Vec::new(),
        damage: Vec::new(),
        leftovers: Vec::new(),
    };
    let bases = list(fs, dir, &mut examined.leftovers).map_err(failed)?;
    let floor = examined.stored_checkpoint().map_or(0, |stored| stored.checkpoint.start_offset);
    let mut examiner = Examiner { fs, dir, everything, examined: &mut examined };
    for (number, &base_offset) in bases.iter().enumerate() {
        let next = bases.get(number + 1).copied();
        match next {
            Some(next) if next <= floor && examiner.is_sound(next).map_err(failed)? => {
                examiner.leave(base_offset);
            }
            _ => examiner.segment(base_offset, next).map_err(failed)?,
        }
    }
    examiner.check_end();
    Ok(examined)
}

/// The base offsets of the stores in `dir`, ascending. Names that no log gives to its files are
/// left alone.
fn list(fs: &dyn Fs, dir: &Path, leftovers: &mut Vec<PathBuf>) -> io::Result<Vec<u64>> {
    let paths = fs.list(dir)?;
    let base_of = |path: &Path, extension: &str| {
        let stem = path.file_stem()?.to_str()?;
        let matches = path.extension()? == extension && stem.len() == 20;
        if matches { stem.parse::<u64>().ok() } else { None }
    };
    let mut bases: Vec<u64> = paths.iter().filter_map(|path| base_of(path, "store")).collect();
    bases.sort_unstable();
    leftovers.extend(paths.into_iter().filter(|path| {
        let orphan = base_of(path, "index").is_some_and(|base| bases.binary_search(&base).is_err());
        orphan || path.file_name().is_some_and(|name| name == "checkpoint.new")
    }));
    Ok(bases)
}

struct Examiner<'a> {
    fs: &'a dyn Fs,
    dir: &'a Path,
    everything: bool,
    examined: &'a mut Examined,
}

impl Examiner<'_> {
    /// A segment wholly below the start, whose deletion a crash interrupted.
    fn leave(&mut self, base_offset: u64) {
        let stem = format!("{base_offset:020}");
        self.examined.leftovers.push(self.dir.join(format!("{stem}.store")));
        self.examined.leftovers.push(self.dir.join(format!("{stem}.index")));
    }

    /// Whether a segment can be gone on from: a successor whose creation was not finished is no
    /// successor.
    fn is_sound(&self, base_offset: u64) -> io::Result<bool> {
        let path = self.dir.join(format!("{base_offset:020}.store"));
        Ok(self.header(&*self.fs.open(&path)?, base_offset)?.is_some())
    }

    fn header(&self, file: &dyn File, base_offset: u64) -> io::Result<Option<StoreHeader>> {
        Ok(read_header(file)?.filter(|header| header.base_offset == base_offset))
    }

    fn segment(&mut self, base_offset: u64, next: Option<u64>) -> io::Result<()> {
        let path = self.dir.join(format!("{base_offset:020}.store"));
        let file = self.fs.open(&path)?;
        let header = self.header(&*file, base_offset)?;
        let Some(header) = header else {
            return self.without_header(&path, &*file, base_offset, next);
        };
        self.check_joint(&path, &header);
        let segment = Arc::new(Segment::new(self.dir, header));
        let sealed_extent = match (next, self.everything) {
            (Some(next), false) => sealed_extent(self.fs, &segment, &*file, next)?,
            _ => None,
        };
        let examined = match sealed_extent {
            Some(extent) => {
                let proven_raft_index = extent.end_raft_index - 1;
                let view = View { segment, extent };
                ExaminedSegment {
                    view,
                    torn_bytes: 0,
                    proven_raft_index,
                    rows: None,
                    index_agrees: true,
                }
            }
            None => self.scan(segment, &*file, next)?,
        };
        self.examined.segments.push(examined);
        Ok(())
    }

    /// Neither copy of the header is sound. It was durable before the first frame was written, so a
    /// store without frames is the unfinished creation of a segment, and any other is damage.
    fn without_header(
        &mut self,
        path: &Path,
        file: &dyn File,
        base_offset: u64,
        next: Option<u64>,
    ) -> io::Result<()> {
        if next.is_none() && file.len()? <= STORE_HEADER_BYTES {
            self.leave(base_offset);
            return Ok(());
        }
        let known_end = self.examined.stored_checkpoint().map_or(0, |stored| stored.end_offset);
        let to_offset = next.unwrap_or(known_end.max(base_offset + 1));
        self.damage(path, 0, base_offset, to_offset);
        Ok(())
    }

    /// A segment begins where the one before it ends.
    fn check_joint(&mut self, path: &Path, header: &StoreHeader) {
        let Some(before) = self.examined.segments.last() else {
            return;
        };
        let end = before.view.extent;
        let joined =
            end.end_offset == header.base_offset && end.end_raft_index == header.base_raft_index;
        let known = self.examined.damage.last().is_some_and(|damage| {
            damage.to_offset == header.base_offset && damage.from_offset <= header.base_offset
        });
        if !joined && !known {
            self.damage(path, 0, end.end_offset, header.base_offset);
        }
    }

    /// Reads a segment frame by frame. `next` is the base offset of the segment behind it.
    fn scan(
        &mut self,
        segment: Arc<Segment>,
        file: &dyn File,
        next: Option<u64>,
    ) -> io::Result<ExaminedSegment> {
        let header = segment.header;
        let file_bytes = file.len()?;
        let mut scanner = Scanner::new(file, header.segment_id, STORE_HEADER_BYTES);
        let mut extent = Extent::empty(&header);
        let mut rows = Vec::new();
        let mut torn = 0;
        let mut proven_raft_index = 0;
        loop {
            let position = scanner.position();
            if let Some(frame) = scanner
                .next()?
                .filter(|frame| continues(&extent, frame) && Row::of(frame, position).fits(&header))
            {
                Row::of(&frame, position).encode(&header, &mut rows);
                extent = extent.with(&frame, position);
                proven_raft_index = frame.durable_raft_index;
                continue;
            }
            if position >= file_bytes {
                break;
            }
            let Some(damage_end) = self.damage_end(file, &header, &extent, next)? else {
                torn = torn_bytes(file, extent.end_position..file_bytes)?;
                break;
            };
            self.damage(&segment.store_path, position, extent.end_offset, damage_end.offset);
            match damage_end.position {
                // What follows is sound again; take it as if it continued.
                Some(position) => {
                    scanner = Scanner::new(file, header.segment_id, position);
                    extent.end_offset = damage_end.offset;
                    extent.end_raft_index = damage_end.raft_index;
                    extent.last_timestamp_ms = i64::MIN;
                }
                None => break,
            }
        }
        if let Some(next) = next.filter(|&next| next != extent.end_offset) {
            let known = self.examined.damage.last().is_some_and(|damage| damage.to_offset == next);
            if !known {
                self.damage(&segment.store_path, extent.end_position, extent.end_offset, next);
            }
        }
        let index_agrees = self.index_agrees(&segment, &rows)?;
        let view = View { segment, extent };
        Ok(ExaminedSegment {
            view,
            torn_bytes: torn,
            proven_raft_index,
            rows: Some(rows),
            index_agrees,
        })
    }

    /// Where the frames behind `extent` stop verifying: where damage ends, or `None` if this is an
    /// unfinished write.
    fn damage_end(
        &self,
        file: &dyn File,
        header: &StoreHeader,
        extent: &Extent,
        next: Option<u64>,
    ) -> io::Result<Option<DamageEnd>> {
        let sealed = next.is_some();
        let checkpoint = self.examined.stored_checkpoint();
        let was_durable = sealed
            || checkpoint
                .is_some_and(|stored| stored.checkpoint.raft_index >= extent.end_raft_index);
        let mut scanner = Scanner::new(file, header.segment_id, extent.end_position);
        let mut first_valid = None;
        let mut proven = was_durable;
        let mut from = extent.end_position + 1;
        while scanner.seek_valid(from)? {
            let position = scanner.position();
            let Some(frame) = scanner.next()? else { break };
            from = position + frame.frame_bytes();
            if !may_follow(extent, &frame) || !Row::of(&frame, position).fits(header) {
                continue;
            }
            first_valid.get_or_insert((position, frame));
            proven = proven || frame.durable_raft_index >= extent.end_raft_index;
            if proven {
                break;
            }
        }
        if !proven {
            return Ok(None);
        }
        let known_end = next.or(checkpoint.map(|stored| stored.end_offset)).unwrap_or(0);
        Ok(Some(match first_valid {
            Some((position, frame)) => DamageEnd {
                position: Some(position),
                offset: frame.base_offset,
                raft_index: frame.raft_index,
            },
            None => DamageEnd {
                position: None,
                offset: known_end.max(extent.end_offset),
                raft_index: extent.end_raft_index,
            },
        }))
    }

    /// The checkpoint's position lies within the log, or what is missing is damage.
    fn check_end(&mut self) {
        let Some(stored) = self.examined.stored_checkpoint().cloned() else {
            return;
        };
        let end = self.examined.segments.last().map(|last| last.view.extent);
        let (end_offset, end_raft_index) = end.map_or((stored.checkpoint.start_offset, 1), |end| {
            (end.end_offset, end.end_raft_index)
        });
        if end_raft_index > stored.checkpoint.raft_index || !self.examined.damage.is_empty() {
            return;
        }
        let (path, position) = match self.examined.segments.last() {
            Some(last) => (last.view.segment.store_path.clone(), last.view.extent.end_position),
            None => (self.dir.to_owned(), 0),
        };
        self.damage(&path, position, end_offset, stored.end_offset.max(end_offset));
    }

    fn damage(&mut self, file: &Path, position: u64, from_offset: u64, to_offset: u64) {
        let file = file.to_owned();
        self.examined.damage.push(Damage { file, position, from_offset, to_offset });
    }

    /// Whether the index on disk begins with exactly these rows.
    fn index_agrees(&self, segment: &Segment, rows: &[u8]) -> io::Result<bool> {
        let Ok(file) = self.fs.open(&segment.index_path) else {
            return Ok(false);
        };
        let mut bytes = vec![0; rows.len()];
        Ok(file.read_at(&mut bytes, 0)? == rows.len() && bytes == rows)
    }
}

struct DamageEnd {
    /// Where the next valid frame begins, if there is one.
    position: Option<u64>,
    offset: u64,
    raft_index: u64,
}

/// How much of a store's end is an unfinished write: all of it, or nothing if it is zeros, which is
/// room that the writer made for frames to come.
fn torn_bytes(file: &dyn File, range: Range<u64>) -> io::Result<u64> {
    let mut buffer = vec![0; ZEROS_READ_BYTES];
    let mut position = range.start;
    while position < range.end {
        let read = file.read_at(&mut buffer, position)?;
        if read == 0 || buffer[..read].iter().any(|&byte| byte != 0) {
            return Ok(range.end - range.start);
        }
        position += read as u64;
    }
    Ok(0)
}

fn continues(extent: &Extent, frame: &FrameHeader) -> bool {
    frame.base_offset == extent.end_offset
        && frame.raft_index == extent.end_raft_index
        && frame.timestamp_ms >= extent.last_timestamp_ms
}

/// Whether a frame may stand somewhere behind `extent`, with others missing between. What a cut
/// left behind verifies too, but is not of this place.
fn may_follow(extent: &Extent, frame: &FrameHeader) -> bool {
    let lost_records = frame.base_offset > extent.end_offset;
    let lost_others = frame.base_offset == extent.end_offset;
    (frame.raft_index > extent.end_raft_index && (lost_records || lost_others))
        || (frame.raft_index == extent.end_raft_index && lost_records)
}

/// The extent of a sealed segment, if its index leads to a last frame that ends the store and meets
/// `next`.
fn sealed_extent(
    fs: &dyn Fs,
    segment: &Segment,
    file: &dyn File,
    next: u64,
) -> io::Result<Option<Extent>> {
    let Ok(index) = fs.open(&segment.index_path) else {
        return Ok(None);
    };
    let rows = index.len()? / ROW_BYTES;
    let file_bytes = file.len()?;
    let bounds = Extent { rows, ..Extent::empty(&segment.header) };
    if rows == 0 {
        let empty = file_bytes == STORE_HEADER_BYTES && next == segment.header.base_offset;
        return Ok(empty.then_some(bounds));
    }
    let last = segment.row(fs, &bounds, rows - 1);
    segment.close();
    let Ok(last) = last else {
        return Ok(None);
    };
    let mut scanner = Scanner::new(file, segment.header.segment_id, last.position);
    let Some(frame) = scanner.next()? else {
        return Ok(None);
    };
    let extent = Extent { rows: rows - 1, ..bounds }.with(&frame, last.position);
    let whole = frame.raft_index == last.raft_index
        && frame.raft_index - segment.header.base_raft_index == rows - 1
        && extent.end_position == file_bytes
        && extent.end_offset == next;
    Ok(whole.then_some(extent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Frame, Kind};
    use crate::fs::SimFs;

    /// Frames with right checksums that no log writes: they go back, or too far.
    #[test]
    fn frames_out_of_any_order_are_never_a_panic() {
        let store = StoreHeader {
            segment_id: 7,
            base_offset: 100,
            base_raft_index: 50,
            previous_term: 1,
            previous_timestamp_ms: 0,
        };
        let far = u64::from(u32::MAX) + 200;
        let numbers = [0, 3, 50, 51, 99, 100, 101, 160, far, u64::MAX - 1, u64::MAX];
        for raft_index in numbers {
            for base_offset in numbers {
                for record_count in [0, 1, u32::MAX] {
                    let kind = Kind::Batch;
                    let payload = bytes::Bytes::new();
                    let (term, timestamp_ms) = (2, 1);
                    let frame = Frame {
                        kind,
                        term,
                        raft_index,
                        base_offset,
                        record_count,
                        timestamp_ms,
                        payload,
                    };
                    check(&store, &frame);
                }
            }
        }
    }

    fn check(store: &StoreHeader, frame: &Frame) {
        for rubbish in [0, 9] {
            let mut bytes = store.encode();
            bytes.resize(bytes.len() + rubbish, 0);
            for _ in 0..2 {
                bytes.extend(FrameHeader::of(frame, u64::MAX).encode(store.segment_id));
            }
            let fs = SimFs::new(1);
            fs.put(Path::new("/log/00000000000000000100.store"), &bytes);
            let examined = examine(&fs, Path::new("/log"), false).unwrap();
            let extent = examined.segments[0].view.extent;
            assert!(extent.end_offset >= store.base_offset);
            assert!(extent.end_raft_index >= store.base_raft_index);
        }
    }
}
