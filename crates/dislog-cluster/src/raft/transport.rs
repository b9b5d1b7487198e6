//! The seam to the other nodes: Raft messages in our own types.
//!
//! The types of the `raft` crate never leave this crate: their decoder must not see bytes from the
//! network. What carries a [`PeerMessage`] encodes it in a form of its own. Messages may be lost,
//! doubled and reordered; Raft does not mind.
//!
//! Two twins: [`Alone`], for a node without peers, and in the tests a hub that connects drivers in
//! one process.
//!
//! Left out: snapshots, and forwarded proposals (a follower refuses instead).

use bytes::Bytes;
use raft::eraftpb::{Entry, Message, MessageType};

/// Takes messages to other nodes. Does not block and does not fail: what cannot be sent is dropped.
pub(crate) trait Transport: Send {
    /// Sends a message to the node `message.to`.
    fn send(&self, message: PeerMessage);
}

/// A node without peers: there is nobody to send to.
#[derive(Debug)]
pub(crate) struct Alone;

impl Transport for Alone {
    fn send(&self, message: PeerMessage) {
        tracing::warn!(group = message.group, to = message.to, "no way to reach a peer");
    }
}

/// One Raft message of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeerMessage {
    pub(crate) group: u64,
    pub(crate) kind: PeerMessageKind,
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) term: u64,
    pub(crate) log_term: u64,
    pub(crate) raft_index: u64,
    pub(crate) entries: Vec<PeerEntry>,
    pub(crate) commit: u64,
    pub(crate) commit_term: u64,
    pub(crate) reject: bool,
    pub(crate) reject_hint: u64,
    pub(crate) context: Bytes,
    pub(crate) priority: i64,
}

/// One entry in a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeerEntry {
    pub(crate) term: u64,
    pub(crate) raft_index: u64,
    pub(crate) context: Bytes,
    pub(crate) data: Bytes,
}

/// What a message is for; the names are Raft's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeerMessageKind {
    Append,
    AppendResponse,
    RequestVote,
    RequestVoteResponse,
    RequestPreVote,
    RequestPreVoteResponse,
    Heartbeat,
    HeartbeatResponse,
    TimeoutNow,
    ReadIndex,
    ReadIndexResponse,
}

/// Both names of every kind.
const KINDS: [(PeerMessageKind, MessageType); 11] = [
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
];

impl PeerMessage {
    /// The message in our types; `None` if it is of a kind that does not leave the node.
    pub(super) fn from_raft(group: u64, message: Message) -> Option<PeerMessage> {
        let (kind, _) = KINDS.into_iter().find(|(_, theirs)| *theirs == message.msg_type)?;
        let entries = message.entries.into_iter().map(|entry| PeerEntry {
            term: entry.term,
            raft_index: entry.index,
            context: entry.context,
            data: entry.data,
        });
        Some(PeerMessage {
            group,
            kind,
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
        })
    }

    /// The message in Raft's types.
    pub(super) fn into_raft(self) -> Message {
        let kind = KINDS.into_iter().find(|(ours, _)| *ours == self.kind);
        let entries: Vec<Entry> = self
            .entries
            .into_iter()
            .map(|entry| Entry {
                term: entry.term,
                index: entry.raft_index,
                context: entry.context,
                data: entry.data,
                ..Entry::default()
            })
            .collect();
        Message {
            msg_type: kind.expect("every kind has two names").1,
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
            ..Message::default()
        }
    }
}
