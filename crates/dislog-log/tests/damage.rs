//! Every cut and every flipped bit at the end of a store, and what recovery makes of it.
//!
//! The rule (`docs/recovery.md`): what was never proven durable and does not verify is an
//! unfinished write, and is cut off; what was durable and does not verify is damage, which is
//! reported with file, position and offsets, and is neither cut nor skipped.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use bytes::Bytes;
use dislog_log::fs::SimFs;
use dislog_log::{Checkpoint, Damage, FindingKind, Log, ReadError, verify};
use support::{batch, dir, files, next_batch, open, read_all, value};

/// Where a frame begins and ends in its store, and its offsets.
#[derive(Clone, Copy, Debug)]
struct Place {
    start: usize,
    end: usize,
    base_offset: u64,
    end_offset: u64,
}

/// A log of one segment: `synced` frames each synced by itself, then `group` frames synced
/// together.
fn make(seed: u64, synced: u64, group: u64) -> (SimFs, Vec<Place>) {
    let fs = SimFs::new(seed);
    let (log, _) = open(&fs);
    let mut places = Vec::new();
    let mut start = 128;
    let mut note = |frame: &dislog_log::Frame| {
        let end = start + frame.frame_bytes();
        let (base_offset, end_offset) = (frame.base_offset, frame.end_offset());
        places.push(Place { start, end, base_offset, end_offset });
        start = end;
    };
    for number in 0..synced {
        let frame = batch(&log, &[value(2 * number, 0), value(2 * number + 1, 0)]);
        note(&frame);
        log.stage(vec![frame]).unwrap();
        log.flush().unwrap();
    }
    let mut frames = Vec::new();
    for number in synced..synced + group {
        let values = [value(2 * number, 0), value(2 * number + 1, 0)];
        let frame = next_batch(&log, &frames, &values);
        note(&frame);
        frames.push(frame);
    }
    log.stage(frames).unwrap();
    log.flush().unwrap();
    assert_eq!(log.segment_count(), 1, "the frames fit one segment");
    (fs, places)
}

fn store(fs: &SimFs) -> std::path::PathBuf {
    files(fs, "store").pop().unwrap()
}

fn expected(range: std::ops::Range<u64>) -> Vec<String> {
    range.map(|offset| value(offset, 0)).collect()
}

fn assert_cut(fs: &SimFs, place: &Place) {
    let behind = fs.content(&store(fs)).split_off(place.start);
    let torn_bytes = if behind.iter().all(|&byte| byte == 0) { 0 } else { behind.len() };
    let report = verify(fs, &dir()).unwrap();
    let torn = report.findings.iter().find(|f| f.kind == FindingKind::TornTail);
    assert_eq!(torn.is_some(), torn_bytes > 0, "{report:?}");
    assert!(!report.is_damaged(), "{report:?}");
    let (log, recovery) = open(fs);
    assert_eq!(recovery.damage, None);
    assert_eq!(recovery.torn_bytes, torn_bytes as u64);
    assert_eq!(read_all(&log, 0, 1 << 20), expected(0..place.base_offset));
    assert_eq!(fs.content(&store(fs)).len(), place.start, "the tail is cut off");
    append_one(&log);
    assert_eq!(read_all(&open(fs).0, 0, 1 << 20), expected(0..place.base_offset + 1));
}

fn append_one(log: &Log) {
    let frame = batch(log, &[value(log.bounds().end_offset, 0)]);
    log.stage(vec![frame]).unwrap();
    log.flush().unwrap();
}

fn assert_damage(fs: &SimFs, place: &Place, end: u64) {
    let before = fs.content(&store(fs));
    let found = Damage {
        file: store(fs),
        position: place.start as u64,
        from_offset: place.base_offset,
        to_offset: place.end_offset,
    };
    let report = verify(fs, &dir()).unwrap();
    let finding = report.findings.iter().find(|f| f.kind == FindingKind::Damage).expect("reported");
    assert_eq!(finding.file, found.file);
    assert_eq!(finding.position, found.position);
    assert_eq!(finding.offsets, found.from_offset..found.to_offset);
    let (log, recovery) = open(fs);
    assert_eq!(recovery.damage, Some(found.clone()));
    for offset in 0..end {
        let read = log.read(offset, end, 1);
        if (place.base_offset..place.end_offset).contains(&offset) {
            assert_eq!(read, Err(ReadError::Damaged(found.clone())), "offset {offset}");
        } else {
            let frame = &read.expect("sound records can be read")[0];
            assert!((frame.base_offset..frame.end_offset()).contains(&offset));
            assert_eq!(
                support::values_of(frame)[(offset - frame.base_offset) as usize],
                value(offset, 0)
            );
        }
    }
    assert!(log.stage(vec![batch(&log, &["more".to_owned()])]).is_err(), "it takes no writes");
    assert!(log.flush().is_err());
    assert_eq!(fs.content(&store(fs)), before, "nothing is cut");
}

#[test]
fn a_store_cut_anywhere_in_its_unproven_frames_loses_only_those() {
    let (fs, places) = make(1, 3, 3);
    let whole = fs.content(&store(&fs));
    for cut in places[3].start..places[5].end {
        let (fs, _) = make(1, 3, 3);
        fs.put(&store(&fs), &whole[..cut]);
        let place = places.iter().find(|place| cut < place.end).unwrap();
        assert_cut(&fs, place);
    }
}

