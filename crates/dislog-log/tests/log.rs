//! The log as its users see it: append, read, roll, trim, truncate, reopen.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod gated;
mod support;

use std::sync::Arc;

use bytes::Bytes;
use dislog_log::fs::{Fs, RealFs, SimFaults, SimFs};
use dislog_log::{
    Checkpoint, Config, Kind, Log, LogError, LogStart, ReadError, trim_payload, verify,
};
use dislog_types::{BatchBuilder, Compression, Record};
use gated::GatedFs;
use support::{batch, dir, files, next_batch, open, other, read_all, value, values_of};

fn fill(log: &Log, records: u64) {
    for _ in 0..records {
        let frame = batch(log, &[value(log.bounds().end_offset, 0)]);
        log.stage(vec![frame]).unwrap();
        log.flush().unwrap();
    }
}

fn expected(range: std::ops::Range<u64>) -> Vec<String> {
    range.map(|offset| value(offset, 0)).collect()
}

#[test]
fn what_is_staged_can_be_read_and_what_is_flushed_survives() {
    let fs = SimFs::new(1);
    let (log, _) = open(&fs);
    let frame = batch(&log, &[value(0, 0), value(1, 0)]);
    log.stage(vec![frame]).unwrap();
    assert_eq!(log.bounds().durable_raft_index, 0);
    assert_eq!(read_all(&log, 0, 100), expected(0..2));
    assert_eq!(log.flush().unwrap(), 1);
    let unsynced = batch(&log, &[value(2, 0)]);
    log.stage(vec![unsynced]).unwrap();
    fs.crash();
    let (log, recovery) = open(&fs);
    assert_eq!(read_all(&log, 0, 100), expected(0..2));
    assert_eq!(recovery.damage, None);
    assert_eq!(log.bounds().last_raft_index, 1);
}

#[test]
fn reads_cross_segments_at_any_size_and_start() {
    let fs = SimFs::new(2);
    let (log, _) = open(&fs);
    fill(&log, 100);
    assert!(log.segment_count() > 5, "{} segments", log.segment_count());
    for start in [0, 1, 17, 50, 99, 100] {
        for bytes_max in [0, 1, 300, 5_000, 1 << 20] {
            assert_eq!(
                read_all(&log, start, bytes_max),
                expected(start..100),
                "{start} {bytes_max}"
            );
        }
    }
    assert!(log.read(40, 41, 1 << 20).unwrap().len() == 1, "the limit holds");
    assert!(log.read(100, 100, 1).unwrap().is_empty());
    assert!(matches!(log.read(101, 200, 1), Err(ReadError::BeyondEnd { end_offset: 100, .. })));
    drop(log);
    let (log, recovery) = open(&fs);
    assert_eq!((recovery.torn_bytes, recovery.damage), (0, None));
    assert_eq!(read_all(&log, 0, 1 << 20), expected(0..100));
    fill(&log, 10);
    assert_eq!(read_all(&log, 95, 1), expected(95..110));
}

#[test]
fn batches_are_found_by_any_of_their_offsets() {
    let fs = SimFs::new(3);
    let (log, _) = open(&fs);
    for size in [3, 1, 7, 2] {
        let end = log.bounds().end_offset;
        let values: Vec<String> = (end..end + size).map(|offset| value(offset, 0)).collect();
        let start = other(&log, Kind::LeaderStart, Bytes::new());
        log.stage(vec![start]).unwrap();
        log.stage(vec![batch(&log, &values)]).unwrap();
        log.flush().unwrap();
    }
    for tail_is_cold in [false, true] {
        let log = if tail_is_cold { open(&fs).0 } else { log.clone() };
        for (offset, base) in [(0, 0), (2, 0), (3, 3), (4, 4), (10, 4), (11, 11), (12, 11)] {
            let frames = log.read(offset, 13, 1).unwrap();
            assert_eq!(frames.len(), 1);
            assert_eq!(frames[0].base_offset, base, "offset {offset}");
        }
    }
}

