//! Rest: a group in which nothing happens is not told of the passing of time.
//!
//! A leader lets its group rest once nothing has been under way for a while and a majority, all
//! those in contact with its node, have everything. It is *offered* to their nodes, and *sleeps*
//! when they have agreed; a follower whose replica is where the leader says is *covered* by the
//! leader's node. Neither ticks: their nodes say for them that they are there
//! ([`pulse`](super::pulse)).
//!
//! Rest is a claim about a state, and ends with the state: before and after each input it is looked
//! whether everything is as it was. So nothing that happens to a group has to think of waking it.
//!
//! What rests is as an active group is between two heartbeats: a covered follower has just heard
//! its leader, and grants nobody a vote; a leader that sleeps has a majority that just answered.
//! What needs more than that, as an append or a linearizable read does, takes messages, as always,
//! and ends the rest.

use std::ops::Range;

use raft::{INVALID_ID, ProgressState, StateRole};
use rand::RngExt;
use rand::rngs::StdRng;

use super::group::Group;
use super::open::ELECTION_TICKS;
use super::pulse::Position;
use super::transport::{PeerMessage, PeerMessageKind};

/// Ticks in which nothing happened, after which a group is to rest.
const QUIET_TICKS: u32 = 10;

/// Ticks until a group is offered again that did not come to rest, or was refused.
const AGAIN_TICKS: u32 = 50;

/// How a group stands to the passing of time.
#[derive(Debug, Default)]
pub(super) struct Rest {
    state: State,
    /// Ticks in a row in which it could have rested.
    quiet_ticks: u32,
    /// Ticks until it may be offered again.
    wait_ticks: u32,
    /// A peer sees it otherwise.
    disturbed: bool,
    woke: Option<Woke>,
    /// It has campaigned since there was a leader.
    campaigned: bool,
}

#[derive(Debug, Default)]
enum State {
    /// It ticks.
    #[default]
    Awake,
    /// It leads and ticks, and would sleep.
    Offered(Resting),
    /// It leads.
    Asleep(Resting),
    /// It follows, and this node speaks for its leader.
    Covered { node: u64, leader: u64, term: u64 },
}

/// - `with` and `without` are all other replicas.
#[derive(Debug)]
struct Resting {
    position: Position,
    /// Those that rest with it.
    with: Vec<u64>,
    /// Those on nodes out of contact.
    without: Vec<u64>,
}

/// A rest that ended, which other nodes don't know yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Woke {
    /// It was led here.
    Leader,
    /// This node spoke for its leader.
    Follower(u64),
}

impl Group {
    /// Whether it is to be told of the passing of time.
    pub(super) fn wants_ticks(&self) -> bool {
        let rests = matches!(self.rest.state, State::Asleep(_) | State::Covered { .. });
        let is_driven = !self.stopped && self.installing.is_none();
        // One alone leads at once, unless it becomes so by what its own log says.
        let is_led = self.leader() != INVALID_ID;
        let has_use = self.has_peers() || !is_led || !self.is_on_target();
        is_driven && has_use && (!rests || !self.reads.is_empty())
    }

    /// Whether time passes for Raft.
    pub(super) fn is_awake(&self) -> bool {
        matches!(self.rest.state, State::Awake | State::Offered(_))
    }

    /// A tick passed; whether the group should be offered.
    pub(super) fn rest_tick(&mut self) -> bool {
        let is_quiet = matches!(self.rest.state, State::Awake) && self.leads_quietly();
        self.rest.quiet_ticks = if is_quiet { self.rest.quiet_ticks + 1 } else { 0 };
        self.rest.wait_ticks = self.rest.wait_ticks.saturating_sub(1);
        self.rest.quiet_ticks >= QUIET_TICKS && self.rest.wait_ticks == 0
    }

    /// All other replicas.
    pub(super) fn others(&self) -> Vec<u64> {
        let (_, membership) = self.node.store().history().newest();
        let mut others: Vec<u64> = membership.replicas().collect();
        others.sort_unstable();
        others.dedup();
        others.retain(|replica| *replica != self.node.raft.id);
        others
    }

    /// Offers to rest with those `others` that are in contact; where it is then, if it can.
    pub(super) fn offer_rest(&mut self, is_in_contact: impl Fn(u64) -> bool) -> Option<Position> {
        self.rest.quiet_ticks = 0;
        let (with, without): (Vec<u64>, Vec<u64>) =
            self.others().into_iter().partition(|replica| is_in_contact(*replica));
        let raft = &self.node.raft;
        let last = raft.raft_log.last_index();
        let has_all = |replica: &u64| {
            raft.prs().get(*replica).is_some_and(|progress| {
                progress.state == ProgressState::Replicate && progress.matched == last
            })
        };
        let some = with.iter().copied().chain([raft.id]).collect();
        if !with.iter().all(has_all) || !raft.prs().has_quorum(&some) {
            return None;
        }
        let position = Position { term: raft.term, raft_index: last };
        self.rest.wait_ticks = AGAIN_TICKS;
        self.rest.state = State::Offered(Resting { position, with, without });
        Some(position)
    }

