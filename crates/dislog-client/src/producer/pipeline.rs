//! The batches of one partition that are on their way, and the producer's identity there: a pure
//! state machine, driven by the sender task.
//!
//! ```text
//!   push ──► [ waiting … ]──next_to_send──►[ … sent ]──acknowledged──► resolved
//!                  ▲                           │
//!                  └─────── interrupted ───────┘    (the same bytes, sent again in order)
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use dislog_types::Compression;
use tokio::time::Instant;

use super::batch::{Batch, ProducerStamp};
use crate::retry::later;

/// While fewer batches than this are under way, the next does not wait to become full: one is being
/// synced, and one sent or acknowledged meanwhile. Of 256 callers that each wait for their record,
/// three nodes served fewer per second with 1, and with 3 and 4 not more.
const BUSY_BATCHES: usize = 2;

/// How a batch is named so that the server recognises it when it comes again.
#[derive(Debug)]
pub(super) struct Identity {
    id: i64,
    epoch: i16,
    next_sequence: i32,
}

impl Identity {
    /// A producer that was never heard of.
    pub(super) fn random() -> Identity {
        Identity { id: rand::random_range(1..=i64::MAX), epoch: 0, next_sequence: 0 }
    }

    #[cfg(test)]
    pub(super) fn at(id: i64, epoch: i16, next_sequence: i32) -> Identity {
        Identity { id, epoch, next_sequence }
    }

    fn raise_epoch(&mut self) {
        match self.epoch.checked_add(1) {
            Some(epoch) => (self.epoch, self.next_sequence) = (epoch, 0),
            None => *self = Identity::random(),
        }
    }

    /// Whether the sequences of `record_count` more records are within their range.
    fn has_room(&self, record_count: u32) -> bool {
        i32::try_from(record_count)
            .is_ok_and(|count| self.next_sequence.checked_add(count).is_some())
    }

    fn stamp(&mut self, record_count: u32) -> ProducerStamp {
        let stamp = ProducerStamp { id: self.id, epoch: self.epoch, sequence: self.next_sequence };
        let count = i32::try_from(record_count).expect("has_room was asked");
        self.next_sequence += count;
        stamp
    }
}

/// What became of the batches on a wire that broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Appended {
    /// They were surely not appended.
    Nothing,
    /// The oldest was refused. Those behind it have no sequence that would be missed, and may be in
    /// the log without it.
    PerhapsBehindOldest,
    /// Nobody knows.
    Perhaps,
}

/// Batches in order: first the `sent` ones that are on the wire, then those that wait.
///
/// - Sequences are dense in the order of the batches, and a batch keeps its sequence when it is
///   sent again; only a new epoch gives new ones, to all.
/// - `sent <= in_flight_max`, and `sent` never exceeds the number of batches.
#[derive(Debug)]
pub(super) struct Pipeline {
    in_flight_max: usize,
    compression: Compression,
    /// `None`: not idempotent.
    identity: Option<Identity>,
    batches: VecDeque<Batch>,
    sent: usize,
}

impl Pipeline {
    pub(super) fn new(
        in_flight_max: usize,
        compression: Compression,
        identity: Option<Identity>,
    ) -> Pipeline {
        Pipeline { in_flight_max, compression, identity, batches: VecDeque::new(), sent: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Whether so many batches are under way that another one had better wait for more records.
    pub(super) fn is_busy(&self) -> bool {
        self.batches.len() >= BUSY_BATCHES
    }

    /// Whether one more batch could be on the wire at once with those that are here.
    pub(super) fn has_room(&self) -> bool {
        self.batches.len() < self.in_flight_max
    }

    pub(super) fn push(&mut self, batch: Batch) {
        self.batches.push_back(batch);
    }

    /// Whether there are batches that wait to be put on the wire.
    pub(super) fn has_to_send(&self) -> bool {
        self.sent < self.batches.len().min(self.in_flight_max)
    }

    /// The next batch to put on the wire. `None` if all are there.
    pub(super) fn next_to_send(&mut self) -> Option<Bytes> {
        if self.sent == self.in_flight_max {
            return None;
        }
        let alone = self.sent == 0;
        let batch = self.batches.get_mut(self.sent)?;
        let bytes = match (batch.sealed(), &mut self.identity) {
            (Some(bytes), _) => bytes,
            (None, None) => batch.stamp(self.compression, None),
            (None, Some(identity)) => {
                if !identity.has_room(batch.record_count()) {
                    // A new epoch begins only once everything of the old one is acknowledged: until
                    // then, a retry must be recognised by its old sequence.
                    if !alone {
                        return None;
                    }
                    identity.raise_epoch();
                }
                let stamp = identity.stamp(batch.record_count());
                batch.stamp(self.compression, Some(stamp))
            }
        };
        self.sent += 1;
        Some(bytes)
    }

    /// The answer to the oldest batch on the wire came. `None` if none is on the wire: the answer
    /// belongs to nothing.
    pub(super) fn answered(&mut self) -> Option<Batch> {
        self.sent = self.sent.checked_sub(1)?;
        self.batches.pop_front()
    }

    /// The oldest batch turned out to be appended, while nothing is on the wire.
    pub(super) fn found_appended(&mut self) -> Option<Batch> {
        assert!(self.sent == 0, "what is on the wire will be answered");
        self.batches.pop_front()
    }

    /// The wire broke: everything is to be sent again.
    pub(super) fn interrupted(&mut self, appended: Appended) {
        let surely_not = match appended {
            Appended::Nothing => self.sent,
            Appended::PerhapsBehindOldest => 1,
            Appended::Perhaps => 0,
        };
        for batch in self.batches.iter_mut().take(self.sent).skip(surely_not) {
            batch.maybe_appended = true;
        }
        self.sent = 0;
    }

    /// Whether sending again could double a record: some may have been appended, and the server
    /// could not tell.
    pub(super) fn could_double(&self) -> bool {
        self.identity.is_none() && self.batches.iter().any(|batch| batch.maybe_appended)
    }

    /// Whether the oldest batch may have been appended by an earlier attempt.
    pub(super) fn oldest_may_be_appended(&self) -> bool {
        self.batches.front().is_some_and(|batch| batch.maybe_appended)
    }

    /// The server does not know this producer: stamps everything anew under a higher epoch. Nothing
    /// may be on the wire, and nothing may have been appended.
    pub(super) fn start_again(&mut self) {
        assert!(self.sent == 0, "batches on the wire keep their sequence");
        assert!(!self.oldest_may_be_appended(), "a batch that may be appended keeps its sequence");
        let Some(identity) = &mut self.identity else { return };
        identity.raise_epoch();
        for batch in self.batches.iter_mut().take_while(|batch| batch.sealed().is_some()) {
            let stamp = identity.stamp(batch.record_count());
            batch.stamp(self.compression, Some(stamp));
        }
    }

    /// Gives every batch up. What comes later starts a new epoch, so that it neither waits for what
    /// is missing nor is mistaken for it.
    pub(super) fn give_up(&mut self) -> Vec<Batch> {
        self.sent = 0;
        if let Some(identity) = &mut self.identity {
            identity.raise_epoch();
        }
        self.batches.drain(..).collect()
    }

    /// How many batches are on the wire.
    pub(super) fn sent(&self) -> usize {
        self.sent
    }

    /// When the oldest batch has been tried for `timeout`.
    pub(super) fn expires_at(&self, timeout: Duration) -> Option<Instant> {
        self.batches.front().map(|batch| later(batch.begun(), timeout))
    }
}
