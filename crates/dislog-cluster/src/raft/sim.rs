//! For the simulator: what it looks at, and the bugs that it puts back ([`Bug`]). Each of them
//! stands here; where it belongs there is only a call, which no build without the feature `sim`
//! has.

use dislog_log::Log;
use raft::StateRole;
use raft::eraftpb::{Message, MessageType};

use super::group::Group;
use super::rim::Rim;
use super::transport::{PeerMessage, PeerMessageKind};
use crate::partition::sequencer::Sequencer;
use crate::sim::{Bug, Replica, is_back};

impl Group {
    pub(super) fn replica(&self) -> Replica {
        let raft = &self.node.raft;
        let (_, membership) = self.node.store().history().newest();
        Replica {
            group: self.number(),
            partition: self.shared.id.clone(),
            replica: raft.id,
            term: raft.term,
            leads: raft.state == StateRole::Leader && !self.stopped,
            serves: self.sequencer.is_some(),
            committed: raft.raft_log.committed,
            applied: self.machine.applied,
            start_offset: self.machine.start_offset,
            committed_offset: self.machine.committed_offset,
            voters: membership.voters.clone(),
            voters_outgoing: membership.voters_outgoing.clone(),
            learners: membership.learners.clone(),
            rests: !self.is_awake(),
            stopped: self.stopped,
            installing: self.installing.is_some(),
            log: self.shared.log.clone(),
        }
    }

    /// Sends some of the messages that should wait for a sync; returns those that do.
    pub(super) fn send_too_early(&self, later: Vec<Message>, rim: &mut Rim) -> Vec<Message> {
        let early = |message: &Message| match message.get_msg_type() {
            MessageType::MsgRequestVote | MessageType::MsgRequestVoteResponse => {
                is_back(Bug::NoSyncBeforeVote)
            }
            MessageType::MsgAppendResponse => is_back(Bug::NoSyncBeforeAcknowledgement),
            _ => false,
        };
        let (now, later) = later.into_iter().partition(early);
        self.send(now, rim);
        later
    }

    /// Tells Raft that something is durable which is not.
    pub(super) fn persist_too_early(&mut self, ready: u64) {
        if is_back(Bug::NoSyncBeforeAcknowledgement) {
            self.node.on_persist_ready(ready);
        }
    }

    /// Takes what a learner says for the words of a voter.
    pub(super) fn count_learner(&mut self, message: &PeerMessage) {
        let (_, membership) = self.node.store().history().newest();
        let accepts = message.kind() == PeerMessageKind::AppendResponse && !message.reject;
        if !is_back(Bug::LearnerCounts) || !accepts || !membership.learners.contains(&message.from)
        {
            return;
        }
        let me = self.node.raft.id;
        let Some(&voter) = membership.voters.iter().find(|voter| **voter != me) else { return };
        let message = PeerMessage { from: voter, ..message.clone() };
        let _ = message.into_raft().map(|message| self.node.step(message));
    }

    /// Takes appends without knowing what was committed before.
    pub(super) fn serve_too_early(&mut self) {
        let serves = self.sequencer.is_some() || self.stopped || !self.has_peers();
        if !is_back(Bug::ServesTooEarly) || serves {
            return;
        }
        let end = self.node.store().end();
        let producers = self.machine.producers.clone();
        self.sequencer = Some(Sequencer::new(end.offset, end.timestamp_ms, producers));
        self.shared.health().serving = true;
    }
}

/// Cuts off the last entries of a log that is being opened, if nothing else could tell: of one
/// alone, or with newer checkpoints, the product notices by itself and stops.
pub(super) fn truncate_too_much(log: &Log, is_known: bool) {
    let bounds = log.bounds();
    let from = bounds.last_raft_index.saturating_sub(2).max(bounds.first_raft_index);
    if is_back(Bug::TruncatesBelowCommit) && !is_known && from <= bounds.last_raft_index {
        let _ = log.truncate(from);
    }
}