    /// Everyone it was offered to has agreed.
    pub(super) fn agree_to_rest(&mut self) {
        self.rest.state = match std::mem::take(&mut self.rest.state) {
            State::Offered(resting) => {
                for replica in &resting.with {
                    self.set_active(*replica, true);
                }
                self.node.raft.maybe_free_inflight_buffers();
                State::Asleep(resting)
            }
            other => other,
        };
        self.rest.wait_ticks = 0;
    }

    pub(super) fn is_offered(&self) -> bool {
        matches!(self.rest.state, State::Offered(_))
    }

    /// Whether it rests, or is to, and has a replica among these.
    pub(super) fn rests_beside(&self, is_meant: impl Fn(u64) -> bool) -> bool {
        match &self.rest.state {
            State::Offered(resting) | State::Asleep(resting) => {
                resting.with.iter().chain(&resting.without).any(|replica| is_meant(*replica))
            }
            _ => false,
        }
    }

    /// A node says that it speaks for the leader of this group, which rests at `position`. Whether
    /// this replica rests with it: it must follow that node, and have and know the same.
    pub(super) fn cover(&mut self, node: u64, position: Position, leader: Option<u64>) -> bool {
        let raft = &self.node.raft;
        let Some(leader) = leader.filter(|leader| *leader == raft.leader_id) else { return false };
        let log = &raft.raft_log;
        let is_there = raft.term == position.term
            && log.last_index() == position.raft_index
            && log.committed == position.raft_index
            && self.machine.applied == position.raft_index;
        if !is_there || !self.follows(leader, position.term) || !self.persist.is_idle() {
            return false;
        }
        self.rest.state = State::Covered { node, leader, term: position.term };
        // That it woke a moment ago, and rested with an older list, is over.
        self.rest.woke.take_if(|woke| matches!(woke, Woke::Follower(_)));
        true
    }

    /// A node no longer speaks for this group's leader, which was there up to now.
    pub(super) fn uncover(&mut self, node: u64) {
        if matches!(self.rest.state, State::Covered { node: by, .. } if by == node) {
            self.rest.state = State::Awake;
            self.node.raft.election_elapsed = 0;
        }
    }

    /// The node that spoke for this group's leader is gone: the shortest time-out has passed. How
    /// much longer this replica waits is drawn from `random`, so that groups that lose their
    /// leaders together do not all elect at once.
    pub(super) fn orphan(&mut self, node: u64, random: &mut StdRng) {
        let State::Covered { node: by, leader, .. } = self.rest.state else { return };
        if by != node {
            return;
        }
        self.rest.state = State::Awake;
        let wait = self.turn_without(leader);
        self.node.raft.election_elapsed = ELECTION_TICKS;
        self.node.raft.set_randomized_election_timeout(random.random_range(wait));
    }

    /// A tick begins: whether this replica has campaigned since there was a leader.
    pub(super) fn notice_campaign(&mut self) {
        let raft = &self.node.raft;
        let campaigns = matches!(raft.state, StateRole::Candidate | StateRole::PreCandidate);
        self.rest.campaigned = campaigns || (self.rest.campaigned && raft.leader_id == INVALID_ID);
    }

    /// How long this replica waits for an election from now on, in ticks, if it hears of no leader.
    /// Who was not elected in its turn leaves to chance who is next: it may have been the disks.
    pub(super) fn election_wait(&self) -> Range<usize> {
        match self.rest.campaigned {
            true => ELECTION_TICKS + 1..2 * ELECTION_TICKS,
            false => self.turn_without(self.leader()),
        }
    }

    /// When it is this replica's turn to be elected after `leader`, in ticks: all know that it is
    /// gone at about the same time, and those that begin together split the votes.
    fn turn_without(&self, leader: u64) -> Range<usize> {
        let me = self.node.raft.id;
        let (_, membership) = self.node.store().history().newest();
        let left = membership.voters.iter().filter(|voter| **voter != leader);
        let before = left.clone().filter(|voter| mix(**voter) < mix(me)).count();
        waits(before, left.count())
    }

    /// Nodes with replicas of this group went out of contact. The next tick finds whether there is
    /// a majority left.
    pub(super) fn lose_contact(&mut self, is_in_contact: impl Fn(u64) -> bool) {
        let with = match &self.rest.state {
            State::Offered(resting) | State::Asleep(resting) => resting.with.clone(),
            _ => return,
        };
        self.wake();
        for replica in with {
            self.set_active(replica, is_in_contact(replica));
        }
        self.course.forget_heard();
        self.node.raft.election_elapsed = ELECTION_TICKS - 1;
    }

