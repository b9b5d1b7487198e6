//! Checkpoints: what is known of a log at one of its positions, in a file replaced atomically.
//!
//! ```text
//!  0  magic         8 bytes  "DISLOGC" and the version, 1
//!  8  CRC-32C       u32      of everything from byte 16
//! 12  state length  u32
//! 16  raft index    u64
//! 24  end offset    u64      one past the last offset at that position
//! 32  start offset  u64
//! 40  state
//! ```

use std::io;
use std::path::Path;

use bytes::Bytes;
use dislog_types::checksum::crc32c;

use crate::error::{LogError, SYNC};
use crate::fs::Fs;

const NAME: &str = "checkpoint";
const NEW_NAME: &str = "checkpoint.new";
const MAGIC: [u8; 8] = *b"DISLOGC\x01";
const HEADER_BYTES: usize = 40;

/// The most bytes a state may have: what recovery is ready to read at once.
const STATE_BYTES_MAX: u64 = 1 << 30;

/// What is known of a log at one of its positions, so that recovery need not read all of it. A
/// hint: lost harmlessly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// The Raft position it describes; everything up to it was committed and durable.
    pub raft_index: u64,
    /// The first offset of the log.
    pub start_offset: u64,
    /// What the state machine knew after that position, in its own encoding.
    pub state: Bytes,
}

/// A checkpoint and where the log ended at its position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredCheckpoint {
    pub checkpoint: Checkpoint,
    pub end_offset: u64,
}

impl StoredCheckpoint {
    fn encode(&self) -> Vec<u8> {
        let state = &self.checkpoint.state;
        let state_bytes = u32::try_from(state.len()).expect("a state is far below 4 GiB");
        let mut out = vec![0; HEADER_BYTES];
        out[0..8].copy_from_slice(&MAGIC);
        out[12..16].copy_from_slice(&state_bytes.to_le_bytes());
        out[16..24].copy_from_slice(&self.checkpoint.raft_index.to_le_bytes());
        out[24..32].copy_from_slice(&self.end_offset.to_le_bytes());
        out[32..40].copy_from_slice(&self.checkpoint.start_offset.to_le_bytes());
        out.extend_from_slice(state);
        let crc = crc32c(&out[16..]);
        out[8..12].copy_from_slice(&crc.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<StoredCheckpoint> {
        let u64_at = |at: usize| bytes[at..at + 8].try_into().map(u64::from_le_bytes).ok();
        let header: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
        let crc = crc32c(&bytes[16..]);
        let state_bytes = u32::from_le_bytes(header[12..16].try_into().ok()?) as usize;
        if header[0..8] != MAGIC
            || header[8..12] != crc.to_le_bytes()
            || bytes.len() != HEADER_BYTES + state_bytes
        {
            return None;
        }
        let checkpoint = Checkpoint {
            raft_index: u64_at(16)?,
            start_offset: u64_at(32)?,
            state: Bytes::copy_from_slice(&bytes[HEADER_BYTES..]),
        };
        Some(StoredCheckpoint { checkpoint, end_offset: u64_at(24)? })
    }
}

/// Replaces the checkpoint in `dir`, durably.
pub(crate) fn write(
    fs: &dyn Fs,
    dir: &Path,
    checkpoint: &StoredCheckpoint,
) -> Result<(), LogError> {
    let (path, new_path) = (dir.join(NAME), dir.join(NEW_NAME));
    fs.remove_if_there(&new_path).map_err(|e| LogError::of("remove", &new_path, &e))?;
    let file = fs.create(&new_path).map_err(|e| LogError::of("create", &new_path, &e))?;
    file.write_at(&[&checkpoint.encode()], 0).map_err(|e| LogError::of("write", &new_path, &e))?;
    file.sync_data().map_err(|e| LogError::of(SYNC, &new_path, &e))?;
    fs.rename(&new_path, &path).map_err(|e| LogError::of("rename", &new_path, &e))?;
    fs.sync_dir(dir).map_err(|e| LogError::of(SYNC, dir, &e))
}

/// Removes the checkpoint in `dir`, if there is one, durably.
pub(crate) fn remove(fs: &dyn Fs, dir: &Path) -> Result<(), LogError> {
    for path in [dir.join(NAME), dir.join(NEW_NAME)] {
        fs.remove_if_there(&path).map_err(|e| LogError::of("remove", &path, &e))?;
    }
    fs.sync_dir(dir).map_err(|e| LogError::of(SYNC, dir, &e))
}

/// What reading the checkpoint gave.
pub(crate) enum Found {
    /// None was ever written.
    Missing,
    /// There is one that does not verify.
    Bad,
    /// The checkpoint.
    Sound(StoredCheckpoint),
}

/// Reads the checkpoint in `dir`.
pub(crate) fn read(fs: &dyn Fs, dir: &Path) -> io::Result<Found> {
    let file = match fs.open(&dir.join(NAME)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Missing),
        other => other?,
    };
    let len = file.len()?;
    if len > STATE_BYTES_MAX {
        return Ok(Found::Bad);
    }
    let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    let read = file.read_at(&mut bytes, 0)?;
    Ok(StoredCheckpoint::decode(&bytes[..read]).map_or(Found::Bad, Found::Sound))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_survives_and_anything_else_is_none() {
        let checkpoint =
            Checkpoint { raft_index: 7, start_offset: 3, state: Bytes::from_static(b"state") };
        let stored = StoredCheckpoint { checkpoint, end_offset: 9 };
        let bytes = stored.encode();
        assert_eq!(StoredCheckpoint::decode(&bytes), Some(stored));
        for len in 0..bytes.len() {
            assert_eq!(StoredCheckpoint::decode(&bytes[..len]), None);
        }
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(StoredCheckpoint::decode(&bytes), None, "bit {bit}");
        }
    }
}
