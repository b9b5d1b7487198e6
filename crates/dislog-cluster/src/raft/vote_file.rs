//! The `vote` file: the term a replica is in and whom it voted for in it.
//!
//! ```text
//!  0  magic     u32  "DLV1"
//!  4  CRC-32C   u32  of all that follows
//!  8  term      u64
//! 16  voted for u64  node id; 0: nobody
//! ```
//! Integers are little-endian. It is replaced atomically and synced before anything that depends on
//! it leaves the node: a vote that is forgotten could be given twice.

use std::io;
use std::path::{Path, PathBuf};

use dislog_log::fs::Fs;
use dislog_types::checksum::crc32c;

use crate::atomic_file;

/// The name of the file in a partition's directory.
const FILE_NAME: &str = "vote";

const MAGIC: [u8; 4] = *b"DLV1";
const FILE_BYTES: usize = 24;
const CHECKED_FROM: usize = 8;

/// A term and a vote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Vote {
    /// The newest term the replica has seen.
    pub(crate) term: u64,
    /// Whom it voted for in that term; 0: nobody.
    pub(crate) voted_for: u64,
}

/// What a partition's directory has to say about votes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoredVote {
    /// There is no file: the replica never voted.
    None,
    /// As stored.
    Vote(Vote),
    /// The file is not as it was written: whom the replica voted for is not known.
    Damaged,
}

/// Reads the vote in `dir`.
pub(crate) fn read(fs: &dyn Fs, dir: &Path) -> io::Result<StoredVote> {
    Ok(match atomic_file::read(fs, &path(dir))? {
        None => StoredVote::None,
        Some(content) => decode(&content).map_or(StoredVote::Damaged, StoredVote::Vote),
    })
}

/// Replaces the vote in `dir`, durably.
pub(crate) fn write(fs: &dyn Fs, dir: &Path, vote: Vote) -> io::Result<()> {
    atomic_file::replace(fs, &path(dir), &encode(vote))
}

/// Where the vote of the partition in `dir` is.
pub(crate) fn path(dir: &Path) -> PathBuf {
    dir.join(FILE_NAME)
}

fn encode(vote: Vote) -> [u8; FILE_BYTES] {
    let mut content = [0; FILE_BYTES];
    content[0..4].copy_from_slice(&MAGIC);
    content[8..16].copy_from_slice(&vote.term.to_le_bytes());
    content[16..24].copy_from_slice(&vote.voted_for.to_le_bytes());
    let crc = crc32c(&content[CHECKED_FROM..]);
    content[4..8].copy_from_slice(&crc.to_le_bytes());
    content
}

fn decode(content: &[u8]) -> Option<Vote> {
    let content: &[u8; FILE_BYTES] = content.try_into().ok()?;
    let word = |at: usize| u64::from_le_bytes(content[at..at + 8].try_into().expect("8 bytes"));
    let crc = u32::from_le_bytes(content[4..8].try_into().expect("4 bytes"));
    if content[0..4] != MAGIC || crc != crc32c(&content[CHECKED_FROM..]) {
        return None;
    }
    Some(Vote { term: word(8), voted_for: word(16) })
}

#[cfg(test)]
mod tests {
    use dislog_log::fs::SimFs;

    use super::*;

    const VOTE: Vote = Vote { term: 0x0102_0304_0506_0708, voted_for: 42 };

    #[test]
    fn a_vote_is_read_as_written() {
        let fs = SimFs::new(1);
        let dir = Path::new("/data");
        fs.create_dir_all(dir).unwrap();
        assert_eq!(read(&fs, dir).unwrap(), StoredVote::None);
        for term in 0..3 {
            let vote = Vote { term, voted_for: term + 1 };
            write(&fs, dir, vote).unwrap();
            assert_eq!(read(&fs, dir).unwrap(), StoredVote::Vote(vote));
        }
    }

    #[test]
    fn a_written_vote_survives_a_crash() {
        for seed in 0..50 {
            let fs = SimFs::new(seed);
            let dir = Path::new("/data");
            fs.create_dir_all(dir).unwrap();
            fs.sync_dir(Path::new("/")).unwrap();
            write(&fs, dir, VOTE).unwrap();
            fs.crash();
            assert_eq!(read(&fs, dir).unwrap(), StoredVote::Vote(VOTE), "seed {seed}");
        }
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_noticed() {
        let good = encode(VOTE);
        for cut in 0..good.len() {
            assert_eq!(decode(&good[..cut]), None, "cut at {cut}");
        }
        assert_eq!(decode(&[&good[..], &[0]].concat()), None);
        for bit in 0..good.len() * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&bad), None, "bit {bit}");
        }
        assert_eq!(decode(&good), Some(VOTE));
    }
}
