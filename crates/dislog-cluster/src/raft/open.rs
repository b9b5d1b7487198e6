//! Opening a partition's directory: from bytes on disk to a group that can be driven. Blocks; not
//! for the driver's thread.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use dislog_log::fs::Fs;
use dislog_log::{Checkpoint, Kind, Log, LogError, ReadError};
use dislog_types::PartitionId;
use raft::{Config, RawNode};

use super::group::{Group, Observer, fault};
use super::losses::Losses;
use super::members_file::{self, History, StoredHistory};
use super::membership::{Course, Target};
use super::new_start_file;
use super::persist::Persist;
use super::rest::Rest;
use super::storage::LogStorage;
use super::telling::Telling;
use super::transport::Membership;
use super::vote_file::{self, StoredVote, Vote};
use super::waiters::{Reads, Waiters};
use crate::partition::progress::Progress;
use crate::partition::retention::RetentionPolicy;
use crate::partition::shared::{Fault, Shared};
use crate::partition::state_machine::{ApplyError, StateMachine};
use crate::partition::upkeep::Upkeep;

/// Bytes of entries in one message to a peer, unless one alone has more: large enough that reading
/// them one after the other is fast, and small enough that nobody waits for one of them.
pub(super) const MESSAGE_BYTES_MAX: u64 = 256 << 10;

/// Bytes of committed entries handed out at once.
const COMMITTED_BYTES_MAX: u64 = 1 << 20;

/// Messages with entries under way to one peer; with the size of each it bounds the bytes.
const MESSAGES_IN_FLIGHT_MAX: usize = 64;

/// Ticks between heartbeats, and ticks without one after which there is an election.
const HEARTBEAT_TICKS: usize = 2;
pub(super) const ELECTION_TICKS: usize = 8;

/// Bytes of the log read at once while it is replayed.
const REPLAY_BYTES: u64 = 1 << 20;

/// What is to be opened.
pub(crate) struct OpenGroup {
    pub(crate) fs: Arc<dyn Fs>,
    pub(crate) dir: PathBuf,
    pub(crate) log: dislog_log::Config,
    pub(crate) id: PartitionId,
    pub(crate) group: u64,
    /// This replica.
    pub(crate) replica: u64,
    /// Those the group was made with.
    pub(crate) initial: Vec<u64>,
    pub(crate) target: Option<Target>,
    pub(crate) policy: RetentionPolicy,
    /// Sees every committed batch from the first; the whole log is replayed for it.
    pub(crate) observer: Option<Box<dyn Observer>>,
}

/// A partition, and what drives it. Without a group it can be read, as far as it can be, and not be
/// written: `shared` says why.
pub(crate) struct Opened {
    pub(crate) shared: Arc<Shared>,
    pub(crate) group: Option<Box<Group>>,
}

/// Why a sound log cannot be driven.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("{}: {message}", path.display())]
    File { path: PathBuf, message: String },
    #[error("{}: {error}", path.display())]
    Failed { path: PathBuf, error: io::Error },
    #[error("the log ends at entry {last}, but {known} was durable once")]
    Shortened { last: u64, known: u64 },
    #[error("{0}")]
    Observer(String),
    #[error("Raft does not start: {0}")]
    Raft(#[from] raft::Error),
}

impl Refused {
    /// Only damage is for good, and has the replica replaced: a disk that failed once may have all
    /// when it is asked again, and others may fail at the same time.
    fn fault(&self) -> Fault {
        match self {
            Refused::Failed { .. } | Refused::Read(ReadError::Failed { .. }) => {
                Fault::Stopped(self.to_string())
            }
            _ => Fault::Damaged(self.to_string()),
        }
    }
}

