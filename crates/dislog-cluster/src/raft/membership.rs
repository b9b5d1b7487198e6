//! Who belongs to a group, and how that changes.
//!
//! The metadata says who *should* belong to it: the [`Target`]. The group's leader takes it there,
//! a step at a time, each a change through the log:
//!
//! ```text
//!   missing ──add──► learner ──caught up──► voter        not wanted ──remove──► gone
//! ```
//!
//! A replica is given up only in the step that completes the voters that are wanted, or that puts
//! another in its place, so that a replacement never leaves fewer than there were, and only if a
//! majority of those is in contact. Nor does it leave more: among four, one that is gone for good
//! would leave three that can do without none. A step that touches several goes through a joint
//! membership, in which majorities of the old and of the new voters are needed.
//!
//! Whoever was given up may go once another change followed: see [`History::proven`]. If none is
//! wanted, there is one that changes nothing.
//!
//! [`History::proven`]: super::members_file::History::proven
//!
//! The log holds a change as Protocol Buffers, field for field that of Raft; it is decoded by our
//! own decoder, because it came from a peer.

use std::collections::HashMap;

use prost::Message as _;
use raft::eraftpb::{ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2};
use raft::{ProgressState, SnapshotStatus, StateRole};

use super::group::Group;
use super::open::ELECTION_TICKS;
use super::transport::Membership;
use crate::metadata;

/// Ticks after which a snapshot that was not answered is taken for lost.
const SNAPSHOT_TICKS: u64 = 20;

/// Who should belong to a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Target {
    /// Those who decide.
    pub(crate) voters: Vec<u64>,
    /// Those who only follow.
    pub(crate) learners: Vec<u64>,
    /// The newest replica that the metadata knew when it said so: of later ones it says nothing.
    pub(crate) newest: u64,
}