#[test]
fn frames_and_terms_are_found_by_raft_index() {
    let fs = SimFs::new(4);
    let (log, _) = open(&fs);
    for _ in 0..20 {
        log.stage(vec![other(&log, Kind::LeaderStart, Bytes::new())]).unwrap();
        fill(&log, 3);
    }
    for log in [log, open(&fs).0] {
        assert_eq!(log.term(0), Some(0));
        for raft_index in 1..=80 {
            assert_eq!(log.term(raft_index), Some(raft_index.div_ceil(4)), "{raft_index}");
            let frames = log.frames(raft_index, 81, 1).unwrap();
            assert_eq!(frames[0].raft_index, raft_index);
        }
        assert_eq!(log.term(81), None);
        let mut seen = 1;
        while seen < 81 {
            for frame in log.frames(seen, 81, 3_000).unwrap() {
                assert_eq!(frame.raft_index, seen);
                seen += 1;
            }
        }
    }
}

#[test]
fn offsets_are_found_by_time() {
    let fs = SimFs::new(5);
    let (log, _) = open(&fs);
    fill(&log, 60);
    let first = log.frames(1, 2, 1).unwrap()[0].timestamp_ms;
    for log in [log, open(&fs).0] {
        assert_eq!(log.offset_at(i64::MIN).unwrap(), 0);
        for offset in 0..60 {
            assert_eq!(log.offset_at(first + offset).unwrap(), offset as u64);
        }
        assert_eq!(log.offset_at(first + 60).unwrap(), 60);
        assert_eq!(log.offset_at(i64::MAX).unwrap(), 60);
    }
}

#[test]
fn a_trim_moves_the_start_for_good_and_frees_segments() {
    let fs = SimFs::new(6);
    let (log, _) = open(&fs);
    fill(&log, 100);
    log.stage(vec![other(&log, Kind::Trim, trim_payload(55))]).unwrap();
    log.flush().unwrap();
    let before = (log.segment_count(), log.size_bytes());
    let checkpoint = Checkpoint { raft_index: 101, start_offset: 55, state: Bytes::new() };
    log.trim(&checkpoint).unwrap();
    assert!(log.segment_count() < before.0 && log.size_bytes() < before.1);
    fs.crash();
    let (log, recovery) = open(&fs);
    assert_eq!(recovery.damage, None);
    assert_eq!(recovery.checkpoint, Some(checkpoint));
    assert_eq!(log.bounds().start_offset, 55);
    assert_eq!(read_all(&log, 55, 500), expected(55..100));
    let below = log.read(54, 100, 1);
    assert!(matches!(below, Err(ReadError::Trimmed { offset: 54, start_offset: 55 })));
    assert!(files(&fs, "store").len() <= before.0 / 2 + 2);
    assert_eq!(log.offset_at(0).unwrap(), 55);
}

#[test]
fn a_log_that_began_anew_below_its_start_can_be_trimmed() {
    let fs = SimFs::new(6);
    let (log, _) = open(&fs);
    fill(&log, 100);
    let start = LogStart { raft_index: 51, term: 1, timestamp_ms: 0, base_offset: 50 };
    let checkpoint = Checkpoint { raft_index: 51, start_offset: 55, state: Bytes::new() };
    log.reset(&start, &checkpoint).unwrap();
    assert_eq!((log.bounds().start_offset, log.bounds().end_offset), (55, 50));
    log.trim(&checkpoint).unwrap();
    assert_eq!(log.bounds().start_offset, 55);
    fill(&log, 10);
    assert_eq!(read_all(&log, 55, 500), expected(55..60));
}

#[test]
fn a_truncated_tail_is_gone_for_good_and_written_anew() {
    for cut in [1, 2, 30, 59, 60] {
        let fs = SimFs::new(7);
        let (log, _) = open(&fs);
        fill(&log, 60);
        log.truncate(cut).unwrap();
        assert_eq!(log.bounds().end_offset, cut - 1);
        assert_eq!(log.bounds().last_raft_index, cut - 1);
        assert_eq!(read_all(&log, 0, 1), expected(0..cut - 1));
        fs.crash();
        let (log, recovery) = open(&fs);
        assert_eq!(recovery.damage, None);
        assert_eq!(log.bounds().end_offset, cut - 1);
        fill(&log, 61 - cut);
        assert_eq!(read_all(&open(&fs).0, 0, 1 << 20), expected(0..60));
    }
}

