//! The seam to the other nodes: Raft messages in our own types.
//!
//! The types of the `raft` crate never leave this crate: their decoder must not see bytes from the
//! network. A [`PeerMessage`] is what travels, encoded as Protocol Buffers. Messages may be lost,
//! doubled and reordered; Raft does not mind.
//!
//! Two twins: the router of `crate::peers`, and in the tests a hub that connects drivers in one
//! process.
//!
//! Left out: forwarded proposals (a follower refuses instead).

use super::pulse::Pulse;
use bytes::Bytes;
use prost::{Enumeration, Message as Wire};
use raft::eraftpb::{ConfState, Entry, EntryType, Message, MessageType, Snapshot};

/// Takes messages to other nodes. Does not block and does not fail: what cannot be sent is dropped.
pub(crate) trait Transport: Send {
    /// Takes a message to the replica `message.to`.
    fn send(&mut self, message: PeerMessage);

    /// Takes a pulse to a node.
    fn pulse(&mut self, node: u64, pulse: Pulse);

    /// The node that a replica is on, if that is known.
    fn node_of(&self, replica: u64) -> Option<u64>;

    /// Sends off what was taken: the driver's turn is over.
    fn flush(&mut self);
}

/// One Raft message of one group, from replica to replica.
#[derive(Clone, PartialEq, Eq, Wire)]
pub(crate) struct PeerMessage {
    #[prost(uint64, tag = "1")]
    pub(crate) group: u64,
    #[prost(enumeration = "PeerMessageKind", tag = "2")]
    pub(crate) kind: i32,
    #[prost(uint64, tag = "3")]
    pub(crate) from: u64,
    #[prost(uint64, tag = "4")]
    pub(crate) to: u64,
    #[prost(uint64, tag = "5")]
    pub(crate) term: u64,
    #[prost(uint64, tag = "6")]
    pub(crate) log_term: u64,
    #[prost(uint64, tag = "7")]
    pub(crate) raft_index: u64,
    #[prost(message, repeated, tag = "8")]
    pub(crate) entries: Vec<PeerEntry>,
    #[prost(uint64, tag = "9")]
    pub(crate) commit: u64,
    #[prost(uint64, tag = "10")]
    pub(crate) commit_term: u64,
    #[prost(bool, tag = "11")]
    pub(crate) reject: bool,
    #[prost(uint64, tag = "12")]
    pub(crate) reject_hint: u64,
    #[prost(bytes = "bytes", tag = "13")]
    pub(crate) context: Bytes,
    #[prost(sint64, tag = "14")]
    pub(crate) priority: i64,
    #[prost(message, optional, tag = "15")]
    pub(crate) snapshot: Option<PeerSnapshot>,
    #[prost(uint64, tag = "16")]
    pub(crate) request_snapshot: u64,
    /// In a heartbeat, the leader's time; in the answer, the newest that was heard. 0 if not said.
    #[prost(uint64, tag = "17")]
    pub(crate) leader_ticks: u64,
    /// In the answer to a heartbeat, where the log ends.
    #[prost(uint64, tag = "18")]
    pub(crate) last_raft_index: u64,
}

/// One entry in a message.
#[derive(Clone, PartialEq, Eq, Wire)]
pub(crate) struct PeerEntry {
    #[prost(uint64, tag = "1")]
    pub(crate) term: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) raft_index: u64,
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) context: Bytes,
    #[prost(bytes = "bytes", tag = "4")]
    pub(crate) data: Bytes,
    /// It changes the membership.
    #[prost(bool, tag = "5")]
    pub(crate) membership: bool,
}

/// Where a log starts: all that a replica needs whose peers no longer have what it lacks.
#[derive(Clone, PartialEq, Eq, Wire)]
pub(crate) struct PeerSnapshot {
    #[prost(uint64, tag = "1")]
    pub(crate) raft_index: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) term: u64,
    #[prost(message, required, tag = "3")]
    pub(crate) membership: Membership,
    #[prost(bytes = "bytes", tag = "4")]
    pub(crate) start: Bytes,
}