/// A change of membership, as it stands in the log. Without changes it ends a joint membership.
#[derive(Clone, PartialEq, prost::Message)]
struct Change {
    #[prost(int32, tag = "1")]
    transition: i32,
    #[prost(message, repeated, tag = "2")]
    changes: Vec<Step>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Step {
    #[prost(enumeration = "StepKind", tag = "1")]
    kind: i32,
    #[prost(uint64, tag = "2")]
    replica: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
enum StepKind {
    AddVoter = 0,
    Remove = 1,
    AddLearner = 2,
}

/// What the group knows of its way to the target.
#[derive(Debug, Default)]
pub(super) struct Course {
    pub(super) target: Option<Target>,
    /// The target is reached.
    pub(super) settled: bool,
    /// What was committed at the last tick: who has that has caught up.
    committed: u64,
    ticks: u64,
    /// At which tick others were heard last. Raft's core forgets it when it has looked whether a
    /// majority was.
    heard: HashMap<u64, u64>,
}

impl Course {
    /// It is found out anew who is there.
    pub(super) fn forget_heard(&mut self) {
        self.heard.clear();
    }
}

impl Group {
    /// Others are to belong to the group.
    pub(super) fn set_target(&mut self, target: Target) {
        if self.course.target.as_ref() != Some(&target) {
            self.course.target = Some(target);
            self.course.settled = false;
            self.step_towards_target();
        }
    }

    /// Carries out a change that was committed.
    pub(super) fn change_membership(&mut self, raft_index: u64, data: &[u8]) -> Result<(), String> {
        let change = decode(data).ok_or("it is not a change of membership")?;
        let state = self.node.apply_conf_change(&change).map_err(|error| error.to_string())?;
        let membership = Membership::from_raft(&state);
        let history = self.node.mut_store().history_mut();
        history.push(raft_index, membership);
        let history = history.clone();
        let raft = &mut self.node.raft;
        if raft.state == StateRole::Leader && !raft.promotable() {
            // The core would let it go on, and ends the process when it does not find it among
            // those whose progress it knows.
            raft.become_follower(raft.term, raft::INVALID_ID);
        }
        self.publish_membership();
        self.persist.stage_members(history);
        self.course.settled = false;
        Ok(())
    }

    /// Tells the rest of the node who belongs to the group, and so who may go.
    pub(super) fn publish_membership(&mut self) {
        let history = self.node.store().history();
        let (since, membership) = history.proven();
        let mut health = self.shared.health();
        health.votes = history.newest().1.deciders().any(|voter| voter == self.node.raft.id);
        health.membership = membership.clone();
        health.membership_since = since;
        drop(health);
        self.told_others = false;
    }

    /// Some time passed.
    pub(super) fn membership_tick(&mut self) {
        self.course.ticks += 1;
        if self.node.raft.state != StateRole::Leader {
            self.course.forget_heard();
            return;
        }
        for (replica, progress) in self.node.raft.prs().iter() {
            if progress.recent_active {
                self.course.heard.insert(*replica, self.course.ticks);
            }
        }
        if self.course.ticks.is_multiple_of(SNAPSHOT_TICKS) {
            self.repeat_snapshots();
        }
        self.step_towards_target();
        self.course.committed = self.node.raft.raft_log.committed;
    }

    /// There is nothing left to change.
    pub(super) fn is_on_target(&self) -> bool {
        let (_, membership) = self.node.store().history().newest();
        let wants = self.course.target.is_some() && !self.course.settled;
        !wants && membership.voters_outgoing.is_empty()
    }

    /// A snapshot or its answer may be lost; Raft waits for it until told so.
    fn repeat_snapshots(&mut self) {
        let waiting = |(id, progress): (&u64, &raft::Progress)| {
            (progress.state == ProgressState::Snapshot).then_some(*id)
        };
        let replicas: Vec<u64> = self.node.raft.prs().iter().filter_map(waiting).collect();
        for replica in replicas {
            self.node.report_snapshot(replica, SnapshotStatus::Failure);
        }
    }

    /// Proposes the next change towards the target, if there is one and none is under way.
    pub(super) fn step_towards_target(&mut self) {
        let ready = self.sequencer.is_some() && self.ending.is_none() && !self.stopped;
        if !ready || self.course.settled || self.node.raft.has_pending_conf() {
            return;
        }
        let Some(target) = &self.course.target else { return };
        let history = self.node.store().history();
        let ((since, membership), (proven, _)) = (history.newest(), history.proven());
        if !membership.voters_outgoing.is_empty() {
            // Its first leader would have ended it; another must be told.
            self.propose_membership(Vec::new());
            return;
        }
        let me = self.node.raft.id;
        if proven != since {
            // A change that changes nothing, but to prove the one before.
            let replica = me;
            self.propose_membership(vec![Step { kind: StepKind::AddVoter.into(), replica }]);
            return;
        }
        let steps = self.steps(target, membership);
        let is_mine = |step: &Step| step.kind() != StepKind::AddVoter && step.replica == me;
        if !self.could_decide(membership, &steps) {
            // Whoever is silent may come back, or be replaced.
            return;
        }
        if steps.iter().any(is_mine) {
            self.hand_over_to(self.heirs(target, membership).collect());
        } else if steps.is_empty() {
            self.course.settled = is_reached(target, membership);
        } else {
            self.propose_membership(steps);
        }
    }

    /// What can be done next: a pure decision over the target, the membership, and who has caught
    /// up.
    fn steps(&self, target: &Target, now: &Membership) -> Vec<Step> {
        if now.replicas().any(|member| member > target.newest) {
            // The metadata here is behind that by which the group came to be what it is.
            return Vec::new();
        }
        let is_member = |replica: &u64| now.replicas().any(|member| member == *replica);
        let wanted = target.voters.iter().chain(&target.learners);
        let missing: Vec<Step> = wanted
            .copied()
            .filter(|replica| !is_member(replica))
            .map(|replica| Step { kind: StepKind::AddLearner.into(), replica })
            .collect();
        if missing.iter().any(|step| self.was_removed(step.replica)) {
            // The metadata here is behind: a replica that was given up does not come back, and its
            // node may have removed all it had.
            return Vec::new();
        }
        if !missing.is_empty() {
            return missing;
        }
        let promoted = now.learners.iter().filter(|replica| target.voters.contains(replica));
        let (mut ready, late): (Vec<u64>, Vec<u64>) =
            promoted.partition(|replica| self.has_caught_up(**replica));
        let mut given_up: Vec<u64> = now.voters.clone();
        given_up.retain(|replica| !target.voters.contains(replica));
        let me = self.node.raft.id;
        let has_heir = target.voters.contains(&me) || self.heirs(target, now).next().is_some();
        // Nobody could be handed the leadership yet.
        given_up.retain(|replica| has_heir || *replica != me);
        if !late.is_empty() {
            // Whoever is gone makes room first: the others can do without one less until then.
            given_up.sort_by_key(|replica| (self.is_there(*replica), *replica == me));
            given_up.truncate(ready.len());
        }
        // One alone has its heir beside it for a while; others do with the place of who goes.
        let voters_max = now.voters.len().max(target.voters.len());
        let room = voters_max - (now.voters.len() - given_up.len());
        ready.truncate(room.max(usize::from(!has_heir)));
        let waits = late.iter().any(|replica| self.is_there(*replica));
        if waits {
            // All come in one step, soon, but for those who are needed now.
            given_up.retain(|replica| !self.is_there(*replica));
            ready.truncate(given_up.len());
        }
        let mut steps: Vec<Step> = ready
            .into_iter()
            .map(|replica| Step { kind: StepKind::AddVoter.into(), replica })
            .collect();
        for replica in given_up {
            let kind = match target.learners.contains(&replica) {
                true => StepKind::AddLearner,
                false => StepKind::Remove,
            };
            steps.push(Step { kind: kind.into(), replica });
        }
        if waits {
            return steps;
        }
        let unwanted =
            |replica: &&u64| !target.voters.contains(replica) && !target.learners.contains(replica);
        let gone = now.learners.iter().filter(unwanted);
        steps.extend(gone.map(|&replica| Step { kind: StepKind::Remove.into(), replica }));
        steps
    }

    /// Whether a majority of the voters that there are after these steps is in contact, if they are
    /// others than now: to let one go that is there, while one that stays is not, could leave no
    /// majority at all.
    fn could_decide(&self, now: &Membership, steps: &[Step]) -> bool {
        let mut voters = now.voters.clone();
        for step in steps {
            match step.kind() {
                StepKind::AddVoter => voters.push(step.replica),
                StepKind::Remove | StepKind::AddLearner => voters.retain(|it| *it != step.replica),
            }
        }
        let there = voters.iter().filter(|replica| self.is_there(**replica)).count();
        voters == now.voters || 2 * there > voters.len()
    }

    /// Whether a replica was heard lately.
    fn is_there(&self, replica: u64) -> bool {
        let Course { heard, ticks, .. } = &self.course;
        let was_heard = heard.get(&replica).is_some_and(|at| at + ELECTION_TICKS as u64 > *ticks);
        let raft = &self.node.raft;
        let is_active = || raft.prs().get(replica).is_some_and(|it| it.recent_active);
        replica == raft.id || was_heard || is_active()
    }

    /// Whether a replica that is no member was one. Those of the metadata go by their disks, which
    /// may come back.
    fn was_removed(&self, replica: u64) -> bool {
        self.number() != metadata::GROUP && self.node.store().history().is_over(replica)
    }

    /// Others who could be handed the leadership, and keep it.
    fn heirs<'a>(
        &'a self,
        target: &'a Target,
        now: &'a Membership,
    ) -> impl Iterator<Item = u64> + 'a {
        let others = target.voters.iter().filter(|replica| **replica != self.node.raft.id);
        let voters = others.filter(|replica| now.voters.contains(replica));
        voters.copied().filter(|replica| self.is_there(*replica) && self.has_all(*replica))
    }

