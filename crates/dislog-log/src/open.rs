//! Turning what recovery found into a log that can be used.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::checkpoint::Checkpoint;
use crate::error::{LogError, SYNC};
use crate::fs::Fs;
use crate::index;
use crate::log::{Bounds, Config, Log, Recovery, Shared, State};
use crate::open_segments::OpenSegments;
use crate::recovery::{Examined, ExaminedSegment, examine};
use crate::segment::{Extent, View};
use crate::store::StoreHeader;
use crate::tail::Tail;
use crate::writer::Writer;

/// See [`Log::open`].
pub(crate) fn open(
    fs: Arc<dyn Fs>,
    dir: &Path,
    config: Config,
) -> Result<(Log, Recovery), LogError> {
    create_dir(&*fs, dir)?;
    let mut examined = examine(&*fs, dir, false)?;
    let mut recovery = Recovery {
        checkpoint: examined.stored_checkpoint().map(|stored| stored.checkpoint.clone()),
        torn_bytes: 0,
        damage: examined.damage.first().cloned(),
    };
    let writer = if examined.damage.is_empty() {
        recovery.torn_bytes = examined.segments.last().map_or(0, |segment| segment.torn_bytes);
        Some(repair(&*fs, dir, &examined)?)
    } else {
        examined.segments.iter_mut().for_each(|segment| keep_rows(dir, segment));
        None
    };
    let state = state(&examined, recovery.checkpoint.as_ref(), writer.as_ref());
    let log = Log(Arc::new(Shared {
        fs,
        dir: dir.to_owned(),
        config: Mutex::new(config),
        state: Mutex::new(state),
        writer: Mutex::new(writer),
        syncing: Mutex::new(()),
        open_segments: OpenSegments::default(),
    }));
    Ok((log, recovery))
}

fn create_dir(fs: &dyn Fs, dir: &Path) -> Result<(), LogError> {
    match fs.list(dir) {
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(LogError::of("list", dir, &error)),
    }
    fs.create_dir_all(dir).map_err(|e| LogError::of("create", dir, &e))?;
    let parent = dir.parent().unwrap_or(dir);
    fs.sync_dir(parent).map_err(|e| LogError::of(SYNC, parent, &e))
}

/// Makes the files what recovery decided they are, and opens the last to write.
fn repair(fs: &dyn Fs, dir: &Path, examined: &Examined) -> Result<Writer, LogError> {
    let last_number = examined.segments.len().saturating_sub(1);
    for (number, segment) in examined.segments.iter().enumerate() {
        if number == last_number || !segment.index_agrees {
            write_rows(fs, segment)?;
        }
    }
    let Some(last) = examined.segments.last() else {
        remove_leftovers(fs, dir, examined)?;
        return Writer::create(fs, dir, first_header(fs, examined));
    };
    let mut writer = Writer::resume(fs, last.view.clone())?;
    if last.torn_bytes > 0 {
        writer.cut(last.view.extent)?;
    }
    writer.rewrite(fs, last.proven_raft_index)?;
    fs.sync_dir(dir).map_err(|e| LogError::of(SYNC, dir, &e))?;
    // Only now, for what is left must be durable before what it replaces goes.
    remove_leftovers(fs, dir, examined)?;
    Ok(writer)
}

fn remove_leftovers(fs: &dyn Fs, dir: &Path, examined: &Examined) -> Result<(), LogError> {
    for path in &examined.leftovers {
        fs.remove_if_there(path).map_err(|e| LogError::of("remove", path, &e))?;
    }
    // A segment whose creation was not finished must not come back beside what is written now.
    fs.sync_dir(dir).map_err(|e| LogError::of(SYNC, dir, &e))
}

/// In a damaged log the files stay as they are, so rows that are not on disk stay in memory.
fn keep_rows(dir: &Path, examined: &mut ExaminedSegment) {
    if let Some(rows) = examined.rows.take().filter(|_| !examined.index_agrees) {
        examined.view.segment = Arc::new(examined.view.segment.with_rows(dir, rows));
    }
}

/// Makes an index what it should be, durably: a row of an earlier, failed write must not come back
/// one day. That of the active segment is written even if it looks right, for the reason given at
/// [`Writer::rewrite`].
fn write_rows(fs: &dyn Fs, segment: &ExaminedSegment) -> Result<(), LogError> {
    let path = &segment.view.segment.index_path;
    let Some(rows) = &segment.rows else {
        return Ok(());
    };
    let file = fs.open_or_create(path).map_err(|e| LogError::of("open", path, &e))?;
    // Written over what is there before it is cut: a full disk has room for that.
    let written = index::append(&*file, 0, rows).and_then(|()| file.set_len(rows.len() as u64));
    written.map_err(|e| LogError::of("write", path, &e))?;
    file.sync_data().map_err(|e| LogError::of(SYNC, path, &e))
}

fn first_header(fs: &dyn Fs, examined: &Examined) -> StoreHeader {
    let start_offset =
        examined.stored_checkpoint().map_or(0, |stored| stored.checkpoint.start_offset);
    StoreHeader {
        segment_id: fs.random(),
        base_offset: start_offset,
        base_raft_index: 1,
        previous_term: 0,
        previous_timestamp_ms: 0,
    }
}

fn state(examined: &Examined, checkpoint: Option<&Checkpoint>, writer: Option<&Writer>) -> State {
    let mut views: Vec<View> = examined.segments.iter().map(|s| s.view.clone()).collect();
    if let Some(writer) = writer {
        views.pop();
        views.push(writer.view());
    }
    let floor = checkpoint.map_or(0, |checkpoint| checkpoint.start_offset);
    let nothing = StoreHeader {
        segment_id: 0,
        base_offset: floor,
        base_raft_index: 1,
        previous_term: 0,
        previous_timestamp_ms: 0,
    };
    let first = views.first().map_or(nothing, |view| view.segment.header);
    let last = views.last().map_or(Extent::empty(&nothing), |view| view.extent);
    let damage_end = examined.damage.iter().map(|damage| damage.to_offset).max().unwrap_or(0);
    let bounds = Bounds {
        start_offset: first_offset(examined, first.base_offset).max(floor),
        end_offset: last.end_offset.max(damage_end),
        first_raft_index: first.base_raft_index,
        last_raft_index: last.end_raft_index - 1,
        last_term: last.last_term,
        durable_raft_index: last.end_raft_index - 1,
        last_timestamp_ms: last.last_timestamp_ms,
    };
    let fault = examined.damage.first().cloned().map(LogError::Damaged);
    State {
        bounds,
        views,
        tail: Tail::default(),
        fault,
        damage: examined.damage.clone(),
        dropped: 0,
    }
}

/// The first offset of the log, be it damaged.
fn first_offset(examined: &Examined, first_base: u64) -> u64 {
    let damaged = examined.damage.iter().map(|damage| damage.from_offset).min();
    damaged.map_or(first_base, |damaged| damaged.min(first_base))
}