/// Who belongs to a group at one position of its log; while it changes from one set of voters to
/// another both count, and majorities of both are needed.
#[derive(Clone, PartialEq, Eq, Wire)]
pub(crate) struct Membership {
    #[prost(uint64, repeated, tag = "1")]
    pub(crate) voters: Vec<u64>,
    #[prost(uint64, repeated, tag = "2")]
    pub(crate) learners: Vec<u64>,
    #[prost(uint64, repeated, tag = "3")]
    pub(crate) voters_outgoing: Vec<u64>,
    #[prost(uint64, repeated, tag = "4")]
    pub(crate) learners_next: Vec<u64>,
    #[prost(bool, tag = "5")]
    pub(crate) auto_leave: bool,
}

/// What a message is for; the names are Raft's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub(crate) enum PeerMessageKind {
    Unknown = 0,
    Append = 1,
    AppendResponse = 2,
    RequestVote = 3,
    RequestVoteResponse = 4,
    RequestPreVote = 5,
    RequestPreVoteResponse = 6,
    Heartbeat = 7,
    HeartbeatResponse = 8,
    TimeoutNow = 9,
    ReadIndex = 10,
    ReadIndexResponse = 11,
    Snapshot = 12,
}

/// Both names of every kind that travels.
const KINDS: [(PeerMessageKind, MessageType); 12] = [
    (PeerMessageKind::Append, MessageType::MsgAppend),
    (PeerMessageKind::AppendResponse, MessageType::MsgAppendResponse),
    (PeerMessageKind::RequestVote, MessageType::MsgRequestVote),
    (PeerMessageKind::RequestVoteResponse, MessageType::MsgRequestVoteResponse),
    (PeerMessageKind::RequestPreVote, MessageType::MsgRequestPreVote),
    (PeerMessageKind::RequestPreVoteResponse, MessageType::MsgRequestPreVoteResponse),
    (PeerMessageKind::Heartbeat, MessageType::MsgHeartbeat),
    (PeerMessageKind::HeartbeatResponse, MessageType::MsgHeartbeatResponse),
    (PeerMessageKind::TimeoutNow, MessageType::MsgTimeoutNow),
    (PeerMessageKind::ReadIndex, MessageType::MsgReadIndex),
    (PeerMessageKind::ReadIndexResponse, MessageType::MsgReadIndexResp),
    (PeerMessageKind::Snapshot, MessageType::MsgSnapshot),
];

impl PeerMessage {
    /// The message in our types; `None` if it is of a kind that does not leave the node.
    pub(super) fn from_raft(group: u64, message: Message) -> Option<PeerMessage> {
        let (kind, _) = KINDS.into_iter().find(|(_, theirs)| *theirs == message.msg_type)?;
        // In a read's messages the context travels as the data of an entry.
        let entries = message.entries.into_iter().map(|entry| PeerEntry {
            term: entry.term,
            raft_index: entry.index,
            context: entry.context,
            data: entry.data,
            membership: entry.entry_type != EntryType::EntryNormal,
        });
        let snapshot = message.snapshot.into_option().map(PeerSnapshot::from_raft);
        Some(PeerMessage {
            group,
            kind: kind.into(),
            from: message.from,
            to: message.to,
            term: message.term,
            log_term: message.log_term,
            raft_index: message.index,
            entries: entries.collect(),
            commit: message.commit,
            commit_term: message.commit_term,
            reject: message.reject,
            reject_hint: message.reject_hint,
            context: message.context,
            priority: message.priority,
            snapshot: snapshot.filter(|_| kind == PeerMessageKind::Snapshot),
            request_snapshot: message.request_snapshot,
            leader_ticks: 0,
            last_raft_index: 0,
        })
    }