    fn has_caught_up(&self, replica: u64) -> bool {
        let progress = self.node.raft.prs().get(replica);
        progress.is_some_and(|progress| progress.recent_active) && self.has_all(replica)
    }

    /// Whether a replica has all that was committed at the last tick.
    fn has_all(&self, replica: u64) -> bool {
        let progress = self.node.raft.prs().get(replica);
        progress.is_some_and(|progress| {
            progress.state == ProgressState::Replicate && progress.matched >= self.course.committed
        })
    }

    fn propose_membership(&mut self, steps: Vec<Step>) {
        let changes: Vec<ConfChangeSingle> = steps.into_iter().map(Step::into_raft).collect();
        let change = ConfChangeV2 {
            transition: ConfChangeTransition::Auto,
            changes: changes.into(),
            ..ConfChangeV2::default()
        };
        if let Err(error) = self.node.propose_conf_change(Vec::new(), change) {
            let partition = &self.shared.id;
            tracing::debug!(%partition, %error, "a change of membership was not proposed");
        }
    }

    /// Hands the leadership to the best of `candidates`: a voter that hears us and has the most.
    pub(super) fn hand_over_to(&mut self, candidates: Vec<u64>) -> bool {
        let raft = &self.node.raft;
        if raft.state != StateRole::Leader {
            return false;
        }
        if raft.lead_transferee.is_some() {
            return true;
        }
        let voters = &self.node.store().history().newest().1.voters;
        let best = candidates
            .into_iter()
            .filter(|replica| *replica != raft.id && voters.contains(replica))
            .filter_map(|replica| Some((replica, raft.prs().get(replica)?)))
            .filter(|(_, progress)| progress.recent_active)
            .max_by_key(|(_, progress)| progress.matched);
        let Some((replica, _)) = best else { return false };
        self.node.transfer_leader(replica);
        true
    }
}

fn is_reached(target: &Target, membership: &Membership) -> bool {
    let same = |a: &[u64], b: &[u64]| a.len() == b.len() && a.iter().all(|id| b.contains(id));
    same(&target.voters, &membership.voters) && same(&target.learners, &membership.learners)
}

fn decode(data: &[u8]) -> Option<ConfChangeV2> {
    let change = Change::decode(data).ok()?;
    let known = change.changes.iter().all(|step| StepKind::try_from(step.kind).is_ok());
    // The other transitions are not proposed by anyone.
    if !known || change.transition != 0 {
        return None;
    }
    let changes: Vec<ConfChangeSingle> = change.changes.into_iter().map(Step::into_raft).collect();
    let transition = ConfChangeTransition::Auto;
    Some(ConfChangeV2 { transition, changes: changes.into(), ..ConfChangeV2::default() })
}

impl Step {
    fn into_raft(self) -> ConfChangeSingle {
        let change_type = match self.kind() {
            StepKind::AddVoter => ConfChangeType::AddNode,
            StepKind::Remove => ConfChangeType::RemoveNode,
            StepKind::AddLearner => ConfChangeType::AddLearnerNode,
        };
        ConfChangeSingle { change_type, node_id: self.replica, ..ConfChangeSingle::default() }
    }
}
