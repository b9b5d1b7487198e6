//! Any damage to the files of a sound log: it must open or refuse without a panic, and every offset
//! must give the record that was there, or an error. Another content is a silent loss.
#![no_main]

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use dislog_fuzz::{LOG_DIR, Plan, config, content, copy, sound_log};
use dislog_log::fs::{Fs, SimFs};
use dislog_log::{Log, verify};
use dislog_types::batch::{BatchHeader, records};
use libfuzzer_sys::fuzz_target;

static SOUND: LazyLock<SimFs> = LazyLock::new(sound_log);

fuzz_target!(|data: &[u8]| {
    let mut plan = Plan(data);
    let fs = copy(&SOUND);
    let dir = Path::new(LOG_DIR);
    let files = fs.list(dir).unwrap();
    while !plan.is_empty() {
        damage(&fs, &files, &mut plan);
    }
    let _ = verify(&fs, dir);
    let Ok((log, _)) = Log::open(Arc::new(fs.clone()), dir, config()) else { return };
    check(&log);
    drop(log);
    // What recovery wrote must be as good as what it was given.
    let Ok((log, _)) = Log::open(Arc::new(fs), dir, config()) else { return };
    check(&log);
});

/// One change to one file.
fn damage(fs: &SimFs, files: &[PathBuf], plan: &mut Plan<'_>) {
    let path = &files[usize::from(plan.u8()) % files.len()];
    if fs.open(path).is_err() {
        return;
    }
    let mut bytes = fs.content(path);
    let at = usize::try_from(plan.u64() % (bytes.len() as u64 + 1)).expect("files are small");
    match plan.u8() % 6 {
        0 => bytes.truncate(at),
        1 => {
            let len = usize::from(plan.u8());
            let piece = plan.piece(len);
            let end = bytes.len().min(at + piece.len());
            bytes[at..end].copy_from_slice(&piece[..end - at]);
        }
        2 => {
            let len = usize::from(plan.u8());
            bytes.splice(at..at, plan.piece(len).iter().copied());
        }
        3 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << (plan.u8() % 8);
            }
        }
        4 => {
            let end = bytes.len().min(at + usize::from(plan.u8()));
            bytes[at..end].fill(0);
        }
        _ => {
            let _ = fs.remove(path);
            return;
        }
    }
    fs.put(path, &bytes);
}

fn check(log: &Log) {
    let bounds = log.bounds();
    assert!(bounds.start_offset <= bounds.end_offset);
    for offset in bounds.start_offset..bounds.end_offset.min(bounds.start_offset + 64) {
        let Ok(frames) = log.read(offset, bounds.end_offset, 1) else { continue };
        for frame in frames {
            let header = BatchHeader::verify(&frame.payload).expect("what is read was verified");
            let found = records(&header, &frame.payload).expect("what is read was verified");
            for (offset, record) in (frame.base_offset..).zip(found) {
                assert_eq!(record.value, content(offset), "offset {offset}");
            }
        }
    }
}