impl OpenGroup {
    /// Opens it. What is wrong with it is in the outcome: one bad log must not keep a node from
    /// starting.
    pub(crate) fn open(self) -> Opened {
        let (log, recovery) = match Log::open(Arc::clone(&self.fs), &self.dir, self.log.clone()) {
            Ok(opened) => opened,
            Err(error) => return self.unusable(None, Progress::default(), fault(&error)),
        };
        if recovery.torn_bytes > 0 {
            let bytes = recovery.torn_bytes;
            tracing::info!(partition = %self.id, bytes, "cut an unfinished write off the log");
        }
        let mut checkpoint = recovery.checkpoint;
        if recovery.damage.is_none() {
            match new_start_file::finish(&*self.fs, &self.dir, &log) {
                Ok(None) => {}
                Ok(begun) => checkpoint = begun,
                Err(error) => {
                    return self.unusable(Some(log), Progress::default(), fault(&error));
                }
            }
        }
        let bounds = log.bounds();
        let committed_offset = self.known_committed(&log, checkpoint.as_ref());
        let start_offset = bounds.start_offset.min(committed_offset);
        let progress = Progress { start_offset, committed_offset, ended: false };
        if let Some(damage) = recovery.damage {
            let fault = fault(&LogError::Damaged(damage));
            return self.unusable(Some(log), progress, fault);
        }
        let mut this = self;
        match this.build(&log, checkpoint.as_ref()) {
            Ok(group) => Opened { shared: Arc::clone(&group.shared), group: Some(Box::new(group)) },
            Err(refused) => this.unusable(Some(log), progress, refused.fault()),
        }
    }

    /// Up to where a log can be read that cannot be driven. The end of it may not be committed,
    /// unless nobody else ever had a say in that.
    fn known_committed(&self, log: &Log, checkpoint: Option<&Checkpoint>) -> u64 {
        let bounds = log.bounds();
        let is_alone = |history: History| history.newest().1.voters == [self.replica];
        if self.read_members().is_ok_and(is_alone) {
            return bounds.end_offset;
        }
        let machine = checkpoint.and_then(StateMachine::from_checkpoint);
        machine.map_or(bounds.start_offset, |machine| machine.committed_offset)
    }

    fn unusable(self, log: Option<Log>, progress: Progress, fault: Fault) -> Opened {
        tracing::error!(partition = %self.id, fault = fault.message(), "the log takes no appends");
        let shared = Shared::new(self.id, self.group, log, progress, Some(fault));
        Opened { shared: Arc::new(shared), group: None }
    }

    fn build(&mut self, log: &Log, checkpoint: Option<&Checkpoint>) -> Result<Group, Refused> {
        let history = self.read_members()?;
        let (since, membership) = history.newest();
        let alone = membership.voters == [self.replica] && membership.voters_outgoing.is_empty();
        let vote = self.read_vote(log, alone)?;
        #[cfg(feature = "sim")]
        super::sim::truncate_too_much(log, alone || self.observer.is_some());
        let bounds = log.bounds();
        let checkpointed = checkpoint.map_or(0, |checkpoint| checkpoint.raft_index);
        let known = checkpointed.max(since);
        if known > bounds.last_raft_index {
            return Err(Refused::Shortened { last: bounds.last_raft_index, known });
        }
        // What the only voter has stored durably is committed, by definition; otherwise only what
        // is known to be.
        let floor = known.max(bounds.first_raft_index - 1);
        let limit = if alone { bounds.last_raft_index } else { floor };
        let machine = self.replay(log, checkpoint, floor, limit)?;
        let committed = proven(log, machine.applied)?;
        let storage = LogStorage::new(log.clone(), vote, history, committed);
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = RawNode::new(&self.raft_config(machine.applied), storage, &logger)?;
        let mut upkeep = Upkeep::new(self.policy, checkpointed, log.active_segment_raft_index());
        if machine.start_offset > bounds.start_offset {
            upkeep.trimmed();
        }
        let progress = Progress {
            start_offset: machine.start_offset,
            committed_offset: machine.committed_offset,
            ended: false,
        };
        let shared = Shared::new(self.id.clone(), self.group, Some(log.clone()), progress, None);
        shared.health().term = vote.term;
        let mut group = Group {
            shared: Arc::new(shared),
            dir: self.dir.clone(),
            node,
            machine,
            observer: self.observer.take(),
            upkeep,
            vote,
            sequencer: None,
            waiters: Waiters::default(),
            reads: Reads::new(self.fs.random()),
            persist: Persist::default(),
            outbox: Default::default(),
            installing: None,
            course: Course::default(),
            rest: Rest::default(),
            losses: Losses::default(),
            telling: Telling::default(),
            told_others: false,
            opened: None,
            ending: None,
            stopped: false,
        };
        group.publish_membership();
        if let Some(target) = self.target.take() {
            group.set_target(target);
        }
        Ok(group)
    }