    /// The message in Raft's types; `None` if it is of a kind that is not known here, or not what
    /// it says.
    pub(super) fn into_raft(self) -> Option<Message> {
        let (_, msg_type) = KINDS.into_iter().find(|(ours, _)| *ours == self.kind())?;
        let is_snapshot = msg_type == MessageType::MsgSnapshot;
        let is_append = msg_type == MessageType::MsgAppend;
        if is_snapshot != self.snapshot.is_some() || is_append && !self.entries_follow() {
            return None;
        }
        let entries: Vec<Entry> = self.entries.into_iter().map(PeerEntry::into_raft).collect();
        Some(Message {
            msg_type,
            from: self.from,
            to: self.to,
            term: self.term,
            log_term: self.log_term,
            index: self.raft_index,
            entries: entries.into(),
            commit: self.commit,
            commit_term: self.commit_term,
            reject: self.reject,
            reject_hint: self.reject_hint,
            context: self.context,
            priority: self.priority,
            snapshot: self.snapshot.map(PeerSnapshot::into_raft).into(),
            request_snapshot: self.request_snapshot,
            ..Message::default()
        })
    }

    /// Whether its entries follow the position it is about. raft 0.7.0 sends others: joining
    /// messages to one peer, it puts entries into one without entries that is about another
    /// position. Whoever took that would acknowledge entries that it does not have.
    fn entries_follow(&self) -> bool {
        let mut at = self.raft_index;
        self.entries.iter().all(|entry| {
            let follows = Some(entry.raft_index) == at.checked_add(1);
            at = entry.raft_index;
            follows
        })
    }

    /// As messages of at most so many bytes of entries, or one entry. Raft joins what it sends one
    /// peer in a turn, and so exceeds the size that it was told, and what may travel at once.
    pub(super) fn split(mut self, bytes_max: u64) -> Vec<PeerMessage> {
        let mut parts = Vec::new();
        while let Some(at) = self.first_beyond(bytes_max) {
            let rest = self.entries.split_off(at);
            let entries = std::mem::take(&mut self.entries);
            let last = entries.last().expect("one at least is not beyond");
            let (log_term, raft_index) = (last.term, last.raft_index);
            let head = self.clone();
            parts.push(PeerMessage { entries, ..head });
            self = PeerMessage { log_term, raft_index, entries: rest, ..self };
        }
        parts.push(self);
        parts
    }

    /// Where its entries exceed a size, but not the first.
    fn first_beyond(&self, bytes_max: u64) -> Option<usize> {
        let mut bytes = 0;
        let beyond = self.entries.iter().position(|entry| {
            bytes += entry.data.len() as u64;
            bytes > bytes_max
        });
        let at = beyond?.max(1);
        (at < self.entries.len()).then_some(at)
    }

    /// What it weighs while it waits to be sent.
    pub(crate) fn bytes(&self) -> usize {
        let entries: usize = self.entries.iter().map(|entry| entry.data.len()).sum();
        entries + std::mem::size_of::<PeerMessage>()
    }
}

impl PeerEntry {
    fn into_raft(self) -> Entry {
        let entry_type = match self.membership {
            true => EntryType::EntryConfChangeV2,
            false => EntryType::EntryNormal,
        };
        Entry {
            entry_type,
            term: self.term,
            index: self.raft_index,
            context: self.context,
            data: self.data,
            ..Entry::default()
        }
    }
}

impl PeerSnapshot {
    fn from_raft(mut snapshot: Snapshot) -> PeerSnapshot {
        let metadata = snapshot.take_metadata();
        PeerSnapshot {
            raft_index: metadata.index,
            term: metadata.term,
            membership: Membership::from_raft(metadata.get_conf_state()),
            start: snapshot.data,
        }
    }

    fn into_raft(self) -> Snapshot {
        let mut snapshot = Snapshot { data: self.start, ..Snapshot::default() };
        let metadata = snapshot.mut_metadata();
        metadata.index = self.raft_index;
        metadata.term = self.term;
        metadata.set_conf_state(self.membership.to_raft());
        snapshot
    }
}