#[test]
fn staged_frames_are_truncated_without_files() {
    let fs = SimFs::new(8);
    let (log, _) = open(&fs);
    fill(&log, 3);
    let first = batch(&log, &["wrong".to_owned()]);
    let second = next_batch(&log, std::slice::from_ref(&first), &["wrong".to_owned()]);
    log.stage(vec![first, second]).unwrap();
    log.truncate(4).unwrap();
    assert_eq!(log.bounds().end_offset, 3);
    fill(&log, 1);
    assert_eq!(read_all(&log, 0, 1), expected(0..4));
}

#[test]
fn a_missing_rotten_or_foreign_index_is_made_anew() {
    type Spoil = fn(&SimFs);
    let spoils: [Spoil; 3] = [
        |fs| files(fs, "index").iter().for_each(|path| fs.remove(path).unwrap()),
        |fs| {
            for path in files(fs, "index") {
                let rows = fs.content(&path).len();
                (0..rows).step_by(37).for_each(|position| fs.flip_bit(&path, position, 3));
            }
        },
        |fs| {
            let paths = files(fs, "index");
            let foreign = fs.content(&paths[1]);
            paths.iter().for_each(|path| fs.put(path, &foreign));
        },
    ];
    for spoil in spoils {
        let fs = SimFs::new(9);
        let (log, _) = open(&fs);
        fill(&log, 60);
        drop(log);
        spoil(&fs);
        let (log, recovery) = open(&fs);
        assert_eq!(recovery.damage, None);
        assert_eq!(read_all(&log, 0, 700), expected(0..60));
        fill(&log, 20);
        assert_eq!(read_all(&open(&fs).0, 0, 700), expected(0..80));
        let report = verify(&fs, &dir()).unwrap();
        assert_eq!((report.records, report.is_damaged()), (80, false));
    }
}

#[test]
fn an_index_that_rots_under_an_open_log_is_made_anew() {
    let fs = SimFs::new(10);
    let (log, _) = open(&fs);
    fill(&log, 60);
    for path in files(&fs, "index") {
        let rows = fs.content(&path).len();
        (0..rows).step_by(29).for_each(|position| fs.flip_bit(&path, position, 5));
    }
    assert_eq!(read_all(&log, 0, 700), expected(0..60));
}

#[test]
fn a_full_disk_refuses_and_the_log_goes_on_once_there_is_room() {
    let fs = SimFs::new(11);
    let (log, _) = open(&fs);
    fill(&log, 20);
    fs.arm(SimFaults { space_bytes: Some(100), ..SimFaults::default() });
    // Some of these find room that was made before.
    let mut refused = None;
    while refused.is_none() {
        let frame = batch(&log, &[value(log.bounds().end_offset, 0)]);
        log.stage(vec![frame]).unwrap();
        refused = log.flush().err();
    }
    assert!(matches!(refused, Some(LogError::DiskFull { .. })));
    assert!(matches!(log.flush(), Err(LogError::DiskFull { .. })));
    let (durable, end) = (log.bounds().durable_raft_index, log.bounds().end_offset);
    assert_eq!(durable + 1, end, "one frame is staged");
    assert_eq!(read_all(&log, 0, 100), expected(0..end), "reads go on");
    fs.arm(SimFaults { space_bytes: Some(0), ..SimFaults::default() });
    assert_eq!(read_all(&open(&fs).0, 0, 100), expected(0..durable), "a full disk can be opened");
    fs.arm(SimFaults::default());
    log.flush().unwrap();
    fill(&log, 20);
    fs.crash();
    assert_eq!(read_all(&open(&fs).0, 0, 100), expected(0..end + 20));
}

#[test]
fn small_frames_are_written_into_room_that_was_made_before() {
    let fs = SimFs::new(15);
    let config = Config { segment_bytes: 1 << 20, ..Config::default() };
    let (log, _) = Log::open(Arc::new(fs.clone()), &dir(), config).unwrap();
    let len = || fs.content(&files(&fs, "store")[0]).len();
    let mut lengths = std::collections::BTreeSet::new();
    for _ in 0..500 {
        fill(&log, 1);
        lengths.insert(len());
    }
    assert!(lengths.len() < 10, "500 appends gave the file {} lengths", lengths.len());
    assert!(len() as u64 > log.size_bytes(), "there is room");
    fs.crash();
    let (log, recovery) = open(&fs);
    assert_eq!((recovery.torn_bytes, recovery.damage), (0, None), "room is no unfinished write");
    assert_eq!(read_all(&log, 0, 1 << 20), expected(0..500));
    // The smaller segments of this configuration: the next frame seals the segment.
    fill(&log, 1);
    let sealed = fs.content(&files(&fs, "store")[0]).len() as u64;
    assert_eq!(log.sealed_segments()[0].bytes, sealed, "a sealed segment has no room left");
}

