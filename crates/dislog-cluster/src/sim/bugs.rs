//! Known bugs, put back on request: the simulator must notice each of them, or it notices nothing.

use std::cell::Cell;

thread_local! {
    static BUG: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// A bug that systems like this one had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A vote is told before it is durable.
    NoSyncBeforeVote,
    /// Entries are acknowledged before they are durable, by followers and by the leader to itself.
    NoSyncBeforeAcknowledgement,
    /// What a learner has counts as if a voter had it.
    LearnerCounts,
    /// A leader takes appends before an entry of its own term is committed.
    ServesTooEarly,
    /// A replica that starts cuts off what others may know to be committed.
    TruncatesBelowCommit,
}

/// Puts a bug back into all nodes of this thread, or takes it out again.
pub fn put_back(bug: Option<Bug>) {
    BUG.set(bug);
}

pub(crate) fn is_back(bug: Bug) -> bool {
    BUG.get() == Some(bug)
}