    /// Who belongs to the group as of the newest entry that is known to be committed.
    fn read_members(&self) -> Result<History, Refused> {
        let path = members_file::path(&self.dir);
        let refused = |message| Refused::File { path: path.clone(), message };
        let failed = |error| Refused::Failed { path: path.clone(), error };
        match members_file::read(&*self.fs, &self.dir).map_err(failed)? {
            StoredHistory::None => Ok(History::since(0, Membership::of(self.initial.clone()))),
            StoredHistory::History(history) => Ok(history),
            StoredHistory::Damaged => Err(refused(
                "it is damaged; this replica does not know whose votes count".to_owned(),
            )),
        }
    }

    /// The newest term and vote. A vote that cannot be read matters only if there are others who
    /// count on it.
    fn read_vote(&self, log: &Log, alone: bool) -> Result<Vote, Refused> {
        let path = vote_file::path(&self.dir);
        let refused = |message| Refused::File { path: path.clone(), message };
        let stored = vote_file::read(&*self.fs, &self.dir);
        let failed = |error| Refused::Failed { path: path.clone(), error };
        let stored = stored.map_err(failed)?;
        let last_term = log.bounds().last_term;
        match stored {
            StoredVote::Vote(vote) if vote.term >= last_term => Ok(vote),
            StoredVote::None if last_term == 0 => Ok(Vote::default()),
            _ if alone => {
                tracing::warn!(partition = %self.id, "the vote file is bad or missing; made anew");
                Ok(Vote { term: last_term, voted_for: 0 })
            }
            _ => Err(refused(
                "the vote is bad, missing or older than the log; this replica might vote twice"
                    .to_owned(),
            )),
        }
    }

    /// The state after the entry at `limit`: from the checkpoint on if its state can be read, else
    /// from the beginning of the log. Behind `floor` it stops before a change of membership, which
    /// is Raft's to carry out.
    fn replay(
        &mut self,
        log: &Log,
        checkpoint: Option<&Checkpoint>,
        floor: u64,
        limit: u64,
    ) -> Result<StateMachine, Refused> {
        let bounds = log.bounds();
        let whole = self.observer.is_some();
        let from_checkpoint = checkpoint.filter(|_| !whole).and_then(StateMachine::from_checkpoint);
        let mut machine = match from_checkpoint {
            Some(machine) if machine.applied + 1 >= bounds.first_raft_index => machine,
            _ => {
                // Where the log begins, not where it ends: what it has may not be committed.
                let start = log.start();
                let (raft_index, offset) = (start.raft_index, start.base_offset);
                let start_offset = bounds.start_offset.max(offset);
                let mut machine = StateMachine::new(raft_index, start_offset, offset);
                machine.last_timestamp_ms = start.timestamp_ms;
                machine
            }
        };
        while machine.applied < limit {
            for frame in log.frames(machine.applied + 1, limit + 1, REPLAY_BYTES)? {
                if frame.kind == Kind::Membership && frame.raft_index > floor {
                    return Ok(machine);
                }
                machine.apply(&frame)?;
                if let (Some(observer), Kind::Batch) = (&mut self.observer, frame.kind) {
                    observer.applied(&frame).map_err(Refused::Observer)?;
                }
            }
        }
        Ok(machine)
    }

    /// What is not yet committed has no limit of its own: the permits of appends bound it.
    fn raft_config(&self, applied: u64) -> Config {
        Config {
            id: self.replica,
            applied,
            election_tick: ELECTION_TICKS,
            heartbeat_tick: HEARTBEAT_TICKS,
            check_quorum: true,
            pre_vote: true,
            batch_append: true,
            // See `telling`.
            skip_bcast_commit: true,
            max_size_per_msg: MESSAGE_BYTES_MAX,
            max_inflight_msgs: MESSAGES_IN_FLIGHT_MAX,
            max_committed_size_per_ready: COMMITTED_BYTES_MAX,
            ..Config::default()
        }
    }
}

/// As far as the entries behind `applied` prove themselves committed: to the last change of
/// membership but one, because a leader proposes a change only once it has carried out the one
/// before.
///
/// Who does not know that goes by a membership that may be over for long. Others who do the same
/// could be a majority of that and elect it, although those who decide now have gone on.
fn proven(log: &Log, applied: u64) -> Result<u64, ReadError> {
    let last = log.bounds().last_raft_index;
    let (mut read, mut change, mut proven) = (applied, applied, applied);
    while read < last {
        for frame in log.frames(read + 1, last + 1, REPLAY_BYTES)? {
            read = frame.raft_index;
            if frame.kind == Kind::Membership {
                (proven, change) = (change, read);
            }
        }
    }
    Ok(proven)
}