#[test]
fn a_small_group_among_large_ones_makes_no_room() {
    let fs = SimFs::new(21);
    let (log, _) = Log::open(Arc::new(fs.clone()), &dir(), Config::default()).unwrap();
    for bytes in [0, 200_000, 200_000, 200_000, 200_000, 200_000, 0] {
        log.stage(vec![batch(&log, &["x".repeat(bytes)])]).unwrap();
        log.flush().unwrap();
    }
    assert_eq!(fs.content(&files(&fs, "store")[0]).len() as u64, log.size_bytes());
}

#[test]
fn a_failed_sync_stops_the_log_for_good() {
    let fs = SimFs::new(12);
    let (log, _) = open(&fs);
    fill(&log, 5);
    fs.arm(SimFaults { fail_sync_after: Some(0), ..SimFaults::default() });
    log.stage(vec![batch(&log, &[value(5, 0)])]).unwrap();
    let first = log.flush().unwrap_err();
    assert!(matches!(first, LogError::Stopped { operation: "sync", .. }));
    fs.arm(SimFaults::default());
    assert_eq!(log.flush().unwrap_err(), first, "it is never retried");
    assert!(log.stage(vec![]).is_err());
    assert_eq!(log.bounds().durable_raft_index, 5);
    assert_eq!(read_all(&log, 0, 100).len(), 6, "reads go on");
}

#[test]
fn frames_seen_after_a_failed_sync_are_written_again_before_they_count() {
    let fs = SimFs::new(13);
    let (log, _) = open(&fs);
    fill(&log, 5);
    fs.arm(SimFaults { fail_sync_after: Some(0), ..SimFaults::default() });
    log.stage(vec![batch(&log, &[value(5, 0)])]).unwrap();
    log.flush().unwrap_err();
    // The process starts again; the machine, and with it the page cache, does not.
    fs.arm(SimFaults::default());
    let (log, _) = open(&fs);
    assert_eq!(log.bounds().durable_raft_index, 6);
    fs.crash();
    assert_eq!(read_all(&open(&fs).0, 0, 100), expected(0..6));
}

#[test]
fn embedded_appends_from_many_threads_share_syncs_on_the_real_disk() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("log");
    let (log, _) = Log::open(Arc::new(RealFs), &dir, Config::default()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let log = &log;
            scope.spawn(move || {
                for number in 0..50 {
                    let mut builder = BatchBuilder::new();
                    assert!(builder.push(&Record::new(format!("{thread}/{number}"))));
                    let batch = builder.finish(Compression::None, None);
                    let appended = log.append(batch, 1_000).unwrap();
                    let frames =
                        log.read(appended.base_offset, appended.base_offset + 1, 1).unwrap();
                    assert_eq!(values_of(&frames[0]), [format!("{thread}/{number}")]);
                }
            });
        }
    });
    let before = read_all(&log, 0, 1 << 20);
    drop(log);
    let (log, recovery) = Log::open(Arc::new(RealFs), &dir, Config::default()).unwrap();
    assert_eq!(recovery.damage, None);
    assert_eq!(read_all(&log, 0, 1 << 20), before);
    assert_eq!(before.len(), 400);
}

#[test]
fn an_embedded_append_that_the_disk_has_no_room_for_never_happened() {
    let fs = SimFs::new(14);
    let (log, _) = open(&fs);
    fs.arm(SimFaults { space_bytes: Some(10), ..SimFaults::default() });
    let make = || {
        let mut builder = BatchBuilder::new();
        assert!(builder.push(&Record::new("v")));
        builder.finish(Compression::None, None)
    };
    assert!(matches!(log.append(make(), 1), Err(LogError::DiskFull { .. })));
    fs.arm(SimFaults::default());
    assert_eq!(log.bounds().end_offset, 0);
    assert_eq!(log.append(make(), 1).unwrap().base_offset, 0);
}