impl Membership {
    /// That of a group of these voters.
    pub(crate) fn of(voters: Vec<u64>) -> Membership {
        Membership { voters, ..Membership::default() }
    }

    pub(super) fn from_raft(state: &ConfState) -> Membership {
        Membership {
            voters: state.voters.clone(),
            learners: state.learners.clone(),
            voters_outgoing: state.voters_outgoing.clone(),
            learners_next: state.learners_next.clone(),
            auto_leave: state.auto_leave,
        }
    }

    pub(super) fn to_raft(&self) -> ConfState {
        ConfState {
            voters: self.voters.clone(),
            learners: self.learners.clone(),
            voters_outgoing: self.voters_outgoing.clone(),
            learners_next: self.learners_next.clone(),
            auto_leave: self.auto_leave,
            ..ConfState::default()
        }
    }

    /// Those whose votes count.
    pub(crate) fn deciders(&self) -> impl Iterator<Item = u64> + '_ {
        self.voters.iter().chain(&self.voters_outgoing).copied()
    }

    /// Whether nobody decides in another that does not here.
    pub(crate) fn has_deciders_of(&self, other: &Membership) -> bool {
        other.deciders().all(|voter| self.deciders().any(|mine| mine == voter))
    }

    /// Everyone who belongs to it in some way.
    pub(crate) fn replicas(&self) -> impl Iterator<Item = u64> + '_ {
        let Membership { voters, learners, voters_outgoing, learners_next, .. } = self;
        [voters, learners, voters_outgoing, learners_next].into_iter().flatten().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_message_is_split_and_says_the_same() {
        let entry = |raft_index, bytes| PeerEntry {
            term: raft_index / 3,
            raft_index,
            data: Bytes::from(vec![0; bytes]),
            ..PeerEntry::default()
        };
        let sizes = [10, 90, 1, 500, 500, 20, 20];
        let entries: Vec<PeerEntry> =
            (8..).zip(sizes).map(|(raft_index, bytes)| entry(raft_index, bytes)).collect();
        let message = PeerMessage {
            kind: PeerMessageKind::Append.into(),
            log_term: 2,
            raft_index: 7,
            commit: 9,
            entries: entries.clone(),
            ..PeerMessage::default()
        };
        let parts = message.clone().split(100);
        let counts: Vec<usize> = parts.iter().map(|part| part.entries.len()).collect();
        assert_eq!(counts, [2, 1, 1, 1, 2]);
        for part in &parts {
            assert_eq!((part.commit, part.kind), (message.commit, message.kind));
            assert_eq!(part.log_term, part.raft_index / 3);
            assert!(part.clone().into_raft().is_some());
        }
        let joined: Vec<PeerEntry> = parts.into_iter().flat_map(|part| part.entries).collect();
        assert_eq!(joined, entries);
        assert_eq!(PeerMessage::default().split(100), [PeerMessage::default()]);
    }

    #[test]
    fn entries_that_do_not_follow_are_refused() {
        let append = |raft_index, entries: &[u64]| PeerMessage {
            kind: PeerMessageKind::Append.into(),
            raft_index,
            entries: entries
                .iter()
                .map(|raft_index| PeerEntry { raft_index: *raft_index, ..PeerEntry::default() })
                .collect(),
            ..PeerMessage::default()
        };
        for (raft_index, entries) in [(29, &[][..]), (29, &[30]), (0, &[1, 2, 3])] {
            assert!(append(raft_index, entries).into_raft().is_some(), "{raft_index} {entries:?}");
        }
        for (raft_index, entries) in [(29, &[29][..]), (29, &[31]), (0, &[1, 3]), (u64::MAX, &[0])]
        {
            assert!(append(raft_index, entries).into_raft().is_none(), "{raft_index} {entries:?}");
        }
    }
}
