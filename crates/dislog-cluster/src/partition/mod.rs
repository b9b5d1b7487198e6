//! A partition: one log, written through Raft, read from the log.
//!
//! Split by role in time. An append meets the [`sequencer`] (may it be appended, and where?), then
//! Raft and the log (`crate::raft`), then the [`state_machine`] (it is committed: what follows from
//! it?), then the [`reader`], and at last [`retention`]. [`Partition`] is the handle that the rest
//! of the program holds.
//!
//! Promises: offsets are dense; a retry of an idempotent producer gets the first answer as long as
//! it is remembered; readers see committed records only, and wait without polling.
//!
//! Left out: topics, and how partitions come and go (`crate::metadata`).

pub(crate) mod append;
pub(crate) mod port;
pub(crate) mod producers;
pub(crate) mod progress;
mod reader;
pub(crate) mod retention;
pub(crate) mod sequencer;
pub(crate) mod shared;
pub(crate) mod state_machine;
pub(crate) mod upkeep;

use std::fmt;
use std::sync::Arc;

use dislog_types::PartitionId;
use tokio::sync::{oneshot, watch};

pub use self::append::{Append, Appended, PendingAppend};
use self::port::{Gone, Port};
pub use self::progress::{Counters, Progress, Status, StoredBatch};
use self::shared::{Fault, Life, Shared};
use crate::error::{AppendError, ReadError};
use crate::raft::driver::Input;
use crate::raft::input::{AppendReply, AppendRequest, LinearizeRequest, TrimRequest};

/// One partition. A cheap handle.
#[derive(Clone)]
pub struct Partition {
    pub(crate) shared: Arc<Shared>,
    port: Arc<Port>,
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Partition").field(&self.shared.id).finish()
    }
}

impl Partition {
    pub(crate) fn new(shared: Arc<Shared>, port: Arc<Port>) -> Partition {
        Partition { shared, port }
    }

    /// Which partition it is.
    #[must_use]
    pub fn id(&self) -> &PartitionId {
        &self.shared.id
    }

    /// Waits for room among the bytes in flight, then queues the append. Appends happen in the
    /// order of their submission. Cancelled before it returns, nothing is appended.
    ///
    /// # Errors
    /// If it is clear already that nothing will be appended.
    ///
    /// # Panics
    /// If the header is not that of the batch.
    pub async fn submit(&self, append: Append) -> Result<PendingAppend, AppendError> {
        assert_eq!(append.batch.len(), append.header.batch_bytes, "the header is the batch's");
        // produce 2: a permit in bytes bounds what is under way; whoever comes first goes first.
        self.check_writable()?;
        let permit = self.port.append_permit(append.batch.len()).await;
        let permit = permit.map_err(|Gone| AppendError::Closing)?;
        let (reply, outcome) = oneshot::channel();
        let request = AppendRequest {
            shared: Arc::clone(&self.shared),
            append,
            reply: AppendReply { outcome: reply, _permit: permit },
        };
        let sent = self.port.send(Input::Append(request));
        sent.map_err(|Gone| AppendError::Closing)?;
        Ok(PendingAppend { outcome })
    }

    /// `submit` and wait for the outcome. Cancelled, the append may happen all the same.
    ///
    /// # Errors
    /// Each says whether the batch was appended, was not, or may have been.
    ///
    /// # Panics
    /// If the header is not that of the batch.
    pub async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        self.submit(append).await?.await
    }

    /// Queues an append whose outcome nobody waits for, if there is room for it right now.
    pub(crate) fn offer(&self, append: Append) {
        let Some(permit) = self.port.try_append_permit(append.batch.len()) else { return };
        let (reply, _) = oneshot::channel();
        let reply = AppendReply { outcome: reply, _permit: permit };
        let request = AppendRequest { shared: Arc::clone(&self.shared), append, reply };
        // Without a driver the node is closing.
        let _ = self.port.send(Input::Append(request));
    }

    /// How far it has come, as of now.
    #[must_use]
    pub fn progress(&self) -> Progress {
        *self.shared.progress.borrow()
    }

    /// How far it has come, to wait on.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Progress> {
        self.shared.progress.subscribe()
    }

    /// Returns once everything acknowledged before the call is visible here. Safe to cancel.
    ///
    /// # Errors
    /// If there is no leader to ask, or the partition has ended.
    pub async fn linearize(&self) -> Result<(), ReadError> {
        let permit = self.port.control_permit().await.map_err(|Gone| ReadError::Closing)?;
        let (reply, answer) = oneshot::channel();
        let shared = Arc::clone(&self.shared);
        let request = LinearizeRequest { shared, reply, _permit: permit };
        let sent = self.port.send(Input::Linearize(request));
        sent.map_err(|Gone| ReadError::Closing)?;
        answer.await.unwrap_or(Err(ReadError::Closing))
    }

    /// Moves the start up to `offset` (at most the committed offset; below the start nothing
    /// happens). Returns the start. Cancelled, it may happen all the same.
    ///
    /// # Errors
    /// As of appends: a trim goes through the log.
    pub async fn trim(&self, offset: u64) -> Result<u64, AppendError> {
        self.check_writable()?;
        let permit = self.port.control_permit().await.map_err(|Gone| AppendError::Closing)?;
        let (reply, outcome) = oneshot::channel();
        let shared = Arc::clone(&self.shared);
        let request = TrimRequest { shared, offset, reply, _permit: permit };
        self.port.send(Input::Trim(request)).map_err(|Gone| AppendError::Closing)?;
        outcome.await.unwrap_or(Err(AppendError::UnknownOutcome))
    }

    /// Whether it has a leader that serves, as far as is known here, to wait on.
    #[must_use]
    pub fn watch_led(&self) -> watch::Receiver<bool> {
        self.shared.led.subscribe()
    }

    /// The Raft group of the partition: a number that is never used again.
    #[must_use]
    pub fn group(&self) -> u64 {
        self.shared.group
    }

    /// Whether this replica votes: one that is still being sent what it lacks does not, nor one
    /// that could not be opened.
    #[must_use]
    pub fn votes(&self) -> bool {
        self.shared.health().votes
    }

    /// Whether this replica leads and takes appends.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.shared.health().serving
    }

    /// How it is, for people.
    #[must_use]
    pub fn status(&self) -> Status {
        let (term, fault) = {
            let health = self.shared.health();
            (health.term, health.reason())
        };
        let bounds = self.shared.log.as_ref().map(dislog_log::Log::bounds);
        Status {
            term,
            end_offset: bounds.map_or(0, |bounds| bounds.end_offset),
            last_timestamp_ms: bounds.map_or(0, |bounds| bounds.last_timestamp_ms),
            size_bytes: self.shared.log.as_ref().map_or(0, dislog_log::Log::size_bytes),
            segments: self.shared.log.as_ref().map_or(0, dislog_log::Log::segment_count),
            fault,
            counters: self.shared.tally.counters(),
        }
    }

    pub(crate) fn check_writable(&self) -> Result<(), AppendError> {
        let health = self.shared.health();
        match (health.life, &health.fault) {
            (Life::Deleted, _) => Err(AppendError::Deleted(self.shared.id.clone())),
            (Life::Moved, _) => Err(AppendError::NoLeader(self.shared.id.clone())),
            (Life::Closing, _) => Err(AppendError::Closing),
            (Life::Open, Some(Fault::Damaged(message))) => {
                Err(AppendError::Damaged(message.clone()))
            }
            (Life::Open, Some(Fault::Stopped(message))) => {
                Err(AppendError::Stopped(message.clone()))
            }
            (Life::Open, None) => Ok(()),
        }
    }
}