/// Frames that share a segment, staged and not written.
fn stage_two(log: &Log) {
    let first = batch(log, &[value(log.bounds().end_offset, 0)]);
    let second = next_batch(log, std::slice::from_ref(&first), &[value(first.end_offset(), 0)]);
    log.stage(vec![first, second]).unwrap();
}

#[test]
fn what_is_written_ahead_counts_once_it_is_synced() {
    let fs = SimFs::new(15);
    let (log, _) = open(&fs);
    fill(&log, 3);
    stage_two(&log);
    log.write_ahead(u64::MAX);
    assert_eq!(log.bounds().durable_raft_index, 3);
    fs.crash();
    let (log, recovery) = open(&fs);
    assert_eq!((recovery.damage, log.bounds().last_raft_index), (None, 3));
    stage_two(&log);
    log.write_ahead(u64::MAX);
    assert_eq!(log.flush().unwrap(), 5);
    fs.crash();
    assert_eq!(read_all(&open(&fs).0, 0, 100), expected(0..5));
}

#[test]
fn what_is_written_ahead_can_be_truncated() {
    for cut in 4..=6 {
        let fs = SimFs::new(16);
        let (log, _) = open(&fs);
        fill(&log, 3);
        stage_two(&log);
        log.write_ahead(u64::MAX);
        log.stage(vec![batch(&log, &[value(5, 0)])]).unwrap();
        log.truncate(cut).unwrap();
        assert_eq!(log.bounds().last_raft_index, cut - 1);
        fill(&log, 10 - log.bounds().end_offset);
        fs.crash();
        let (log, recovery) = open(&fs);
        assert_eq!(recovery.damage, None);
        assert_eq!(read_all(&log, 0, 1 << 20), expected(0..10));
    }
}

#[test]
fn writing_ahead_leaves_a_full_disk_to_the_flush() {
    let fs = SimFs::new(17);
    let (log, _) = open(&fs);
    fill(&log, 3);
    fs.arm(SimFaults { space_bytes: Some(10), ..SimFaults::default() });
    // More than the room that was made before.
    let large: Vec<String> = (0..200).map(|n| value(3 + n, 0)).collect();
    log.stage(vec![batch(&log, &large)]).unwrap();
    log.write_ahead(u64::MAX);
    assert!(matches!(log.flush(), Err(LogError::DiskFull { .. })));
    fs.arm(SimFaults::default());
    assert_eq!(log.flush().unwrap(), 4);
    fs.crash();
    assert_eq!(read_all(&open(&fs).0, 0, 1 << 20), expected(0..203));
}

#[test]
fn the_next_group_is_written_while_one_is_synced() {
    let fs = GatedFs::new(SimFs::new(18));
    let config = Config { segment_bytes: 1 << 20, tail_bytes: 1 << 20 };
    let (log, _) = Log::open(Arc::new(fs.clone()), &dir(), config).unwrap();
    fill(&log, 1);
    log.stage(vec![batch(&log, &[value(1, 0)])]).unwrap();
    std::thread::scope(|scope| {
        let syncing = fs.close_gate();
        let first = scope.spawn(|| log.flush().unwrap());
        syncing.entered();
        let written = fs.written();
        stage_two(&log);
        log.write_ahead(u64::MAX);
        assert!(fs.written() > written, "the sync holds nobody up who writes");
        assert_eq!(log.bounds().durable_raft_index, 1);
        // A cut waits for the sync: what it covers stays, and what was written ahead goes.
        let cut = scope.spawn(|| log.truncate(4).unwrap());
        syncing.open_gate();
        let durable = first.join().unwrap();
        assert!(durable >= 2, "{durable}: the cut syncs what it leaves, maybe before that is told");
        cut.join().unwrap();
    });
    assert_eq!(log.bounds().last_raft_index, 3);
    assert_eq!(log.flush().unwrap(), 3);
    fs.crash();
    assert_eq!(read_all(&open(&fs.sim()).0, 0, 1 << 20), expected(0..3));
}
