//! The `members` file: who belonged to the group, from the position where the log begins on.
//!
//! ```text
//!  0  magic     u32  "DLM1"
//!  4  CRC-32C   u32  of all that follows
//!  8  history        Protocol Buffers, see [`History`]
//! ```
//!
//! A membership holds from the entry that brought it until the next. The log says the same, but its
//! head is deleted one day, and a replica must know whose votes count before it reads anything
//! else. The file is replaced atomically and synced with the entry that it speaks of, before a
//! checkpoint behind that entry is written: nothing between the newest entry in the file and what a
//! checkpoint covers changes the membership.

use std::io;
use std::path::{Path, PathBuf};

use dislog_log::fs::Fs;
use dislog_types::checksum::crc32c;
use prost::Message;

use super::transport::Membership;
use crate::atomic_file;

/// The name of the file in a partition's directory.
const FILE_NAME: &str = "members";

const MAGIC: [u8; 4] = *b"DLM1";
const HEADER_BYTES: usize = 8;

/// Memberships by the entry that brought them, oldest first.
///
/// - There is one at or before where the log begins.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct History {
    #[prost(message, repeated, tag = "1")]
    steps: Vec<Step>,
    /// The newest replica that ever belonged to the group, as far as is known.
    #[prost(uint64, tag = "2")]
    newest_replica: u64,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Step {
    /// The last entry of the change; 0: the group was made so.
    #[prost(uint64, tag = "1")]
    raft_index: u64,
    #[prost(message, required, tag = "2")]
    membership: Membership,
}

impl History {
    /// That of a group which has had one membership since `raft_index`.
    pub(crate) fn since(raft_index: u64, membership: Membership) -> History {
        let mut history = History::default();
        history.push(raft_index, membership);
        history
    }

    /// The entry at `raft_index` brought another.
    pub(crate) fn push(&mut self, raft_index: u64, membership: Membership) {
        let later = self.steps.last().is_none_or(|last| last.raft_index < raft_index);
        assert!(later, "memberships follow one another");
        self.knows(membership.replicas().max().unwrap_or(0));
        self.steps.push(Step { raft_index, membership });
    }

    /// A replica belongs to the group, or did.
    pub(crate) fn knows(&mut self, replica: u64) {
        self.newest_replica = self.newest_replica.max(replica);
    }

    /// The newest replica that ever belonged to the group, as far as is known.
    pub(crate) fn newest_replica(&self) -> u64 {
        self.newest_replica
    }

    /// The newest membership and the entry that brought it.
    pub(crate) fn newest(&self) -> (u64, &Membership) {
        let last = self.steps.last().expect("a group has a membership");
        (last.raft_index, &last.membership)
    }

    /// The newest membership that nobody may go by any more who is not in it: the newest one, or
    /// the one before if that had others who decide. Replicas that have the newest on disk, but not
    /// that it is committed, go by the one before when they start again, and need those. Once
    /// another change follows, a majority has proof of it.
    pub(crate) fn proven(&self) -> (u64, &Membership) {
        match &self.steps[..] {
            [.., before, newest] if !newest.membership.has_deciders_of(&before.membership) => {
                (before.raft_index, &before.membership)
            }
            _ => self.newest(),
        }
    }

    /// The membership after the entry at `raft_index`.
    pub(crate) fn at(&self, raft_index: u64) -> Option<&Membership> {
        let step = self.steps.iter().rfind(|step| step.raft_index <= raft_index)?;
        Some(&step.membership)
    }

    /// Whether a replica that is no member was one, or was passed over: those who belong to a group
    /// come in the order of their ids. Known also of who was given up before the log begins.
    pub(crate) fn is_over(&self, replica: u64) -> bool {
        replica <= self.newest_replica
    }

    /// Forgets which membership there was before the entry at `raft_index`.
    pub(crate) fn forget_before(&mut self, raft_index: u64) {
        let kept = self.steps.iter().rposition(|step| step.raft_index <= raft_index);
        self.steps.drain(..kept.unwrap_or(0));
    }
}

