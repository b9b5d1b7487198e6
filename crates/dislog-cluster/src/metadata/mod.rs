//! The metadata of the cluster: its nodes, its topics, which replica is where, and its tokens.
//!
//! It is a partition like any other, group 0, topic `__metadata`; only what follows from its
//! records is special. A change is a [`command`] appended to it; where it stands in the log settles
//! who was first; the [`state`] follows from the commands; the [`reconciler`] makes this node's
//! directories and groups be as the state says.
//!
//! On the node that leads the metadata the [`controller`] decides what else should change: who
//! belongs to the cluster, and where partitions go ([`placement`]).
//!
//! Promises: a change that was acknowledged survives; concurrent changes have the same outcome
//! everywhere; nothing on disk is deleted but what a command in this log deleted.
//!
//! Left out: compaction. The log is replayed whole at each start, which thousands of topics can
//! afford.

pub(crate) mod assignment;
pub(crate) mod command;
pub(crate) mod controller;
mod leaders;
mod placement;
pub(crate) mod reconciler;
pub(crate) mod state;
pub(crate) mod tokens;

use std::collections::VecDeque;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard};

use bytes::Bytes;
use dislog_log::Frame;
use dislog_types::batch::{BatchHeader, records};
use dislog_types::{BatchBuilder, Compression, PartitionId, Record, TopicName};
use prost::Message;

use self::command::Command;
use self::reconciler::Wake;
use self::state::{Outcome, State};
use crate::error::AppendError;
use crate::partition::{Append, Partition};
use crate::raft::group::Observer;
use crate::settings::CONTROL_REQUESTS_MAX;

/// The group of the metadata.
pub(crate) const GROUP: u64 = 0;

/// Outcomes kept for those who wait for them: twice as many as may wait.
const OUTCOMES_MAX: usize = 2 * CONTROL_REQUESTS_MAX;

/// The metadata as this node knows it.
#[derive(Default)]
pub(crate) struct Metadata {
    state: RwLock<State>,
    /// By the offset of the command, oldest first.
    outcomes: Mutex<VecDeque<(u64, Outcome)>>,
}

impl Metadata {
    /// The partition that holds the metadata.
    pub(crate) fn partition() -> PartitionId {
        PartitionId { topic: TopicName::system("metadata"), partition: 0 }
    }

    /// The state, locked for a short while.
    pub(crate) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().expect("nothing panics while the metadata is locked")
    }

    /// Appends a command and returns its offset and what came of it. Cancelled, it may happen all
    /// the same.
    pub(crate) async fn change(
        &self,
        log: &Partition,
        command: Command,
        now_ms: i64,
    ) -> Result<(u64, Outcome), AppendError> {
        let appended = log.append(to_append(command.encode_to_vec(), now_ms)).await?;
        let outcome = self.take_outcome(appended.base_offset);
        Ok((appended.base_offset, outcome.ok_or(AppendError::UnknownOutcome)?))
    }

    /// Appends a command that somebody else sent, encoded, and does not wait.
    pub(crate) fn offer(log: &Partition, command: Bytes, now_ms: i64) {
        if Command::decode(command.clone()).is_ok_and(|command| command.change.is_some()) {
            log.offer(to_append(command.into(), now_ms));
        }
    }

    fn take_outcome(&self, offset: u64) -> Option<Outcome> {
        let mut outcomes = self.outcomes.lock().expect("nothing panics while it is locked");
        let at = outcomes.binary_search_by_key(&offset, |(offset, _)| *offset).ok()?;
        outcomes.remove(at).map(|(_, outcome)| outcome)
    }

    fn apply(&self, offset: u64, timestamp_ms: i64, value: &[u8]) -> Result<(), String> {
        let unknown = || format!("the command at offset {offset} of the metadata is not known");
        let command = Command::decode(value).map_err(|_| unknown())?;
        let change = command.change.ok_or_else(unknown)?;
        let mut state = self.state.write().expect("nothing panics while the metadata is locked");
        let outcome = state.apply(offset, timestamp_ms, change);
        drop(state);
        let mut outcomes = self.outcomes.lock().expect("nothing panics while it is locked");
        if outcomes.len() == OUTCOMES_MAX {
            outcomes.pop_front();
        }
        outcomes.push_back((offset, outcome));
        Ok(())
    }
}

fn to_append(command: Vec<u8>, now_ms: i64) -> Append {
    let mut builder = BatchBuilder::new();
    let fits = builder.push(&Record { created_ms: now_ms, ..Record::new(command) });
    assert!(fits, "names are bounded, so a command is small");
    let batch = builder.finish(Compression::None, None);
    let header = BatchHeader::parse(&batch).expect("the builder makes valid batches");
    Append { batch, header, expected_offset: None }
}

/// Applies what the group commits, and wakes the reconciler.
pub(crate) struct Follow {
    pub(crate) metadata: Arc<Metadata>,
    /// Of capacity one: a wake that is still to come covers this one, too.
    pub(crate) wake: SyncSender<Wake>,
}

impl Observer for Follow {
    fn applied(&mut self, frame: &Frame) -> Result<(), String> {
        let header = BatchHeader::parse(&frame.payload).map_err(|error| error.to_string())?;
        let records = records(&header, &frame.payload).map_err(|error| error.to_string())?;
        for (offset, record) in (frame.base_offset..).zip(&records) {
            self.metadata.apply(offset, frame.timestamp_ms, &record.value)?;
        }
        // Full, it wakes anyway; without a reconciler the node is closing.
        let _ = self.wake.try_send(Wake::Changed);
        Ok(())
    }
}
