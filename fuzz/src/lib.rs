//! What the fuzz targets share: a small log to break, and reading a plan from the fuzzer's bytes.

use std::path::Path;
use std::sync::Arc;

use dislog_log::fs::{Fs, SimFs};
use dislog_log::{Config, Log};
use dislog_types::{BatchBuilder, Compression, Record};

/// Where the log is on the simulated disk.
pub const LOG_DIR: &str = "/log";

/// Numbers and pieces, taken from the front of the fuzzer's bytes; zeros once they are used up.
pub struct Plan<'a>(pub &'a [u8]);

impl<'a> Plan<'a> {
    /// Whether all bytes are used up.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// So many bytes, or what is left.
    pub fn piece(&mut self, bytes: usize) -> &'a [u8] {
        let (piece, rest) = self.0.split_at(bytes.min(self.0.len()));
        self.0 = rest;
        piece
    }

    /// One byte.
    pub fn u8(&mut self) -> u8 {
        self.piece(1).first().copied().unwrap_or(0)
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> u64 {
        let piece = self.piece(8);
        let mut bytes = [0; 8];
        bytes[..piece.len()].copy_from_slice(piece);
        u64::from_le_bytes(bytes)
    }
}

/// The settings of the logs that are broken: small segments, so that there are several.
pub fn config() -> Config {
    Config { segment_bytes: 1 << 10, ..Config::default() }
}

/// The content of the record at an offset.
pub fn content(offset: u64) -> Vec<u8> {
    format!("record {offset} ").repeat(4).into_bytes()
}

/// A sound log of 40 records in batches of 1 to 4, closed.
pub fn sound_log() -> SimFs {
    let fs = SimFs::new(1);
    let (log, _) = Log::open(Arc::new(fs.clone()), Path::new(LOG_DIR), config()).unwrap();
    let mut offset = 0;
    for number in 0..16 {
        let mut batch = BatchBuilder::new();
        for _ in 0..1 + number % 4 {
            let value = content(offset).into();
            assert!(batch.push(&Record { value, ..Record::default() }));
            offset += 1;
        }
        let batch = batch.finish(Compression::None, None);
        log.append(batch, 1_000 + number).unwrap();
    }
    drop(log);
    fs
}

/// A copy of a disk, to be broken.
pub fn copy(fs: &SimFs) -> SimFs {
    let copy = SimFs::new(1);
    for path in fs.list(Path::new(LOG_DIR)).unwrap() {
        copy.put(&path, &fs.content(&path));
    }
    copy
}

/// CRC-32C of some parts.
pub fn crc32c(parts: &[&[u8]]) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    for part in parts {
        digest.update(part);
    }
    u32::try_from(digest.finalize()).expect("a CRC-32 has 32 bits")
}
