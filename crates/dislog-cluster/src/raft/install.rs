//! Beginning anew: what a replica does that lacks what its peers no longer have.
//!
//! The leader sends where its log starts; the replica gives up what it has and begins there. Until
//! that is durable its Raft state is between two steps, and the group takes no input: what peers
//! send meanwhile is lost, which Raft does not mind.

use raft::Ready;

use super::group::{Group, fault};
use super::members_file::History;
use super::new_start_file::NewStart;
use super::rim::Rim;
use super::storage::SnapshotStart;
use super::sync_threads::{InstallJob, Installed, Job};
use super::transport::Membership;
use crate::partition::shared::Fault;
use crate::partition::state_machine::StateMachine;

/// A start on its way to the disk.
pub(super) struct Installing {
    /// What is to be done yet, until a thread does it.
    job: Option<InstallJob>,
    ready: Ready,
    history: History,
    machine: StateMachine,
}

impl Group {
    /// Begins to begin anew.
    pub(super) fn begin_install(&mut self, ready: Ready) {
        let snapshot = ready.snapshot();
        let Some((start, told)) = SnapshotStart::of(snapshot) else {
            self.stop(Fault::Stopped("the start that the leader sent cannot be read".to_owned()));
            return;
        };
        let Some(log) = self.shared.log.clone() else { return };
        let (partition, raft_index, offset) =
            (&self.shared.id, start.raft_index, told.start_offset);
        tracing::info!(%partition, raft_index, offset, "too far behind; begins anew");
        let membership = Membership::from_raft(snapshot.get_metadata().get_conf_state());
        let mut history = History::since(start.raft_index, membership);
        history.knows(told.newest_replica.max(self.node.store().history().newest_replica()));
        let start = NewStart::new(&start, told.start_offset, history.clone());
        let machine = start.machine();
        self.waiters.fail(&crate::error::AppendError::UnknownOutcome);
        let job =
            InstallJob { group: self.number(), log, dir: self.dir.clone(), vote: self.vote, start };
        self.installing = Some(Installing { job: Some(job), ready, history, machine });
    }

    /// Has a thread do it once nothing else is done to the log: what is written of the old one must
    /// not come behind the new one's.
    pub(super) fn go_on_installing(&mut self, rim: &mut Rim) {
        let is_busy = self.persist.is_syncing() || self.upkeep.is_running();
        let Some(job) = self.installing.as_mut().and_then(|it| it.job.take_if(|_| !is_busy)) else {
            return;
        };
        if self.stopped || self.is_over() {
            self.installing = None;
        } else {
            rim.threads.take(Job::Install(job));
        }
    }

    /// The log began anew.
    pub(super) fn installed(&mut self, installed: Installed, rim: &mut Rim) {
        let Some(Installing { mut ready, history, machine, .. }) = self.installing.take() else {
            return;
        };
        if let Err(error) = installed.result {
            self.stop(fault(&error));
            return;
        }
        self.shared.health().disk_full = false;
        self.course.settled = false;
        self.machine = machine;
        let storage = self.node.mut_store();
        storage.began_anew(history);
        let number = ready.number();
        rim.disk.dropped(self.persist.began_anew(number));
        let mut messages = ready.take_messages();
        messages.append(&mut ready.take_persisted_messages());
        self.node.advance_append_async(ready);
        self.node.on_persist_ready(number);
        self.node.advance_apply_to(self.machine.applied);
        for (_, waiting) in std::mem::take(&mut self.outbox) {
            self.send(waiting, rim);
        }
        self.send(messages, rim);
        self.publish_membership();
        self.publish();
    }
}
