//! Replicas that no longer have what they acknowledged.
//!
//! A disk that forgets, a file that was cut, an older copy that was put back: the replica starts
//! with a log that looks sound and is too short. It must not count as the one it was, because what
//! it acknowledged may have been committed by that; it is given up, and another takes its place.
//!
//! Two see it. The replica itself: its leader's heartbeat names as committed, and as had by this
//! replica, what it does not have. And the leader: the replica refuses an append for lack of an
//! entry that it acknowledged in this very term, and does so again and again, for a single refusal
//! may have been on its way since before.

use std::collections::HashMap;

use raft::{Raft, StateRole};

use super::group::Group;
use super::storage::LogStorage;
use super::transport::{PeerMessage, PeerMessageKind};

/// How many refusals, each in a tick of its own, are proof.
const REFUSALS: u32 = 3;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// By replica: what it had acknowledged, the tick of its last refusal, and how many there were.
    refusals: HashMap<u64, Refusals>,
    ticks: u64,
}

#[derive(Clone, Copy, Debug)]
struct Refusals {
    matched: u64,
    tick: u64,
    count: u32,
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

    /// Takes note if the message shows that a follower lost something.
    pub(super) fn look_at_peer(&mut self, raft: &Raft<LogStorage>, message: &PeerMessage) {
        let refusal = message.kind() == PeerMessageKind::AppendResponse && message.reject;
        if raft.state != StateRole::Leader || message.term != raft.term || !refusal {
            return;
        }
        let Some(matched) = raft.prs().get(message.from).map(|progress| progress.matched) else {
            return;
        };
        if message.reject_hint >= matched {
            return;
        }
        let now = Refusals { matched, tick: self.ticks, count: 1 };
        let known = self.refusals.entry(message.from).or_insert(now);
        if known.matched != matched {
            *known = now;
        } else if known.tick != self.ticks {
            known.tick = self.ticks;
            known.count += 1;
        }
    }

    /// Nothing speaks for a loss.
    pub(super) fn is_empty(&self) -> bool {
        self.refusals.is_empty()
    }

    fn lost(&self) -> Vec<u64> {
        let proven = self.refusals.iter().filter(|(_, refusals)| refusals.count >= REFUSALS);
        let mut lost: Vec<u64> = proven.map(|(replica, _)| *replica).collect();
        lost.sort_unstable();
        lost
    }
}

impl Group {
    /// Some time passed: what was found out is told to the rest of the node.
    pub(super) fn losses_tick(&mut self) {
        self.losses.ticks += 1;
        if self.node.raft.state != StateRole::Leader {
            self.losses.refusals.clear();
        }
        let lost = self.losses.lost();
        let mut health = self.shared.health();
        if health.lost != lost {
            health.lost = lost;
            drop(health);
            self.told_others = false;
        }
    }
}