    /// The group ticks from now on. Its followers hear of their leader at once.
    pub(super) fn wake(&mut self) {
        self.rest.disturbed = false;
        self.rest.quiet_ticks = 0;
        match std::mem::take(&mut self.rest.state) {
            State::Awake => {}
            State::Covered { node, .. } => self.rest.woke = Some(Woke::Follower(node)),
            State::Offered(_) => self.rest.woke = Some(Woke::Leader),
            State::Asleep(_) => {
                self.rest.woke = Some(Woke::Leader);
                if self.node.raft.state == StateRole::Leader && !self.stopped {
                    self.node.ping();
                }
            }
        }
    }

    /// Followers did not agree.
    pub(super) fn be_refused(&mut self) {
        self.wake();
        self.rest.wait_ticks = AGAIN_TICKS;
    }

    /// A peer sent a message. One that does not see that this replica leads is to hear it.
    pub(super) fn notice(&mut self, message: &PeerMessage) {
        self.rest.disturbed |= match message.kind() {
            PeerMessageKind::HeartbeatResponse => false,
            PeerMessageKind::AppendResponse => message.reject,
            _ => true,
        };
    }

    /// Ends the rest if anything is no longer as it was.
    pub(super) fn look_at_rest(&mut self) {
        let holds = match &self.rest.state {
            State::Awake => true,
            State::Offered(resting) | State::Asleep(resting) => {
                let raft = &self.node.raft;
                let position = Position { term: raft.term, raft_index: raft.raft_log.last_index() };
                !self.rest.disturbed && position == resting.position && self.leads_quietly()
            }
            State::Covered { leader, term, .. } => self.follows(*leader, *term),
        };
        self.rest.disturbed = false;
        if !holds {
            self.wake();
        }
    }

    /// A rest that ended since this was asked last.
    pub(super) fn take_woke(&mut self) -> Option<Woke> {
        self.rest.woke.take()
    }

    /// It leads, and nothing is under way or left to do.
    fn leads_quietly(&self) -> bool {
        let raft = &self.node.raft;
        let last = raft.raft_log.last_index();
        let leads = raft.state == StateRole::Leader && self.sequencer.is_some();
        let is_driven = !self.stopped && self.installing.is_none() && self.ending.is_none();
        let is_applied = raft.raft_log.committed == last && self.machine.applied == last;
        let is_settled =
            self.is_on_target() && !raft.has_pending_conf() && raft.lead_transferee.is_none();
        let is_idle = self.waiters.is_empty()
            && self.reads.is_empty()
            && self.persist.is_idle()
            && self.outbox.is_empty();
        leads && is_driven && is_applied && is_settled && is_idle && self.losses.is_empty()
    }

    fn follows(&self, leader: u64, term: u64) -> bool {
        let raft = &self.node.raft;
        let is_driven = !self.stopped && self.installing.is_none() && self.ending.is_none();
        let follows = raft.state == StateRole::Follower && raft.leader_id == leader;
        is_driven && follows && raft.term == term
    }

    fn set_active(&mut self, replica: u64, active: bool) {
        if let Some(progress) = self.node.raft.mut_prs().get_mut(replica) {
            progress.recent_active = active;
        }
    }
}

/// How long a voter waits that comes behind `before` of the `count` that are left, in ticks: each
/// has a part of the time in which an election may begin, with a gap before the next one's.
fn waits(before: usize, count: usize) -> Range<usize> {
    const TICKS: usize = ELECTION_TICKS - 1;
    let count = count.max(1);
    let from = ELECTION_TICKS + 1 + before.min(count - 1) * TICKS / count;
    let width = (TICKS / count).saturating_sub(1).max(1);
    from..(from + width).min(2 * ELECTION_TICKS)
}

/// Replicas in an order that is another in each group: their ids are never the same.
fn mix(replica: u64) -> u64 {
    replica.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_wait_for_an_election_wait_one_behind_the_other() {
        for count in 0..9 {
            let mut end = ELECTION_TICKS + 1;
            for before in 0..count.max(1) {
                let wait = waits(before, count);
                assert!(!wait.is_empty() && wait.end <= 2 * ELECTION_TICKS, "{before} of {count}");
                assert!(wait.start >= end || count > ELECTION_TICKS - 1, "{before} of {count}");
                end = wait.end;
            }
        }
        assert_eq!((waits(0, 2), waits(1, 2)), (9..11, 12..14));
        assert_eq!(waits(7, 2), waits(1, 2));
    }
}