/// What a partition's directory has to say about its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StoredHistory {
    /// There is no file: they are those the group was made with.
    None,
    /// As stored.
    History(History),
    /// The file is not as it was written.
    Damaged,
}

/// Reads the history in `dir`.
pub(crate) fn read(fs: &dyn Fs, dir: &Path) -> io::Result<StoredHistory> {
    Ok(match atomic_file::read(fs, &path(dir))? {
        None => StoredHistory::None,
        Some(content) => decode(&content).map_or(StoredHistory::Damaged, StoredHistory::History),
    })
}

/// Replaces the history in `dir`, durably.
pub(crate) fn write(fs: &dyn Fs, dir: &Path, history: &History) -> io::Result<()> {
    atomic_file::replace(fs, &path(dir), &encode(history))
}

/// Where the members of the partition in `dir` are.
pub(crate) fn path(dir: &Path) -> PathBuf {
    dir.join(FILE_NAME)
}

fn encode(history: &History) -> Vec<u8> {
    let mut content = vec![0; HEADER_BYTES];
    history.encode(&mut content).expect("a vector grows as needed");
    let crc = crc32c(&content[HEADER_BYTES..]);
    content[0..4].copy_from_slice(&MAGIC);
    content[4..8].copy_from_slice(&crc.to_le_bytes());
    content
}

fn decode(content: &[u8]) -> Option<History> {
    let (header, body) = content.split_first_chunk::<HEADER_BYTES>()?;
    if header[0..4] != MAGIC || header[4..8] != crc32c(body).to_le_bytes() {
        return None;
    }
    let mut history = History::decode(body).ok()?;
    let newest = history.steps.iter().flat_map(|step| step.membership.replicas()).max();
    history.knows(newest?);
    let ordered = history.steps.is_sorted_by(|a, b| a.raft_index < b.raft_index);
    ordered.then_some(history)
}

#[cfg(test)]
mod tests {
    use dislog_log::fs::SimFs;

    use super::*;

    fn history() -> History {
        let mut history = History::since(0, Membership::of(vec![1]));
        let joint = Membership { voters_outgoing: vec![1], ..Membership::of(vec![1, 2]) };
        history.push(7, Membership { learners: vec![2], ..Membership::of(vec![1]) });
        history.push(9, joint);
        history.push(10, Membership::of(vec![1, 2]));
        history
    }

    #[test]
    fn a_history_is_read_as_written() {
        let fs = SimFs::new(1);
        let dir = Path::new("/data");
        fs.create_dir_all(dir).unwrap();
        assert_eq!(read(&fs, dir).unwrap(), StoredHistory::None);
        write(&fs, dir, &history()).unwrap();
        assert_eq!(read(&fs, dir).unwrap(), StoredHistory::History(history()));
    }

    #[test]
    fn every_position_has_the_membership_that_held_there() {
        let mut history = history();
        let voters = |history: &History, at| history.at(at).map(|m| m.voters.clone());
        assert_eq!(voters(&history, 0), Some(vec![1]));
        assert_eq!(history.at(8).unwrap().learners, [2]);
        assert_eq!(voters(&history, 9), Some(vec![1, 2]));
        assert_eq!(history.newest().0, 10);
        history.forget_before(9);
        assert_eq!((voters(&history, 8), voters(&history, 9)), (None, Some(vec![1, 2])));
        history.forget_before(100);
        assert_eq!(history.newest(), (10, &Membership::of(vec![1, 2])));
    }

    #[test]
    fn who_was_given_up_is_known_also_when_the_log_no_longer_says_so() {
        let mut history = history();
        assert!(history.is_over(2) && !history.is_over(3));
        history.push(20, Membership::of(vec![1]));
        history.forget_before(100);
        assert!(decode(&encode(&history)).unwrap().is_over(2) && !history.is_over(3));
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_noticed() {
        let good = encode(&history());
        for cut in 0..good.len() {
            assert_eq!(decode(&good[..cut]), None, "cut at {cut}");
        }
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&bad), None, "bit {bit}");
        }
        assert_eq!(decode(&good), Some(history()));
    }
}
