//! When a log's upkeep is due: checkpoints, trims of what fell below the start, a look at what
//! expired.
//!
//! One task at a time per log, done by the sync threads; this decides which is next.

use super::retention::{Due, Moment, RetentionPolicy};
use super::state_machine::StateMachine;

/// A checkpoint is written when so many bytes were applied since the last: what is replayed at the
/// next start is bounded by it.
const CHECKPOINT_BYTES: u64 = 64 << 20;

/// After a failure, how long until the next attempt.
const RETRY_MS: i64 = 1_000;

/// See the module.
#[derive(Debug)]
pub(crate) struct Upkeep {
    policy: RetentionPolicy,
    running: Option<Running>,
    trim_due: bool,
    checkpoint_due: bool,
    look_due: bool,
    /// When to look for what expired by age, or to try again.
    look_ms: Option<i64>,
    /// After a failure: not before then.
    retry_ms: Option<i64>,
    applied_bytes: u64,
    /// The position of the newest checkpoint, or of the newest that failed.
    checkpointed: u64,
    /// The Raft index that the segment which is written to begins with.
    active_raft_index: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Running {
    Checkpoint { applied: u64 },
    Trim { applied: u64 },
    Look,
}

/// What to do next.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Next {
    Checkpoint,
    Trim,
    Look(RetentionPolicy, Moment),
}

/// What a finished task leaves to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct After {
    /// Propose this start.
    pub(crate) propose_start: Option<u64>,
    /// The head of the log is another.
    pub(crate) head_moved: bool,
}

impl Upkeep {
    /// Upkeep of a log whose newest checkpoint is at `checkpointed`, and whose segment that is
    /// written to begins with the Raft index `active_raft_index`.
    pub(crate) fn new(
        policy: RetentionPolicy,
        checkpointed: u64,
        active_raft_index: u64,
    ) -> Upkeep {
        Upkeep {
            policy,
            running: None,
            trim_due: false,
            checkpoint_due: false,
            look_due: policy != RetentionPolicy::KEEP_ALL,
            look_ms: None,
            retry_ms: None,
            applied_bytes: 0,
            checkpointed,
            active_raft_index,
        }
    }

    /// Another policy holds.
    pub(crate) fn set_policy(&mut self, policy: RetentionPolicy) {
        self.policy = policy;
        self.look_due = policy != RetentionPolicy::KEEP_ALL;
        self.look_ms = None;
    }

    /// A batch was applied.
    pub(crate) fn applied(&mut self, bytes: u64, timestamp_ms: i64) {
        self.applied_bytes += bytes;
        if self.look_ms.is_none() {
            self.look_ms = self.policy.expiry_ms(timestamp_ms);
        }
        if self.applied_bytes >= CHECKPOINT_BYTES {
            self.applied_bytes = 0;
            self.checkpoint_due = true;
        }
    }

    /// The start moved: what is below it is to be deleted.
    pub(crate) fn trimmed(&mut self) {
        self.trim_due = true;
    }

    /// A checkpoint is wanted whatever was applied since the last, if anything was.
    pub(crate) fn finish(&mut self, machine: &StateMachine) {
        self.checkpoint_due |= machine.applied > self.checkpointed;
    }

    /// The segment that is written to begins here now; if that is further on, one was sealed.
    pub(crate) fn writes_to(&mut self, active_raft_index: u64) {
        if active_raft_index > self.active_raft_index && self.policy.bytes.is_some() {
            self.look_due = true;
        }
        self.active_raft_index = active_raft_index;
    }

    /// Starts the next task, if there is one and none is running. Only a leader looks at what
    /// expired.
    pub(crate) fn begin(
        &mut self,
        machine: &StateMachine,
        leads: bool,
        now_ms: i64,
    ) -> Option<Next> {
        // A clock that was set back makes nobody wait.
        let waits = |retry_ms: i64| (retry_ms.saturating_sub(RETRY_MS)..retry_ms).contains(&now_ms);
        if self.running.is_some() || self.retry_ms.is_some_and(waits) {
            return None;
        }
        self.retry_ms = None;
        let applied = machine.applied;
        if std::mem::take(&mut self.trim_due) {
            self.checkpoint_due = false;
            self.running = Some(Running::Trim { applied });
            return Some(Next::Trim);
        }
        if std::mem::take(&mut self.checkpoint_due) {
            self.running = Some(Running::Checkpoint { applied });
            return Some(Next::Checkpoint);
        }
        if self.look_ms.is_some_and(|look_ms| look_ms <= now_ms) {
            self.look_ms = None;
            self.look_due = true;
        }
        if leads && std::mem::take(&mut self.look_due) {
            self.running = Some(Running::Look);
            let moment = Moment { now_ms, committed_offset: machine.committed_offset };
            return Some(Next::Look(self.policy, moment));
        }
        None
    }

    /// The running task succeeded.
    pub(crate) fn succeeded(&mut self, due: Due) -> After {
        match self.running.take().expect("one task was running") {
            Running::Checkpoint { applied } => {
                self.checkpointed = applied;
                After::default()
            }
            Running::Trim { applied } => {
                self.checkpointed = applied;
                After { head_moved: true, propose_start: None }
            }
            Running::Look => {
                let sooner = [self.look_ms, due.look_again_ms].into_iter().flatten().min();
                self.look_ms = sooner;
                After { propose_start: due.start_offset, head_moved: false }
            }
        }
    }

    /// The running task failed, by a full disk or otherwise; a trim is tried again later.
    pub(crate) fn failed(&mut self, now_ms: i64) {
        match self.running.take().expect("one task was running") {
            Running::Trim { .. } => self.trim_due = true,
            // It is a hint: the next one will do as well.
            Running::Checkpoint { applied } => self.checkpointed = applied,
            Running::Look => {}
        }
        self.retry_ms = Some(now_ms.saturating_add(RETRY_MS));
    }

    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Something waits to be started, and can be.
    pub(crate) fn is_due(&self) -> bool {
        self.retry_ms.is_none() && (self.trim_due || self.checkpoint_due)
    }

    /// When there is something to do without any input.
    pub(crate) fn deadline_ms(&self) -> Option<i64> {
        let sooner = [self.look_ms, self.retry_ms].into_iter().flatten().min();
        sooner.filter(|_| self.running.is_none())
    }
}
