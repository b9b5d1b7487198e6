//! Replicas that no longer have what they acknowledged.
//!
//! A disk that forgets, a file that was cut, an older copy that was put back: the replica starts
//! with a log that looks sound and is too short. It must not count as the one it was, because what
//! it acknowledged may have been committed by that; it is given up, and another takes its place.
//!
//! Two see it. The replica itself: its leader's heartbeat names as committed, and as had by this
//! replica, what it does not have. And the leader: a replica's answer to a heartbeat says where its
//! log ends, and that is before what it had acknowledged when the heartbeat was sent. Nothing that
//! was on its way shows that, however late it comes or how often.

use std::collections::{BTreeSet, HashMap};

use raft::{Raft, StateRole};

use super::group::Group;
use super::storage::LogStorage;
use super::transport::{PeerMessage, PeerMessageKind};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// The time of this replica, in ticks; never 0 when something is sent.
    ticks: u64,
    /// Of the leader of this term: the newest time that its heartbeats have shown.
    heard: (u64, u64),
    /// What other replicas have acknowledged to this one in this term.
    acknowledged: HashMap<u64, Acknowledged>,
    term: u64,
    lost: BTreeSet<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Acknowledged {
    raft_index: u64,
    /// When that was known.
    tick: u64,
}

impl Losses {
    /// What this replica lost, if the message shows that it did.
    pub(super) fn found_here(
        &self,
        raft: &Raft<LogStorage>,
        message: &PeerMessage,
    ) -> Option<String> {
        let last = raft.raft_log.last_index();
        let heartbeat = message.kind() == PeerMessageKind::Heartbeat && message.term >= raft.term;
        (heartbeat && message.commit > last).then(|| {
            format!("the log ends at entry {last}, but this replica had {} once", message.commit)
        })
    }

    /// Takes note of a leader's time, and of what a follower no longer has.
    pub(super) fn notice(&mut self, raft: &Raft<LogStorage>, message: &PeerMessage) {
        match message.kind() {
            PeerMessageKind::Heartbeat => {
                self.heard = self.heard.max((message.term, message.leader_ticks));
            }
            PeerMessageKind::HeartbeatResponse
                if raft.state == StateRole::Leader && message.term == raft.term =>
            {
                self.compare(raft, message);
            }
            _ => {}
        }
    }

    fn compare(&mut self, raft: &Raft<LogStorage>, answer: &PeerMessage) {
        if self.term != raft.term {
            self.term = raft.term;
            self.acknowledged.clear();
            self.lost.clear();
        }
        let Some(progress) = raft.prs().get(answer.from) else { return };
        let now = Acknowledged { raft_index: progress.matched, tick: self.ticks };
        let known = self.acknowledged.entry(answer.from).or_insert(now);
        if answer.leader_ticks <= known.tick {
            // It says nothing of what was acknowledged since.
            return;
        }
        if answer.last_raft_index < known.raft_index {
            self.lost.insert(answer.from);
        } else {
            *known = now;
        }
    }

    /// Puts the time into a heartbeat, and into the answer to one the time that was heard and where
    /// the log ends.
    pub(super) fn stamp(&self, raft: &Raft<LogStorage>, message: &mut PeerMessage) {
        match message.kind() {
            PeerMessageKind::Heartbeat => message.leader_ticks = self.ticks,
            PeerMessageKind::HeartbeatResponse if self.heard.0 == message.term => {
                message.leader_ticks = self.heard.1;
                message.last_raft_index = raft.raft_log.last_index();
            }
            _ => {}
        }
    }

    /// Nothing speaks for a loss.
    pub(super) fn is_empty(&self) -> bool {
        self.lost.is_empty()
    }
}

impl Group {
    /// Some time passed: what was found out is told to the rest of the node.
    pub(super) fn losses_tick(&mut self) {
        self.losses.ticks += 1;
        let raft = &self.node.raft;
        let is_member =
            |replica: &u64| raft.state == StateRole::Leader && raft.prs().get(*replica).is_some();
        self.losses.acknowledged.retain(|replica, _| is_member(replica));
        self.losses.lost.retain(is_member);
        let lost: Vec<u64> = self.losses.lost.iter().copied().collect();
        let mut health = self.shared.health();
        if health.lost != lost {
            health.lost = lost;
            drop(health);
            self.told_others = false;
        }
    }
}
