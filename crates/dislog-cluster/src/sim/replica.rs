//! What a replica looks like from the inside, for those who judge it.

use dislog_log::Log;
use dislog_types::PartitionId;

/// One replica of a group, as of now.
#[derive(Clone, Debug)]
pub struct Replica {
    /// Its group.
    pub group: u64,
    /// The partition it holds.
    pub partition: PartitionId,
    /// Its own id.
    pub replica: u64,
    /// The term it is in.
    pub term: u64,
    /// It leads, in that term.
    pub leads: bool,
    /// It leads and takes appends.
    pub serves: bool,
    /// The last entry that it knows to be committed.
    pub committed: u64,
    /// The last entry that it has applied.
    pub applied: u64,
    /// The first offset that can be read.
    pub start_offset: u64,
    /// One past the last committed offset.
    pub committed_offset: u64,
    /// Who votes; during a change, those who vote from then on.
    pub voters: Vec<u64>,
    /// During a change, those who voted before and still do.
    pub voters_outgoing: Vec<u64>,
    /// Who only follows.
    pub learners: Vec<u64>,
    /// It rests: time does not pass for it.
    pub rests: bool,
    /// A failure has ended it.
    pub stopped: bool,
    /// It is beginning anew at another start.
    pub installing: bool,
    /// Its log.
    pub log: Option<Log>,
}