#[test]
fn a_store_cut_below_a_checkpoint_is_damaged() {
    let (fs, places) = make(2, 3, 0);
    let (log, _) = open(&fs);
    let checkpoint = Checkpoint { raft_index: 3, start_offset: 0, state: Bytes::new() };
    log.write_checkpoint(&checkpoint).unwrap();
    let whole = fs.content(&store(&fs));
    let last = places[2];
    for cut in last.start..last.end {
        fs.put(&store(&fs), &whole[..cut]);
        let (log, recovery) = open(&fs);
        let damage = recovery.damage.expect("durable records are missing");
        assert_eq!((damage.from_offset, damage.to_offset), (last.base_offset, last.end_offset));
        assert_eq!(damage.position, last.start as u64);
        assert_eq!(read_all_below(&log, last.base_offset), expected(0..last.base_offset));
        assert!(matches!(log.read(last.base_offset, 6, 1), Err(ReadError::Damaged(_))));
        assert!(log.stage(vec![]).is_err());
    }
}

fn read_all_below(log: &Log, end: u64) -> Vec<String> {
    let frames = log.read(0, end, 1 << 20).unwrap();
    frames.iter().flat_map(support::values_of).collect()
}

#[test]
fn a_bit_flipped_in_the_last_frame_cuts_it_off() {
    let (_, places) = make(3, 2, 1);
    let last = places[2];
    for bit in last.start * 8..last.end * 8 {
        let (fs, _) = make(3, 2, 1);
        fs.flip_bit(&store(&fs), bit / 8, (bit % 8) as u8);
        assert_cut(&fs, &last);
    }
}

#[test]
fn a_bit_flipped_in_a_frame_with_later_frames_is_damage() {
    let (_, places) = make(4, 4, 0);
    let hit = places[1];
    for bit in hit.start * 8..hit.end * 8 {
        let (fs, _) = make(4, 4, 0);
        fs.flip_bit(&store(&fs), bit / 8, (bit % 8) as u8);
        assert_damage(&fs, &hit, 8);
    }
}

#[test]
fn a_bit_flipped_in_an_unproven_group_cuts_the_group_off_there() {
    // Three frames written by one flush that nothing proves to have been synced: a power cut may
    // well have left the third whole and the second not.
    let (_, places) = make(5, 1, 3);
    let hit = places[2];
    for bit in hit.start * 8..hit.end * 8 {
        let (fs, _) = make(5, 1, 3);
        fs.flip_bit(&store(&fs), bit / 8, (bit % 8) as u8);
        assert_cut(&fs, &hit);
    }
}

#[test]
fn a_bit_flipped_in_the_last_frame_below_a_checkpoint_is_damage() {
    let (_, places) = make(6, 3, 0);
    let hit = places[2];
    for bit in hit.start * 8..hit.end * 8 {
        let (fs, _) = make(6, 3, 0);
        let checkpoint = Checkpoint { raft_index: 3, start_offset: 0, state: Bytes::new() };
        open(&fs).0.write_checkpoint(&checkpoint).unwrap();
        fs.flip_bit(&store(&fs), bit / 8, (bit % 8) as u8);
        assert_damage(&fs, &hit, 6);
    }
}

#[test]
fn a_bit_flipped_in_a_sealed_segment_is_never_served() {
    let fs = SimFs::new(7);
    let (log, _) = open(&fs);
    for offset in 0..40 {
        log.stage(vec![batch(&log, &[value(offset, 0)])]).unwrap();
        log.flush().unwrap();
    }
    drop(log);
    let path = files(&fs, "store")[1].clone();
    for position in 128..fs.content(&path).len() {
        fs.flip_bit(&path, position, 1);
        let (log, _) = open(&fs);
        let mut damaged = 0;
        for offset in 0..40 {
            match log.read(offset, 40, 1) {
                Ok(frames) => assert_eq!(support::values_of(&frames[0])[0], value(offset, 0)),
                Err(ReadError::Damaged(damage)) => {
                    assert_eq!(damage.file, path);
                    assert!((damage.from_offset..damage.to_offset).contains(&offset));
                    damaged += 1;
                }
                Err(other) => panic!("{other}"),
            }
        }
        assert!(damaged == 1, "{damaged} records damaged by the bit at {position}");
        assert!(verify(&fs, &dir()).unwrap().is_damaged());
        fs.flip_bit(&path, position, 1);
    }
}

#[test]
fn a_missing_segment_and_a_rotten_store_header_are_damage() {
    type Spoil = fn(&SimFs, &std::path::Path);
    let spoils: [Spoil; 3] = [
        |fs, path| dislog_log::fs::Fs::remove(fs, path).unwrap(),
        |fs, path| {
            fs.flip_bit(path, 20, 0);
            fs.flip_bit(path, 64 + 20, 0);
        },
        |fs, path| fs.put(path, b""),
    ];
    for (number, spoil) in spoils.into_iter().enumerate() {
        let fs = SimFs::new(8);
        let (log, _) = open(&fs);
        for offset in 0..40 {
            log.stage(vec![batch(&log, &[value(offset, 0)])]).unwrap();
            log.flush().unwrap();
        }
        drop(log);
        let stores = files(&fs, "store");
        let base = |path: &std::path::Path| {
            path.file_stem().unwrap().to_str().unwrap().parse::<u64>().unwrap()
        };
        let (from, to) = (base(&stores[1]), base(&stores[2]));
        spoil(&fs, &stores[1]);
        let (log, recovery) = open(&fs);
        let damage = recovery.damage.unwrap_or_else(|| panic!("spoil {number} goes unnoticed"));
        assert_eq!((damage.from_offset, damage.to_offset), (from, to), "spoil {number}");
        for offset in 0..40 {
            let read = log.read(offset, 40, 1);
            if (from..to).contains(&offset) {
                assert!(matches!(read, Err(ReadError::Damaged(_))), "spoil {number}: {read:?}");
            } else {
                assert_eq!(support::values_of(&read.unwrap()[0])[0], value(offset, 0));
            }
        }
        assert!(verify(&fs, &dir()).unwrap().is_damaged());
    }
}
