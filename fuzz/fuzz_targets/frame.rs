//! Frames with any fields and right checksums, behind a sound store header: a log must open or
//! refuse, and then read without a panic. Layouts are those of docs/storage-format.md.
#![no_main]

use std::path::Path;
use std::sync::{Arc, LazyLock};

use dislog_fuzz::{LOG_DIR, Plan, config, copy, crc32c, sound_log};
use dislog_log::fs::{Fs, SimFs};
use dislog_log::{FRAME_HEADER_BYTES, Log, verify};
use libfuzzer_sys::fuzz_target;

const STORE_HEADER_BYTES: usize = 128;

static SOUND: LazyLock<SimFs> = LazyLock::new(sound_log);

fuzz_target!(|data: &[u8]| {
    let mut plan = Plan(data);
    let fs = copy(&SOUND);
    let dir = Path::new(LOG_DIR);
    let stores =
        fs.list(dir).unwrap().into_iter().filter(|path| path.extension() == Some("store".as_ref()));
    let store = stores.last().expect("there is an active segment");
    let mut bytes = fs.content(&store);
    // The frames go behind those that are there, or in their place.
    if plan.u8() & 1 == 0 {
        bytes.truncate(STORE_HEADER_BYTES);
    }
    let segment_id = bytes[16..24].to_vec();
    while !plan.is_empty() {
        bytes.extend(frame(&mut plan, &segment_id));
    }
    fs.put(&store, &bytes);
    let _ = verify(&fs, dir);
    let Ok((log, _)) = Log::open(Arc::new(fs), dir, config()) else { return };
    let bounds = log.bounds();
    assert!(bounds.start_offset <= bounds.end_offset);
    for offset in [bounds.start_offset, bounds.end_offset.saturating_sub(1), bounds.end_offset] {
        let _ = log.read(offset, bounds.end_offset, 1 << 20);
        let _ = log.offset_at(i64::try_from(offset).unwrap_or(i64::MAX));
    }
    let _ = log.frames(bounds.first_raft_index, bounds.last_raft_index.saturating_add(1), 1 << 20);
    let _ = log.term(bounds.last_raft_index);
});

/// Fields are small numbers mostly, so that frames follow each other now and then.
fn frame(plan: &mut Plan<'_>, segment_id: &[u8]) -> Vec<u8> {
    let shape = plan.u8();
    let mut number = || if shape & 1 == 0 { u64::from(plan.u8()) } else { plan.u64() };
    let fields = [number(), number(), number(), number(), number()];
    let kind = plan.u8() % 6;
    let record_count = plan.u8();
    let payload_bytes = usize::from(plan.u8());
    let payload = plan.piece(payload_bytes);
    let mut header = [0; FRAME_HEADER_BYTES];
    header[0..4].copy_from_slice(b"DLF\x01");
    header[8..12].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
    header[12..16].copy_from_slice(&crc32c(&[payload]).to_le_bytes());
    header[16] = kind;
    header[20] = record_count;
    for (at, field) in (24..64).step_by(8).zip(fields) {
        header[at..at + 8].copy_from_slice(&field.to_le_bytes());
    }
    if shape & 2 == 2 {
        header[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    }
    let crc = crc32c(&[segment_id, &header[8..]]);
    header[4..8].copy_from_slice(&crc.to_le_bytes());
    [&header[..], payload].concat()
}
