//! What the tests of the log share: making frames, and a log with its model.

#![allow(dead_code, reason = "every test file uses its own part")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use dislog_log::fs::{Fs, SimFs};
use dislog_log::{Config, Frame, Kind, Log, Recovery};
use dislog_types::batch::stamp;
use dislog_types::{BatchBuilder, Compression, Record};

pub(crate) fn dir() -> PathBuf {
    PathBuf::from("/log")
}

pub(crate) fn small() -> Config {
    Config { segment_bytes: 2_048, tail_bytes: 1_024 }
}

/// Opens the log in `/log` of a simulated disk.
pub(crate) fn open(fs: &SimFs) -> (Log, Recovery) {
    try_open(fs).expect("the log opens")
}

pub(crate) fn try_open(fs: &SimFs) -> Result<(Log, Recovery), dislog_log::LogError> {
    Log::open(Arc::new(fs.clone()), &dir(), small())
}

/// The value that the record at `offset` has in attempt `attempt`: unlike any other.
pub(crate) fn value(offset: u64, attempt: u64) -> String {
    let padding = "x".repeat(((offset * 7 + attempt) % 90) as usize);
    format!("{offset}/{attempt}/{padding}")
}

/// The next batch frame of `log`, holding `values`.
pub(crate) fn batch(log: &Log, values: &[String]) -> Frame {
    next_batch(log, &[], values)
}

/// The batch frame behind `staged`, which will be staged with it.
pub(crate) fn next_batch(log: &Log, staged: &[Frame], values: &[String]) -> Frame {
    let bounds = log.bounds();
    let end = staged.last().map_or(bounds.end_offset, Frame::end_offset);
    let mut builder = BatchBuilder::new();
    for value in values {
        assert!(builder.push(&Record::new(value.clone())));
    }
    let mut payload = builder.finish(Compression::None, None);
    stamp(&mut payload, end, 1);
    Frame {
        kind: Kind::Batch,
        term: bounds.last_term.max(1),
        raft_index: bounds.last_raft_index + 1 + staged.len() as u64,
        base_offset: end,
        record_count: values.len() as u32,
        timestamp_ms: bounds.last_timestamp_ms.max(1_000) + staged.len() as i64 + 1,
        payload: payload.freeze(),
    }
}

pub(crate) fn other(log: &Log, kind: Kind, payload: Bytes) -> Frame {
    let bounds = log.bounds();
    Frame {
        kind,
        term: bounds.last_term + 1,
        raft_index: bounds.last_raft_index + 1,
        base_offset: bounds.end_offset,
        record_count: 0,
        timestamp_ms: bounds.last_timestamp_ms,
        payload,
    }
}

/// All values of the log from `offset` up to its end, read in pieces of about `bytes_max`.
pub(crate) fn read_all(log: &Log, offset: u64, bytes_max: usize) -> Vec<String> {
    let end = log.bounds().end_offset;
    let mut values = Vec::new();
    let mut next = offset;
    while next < end {
        let frames = log.read(next, end, bytes_max).expect("every offset can be read");
        assert!(!frames.is_empty(), "a read below the end gives records");
        for frame in frames {
            let skip = next - frame.base_offset;
            values.extend(values_of(&frame).into_iter().skip(skip as usize));
            next = frame.end_offset();
        }
    }
    values
}

pub(crate) fn values_of(frame: &Frame) -> Vec<String> {
    let header = dislog_types::BatchHeader::verify(&frame.payload).expect("a sound batch");
    assert_eq!(header.base_offset, frame.base_offset);
    let records = dislog_types::batch::records(&header, &frame.payload).expect("sound records");
    assert_eq!(records.len(), frame.record_count as usize);
    records.into_iter().map(|r| String::from_utf8(r.value.to_vec()).expect("text")).collect()
}

pub(crate) fn files(fs: &dyn Fs, extension: &str) -> Vec<PathBuf> {
    let is_one = |path: &PathBuf| path.extension().is_some_and(|found| found == extension);
    fs.list(Path::new("/log")).expect("the directory exists").into_iter().filter(is_one).collect()
}
