//! Everything that can happen to the driver: the messages of its one channel.
//!
//! The channel itself has no bound because everything that sends on it has one: appends hold
//! permits in bytes, other requests hold a permit each, and the threads answer at most one job of
//! each kind per log.

use std::sync::{Arc, mpsc};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::fetch::Fetched;
use super::group::Group;
use super::membership::Target;
use super::pulse::Pulse;
use super::sync_threads::{Installed, Kept, Synced};
use super::transport::PeerMessage;
use crate::error::{AppendError, ReadError};
use crate::partition::append::{Append, Appended};
use crate::partition::retention::RetentionPolicy;
use crate::partition::shared::{Life, Shared};

/// See the module.
pub(crate) enum Input {
    /// Append a batch.
    Append(AppendRequest),
    /// Move the start of a log.
    Trim(TrimRequest),
    /// Tell when everything acknowledged so far is applied here.
    Linearize(LinearizeRequest),
    /// A sync ended.
    Synced(Synced),
    /// A node said how things are.
    Pulse(u64, Pulse),
    /// A log was read for followers.
    Fetched(Fetched),
    /// A log began anew.
    Installed(Installed),
    /// A piece of upkeep ended.
    Kept(Kept),
    /// A peer sent a message.
    Message(PeerMessage),
    /// Drive one more group; tell when it serves, or cannot.
    AddGroup(Box<Group>, mpsc::Sender<()>),
    /// Keep records by another policy.
    SetRetention(u64, RetentionPolicy),
    /// Others are to belong to a group.
    SetTarget(u64, Target),
    /// Hand the leadership of a group to another replica.
    TransferLeader(u64, u64),
    /// End a group; tell when nothing touches its files any more; see [`Group::end`].
    EndGroup(u64, Life, mpsc::Sender<()>),
    /// End everything; tell when it is.
    Close(Option<oneshot::Sender<()>>),
}

/// What an append holds while it is under way, and where its outcome goes.
pub(crate) struct AppendReply {
    pub(crate) outcome: oneshot::Sender<Result<Appended, AppendError>>,
    pub(crate) _permit: OwnedSemaphorePermit,
}

impl AppendReply {
    /// Tells the outcome. Nobody may be listening any more: the append was not cancelled by that.
    pub(super) fn send(self, outcome: Result<Appended, AppendError>) {
        let _ = self.outcome.send(outcome);
    }
}

/// See [`Input::Append`].
pub(crate) struct AppendRequest {
    pub(crate) shared: Arc<Shared>,
    pub(crate) append: Append,
    pub(crate) reply: AppendReply,
}

/// See [`Input::Trim`].
pub(crate) struct TrimRequest {
    pub(crate) shared: Arc<Shared>,
    pub(crate) offset: u64,
    pub(crate) reply: oneshot::Sender<Result<u64, AppendError>>,
    pub(crate) _permit: OwnedSemaphorePermit,
}

/// See [`Input::Linearize`].
pub(crate) struct LinearizeRequest {
    pub(crate) shared: Arc<Shared>,
    pub(crate) reply: oneshot::Sender<Result<(), ReadError>>,
    pub(crate) _permit: OwnedSemaphorePermit,
}
