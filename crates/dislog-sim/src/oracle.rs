//! The oracle: looks at every replica after each of its turns, hears every answer that a client
//! gets, and has each property judge what it concerns.

use std::collections::BTreeMap;

use dislog_cluster::sim::Replica;
use dislog_cluster::{Appended, ReadError, StoredBatch};
use dislog_log::{Frame, Log};
use dislog_types::PartitionId;

use crate::facts::Facts;
use crate::properties::acknowledged_is_durable::{self, AcknowledgedIsDurable};
use crate::properties::election_safety::ElectionSafety;
use crate::properties::linearizable::Linearizable;
use crate::properties::no_duplicates::NoDuplicates;
use crate::properties::streams::Tail;
use crate::properties::{Verdict, committed_reads, dense_offsets, log_matching, monotone_time};

/// Bytes of frames looked at in one go.
const LOOK_BYTES: u64 = 1 << 20;

/// A property that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its name.
    pub property: &'static str,
    /// What was seen.
    pub message: String,
}

/// Gives a verdict its name.
pub(crate) fn named<T>(property: &'static str, verdict: Result<T, String>) -> Result<T, Violation> {
    verdict.map_err(|message| Violation { property, message })
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    pub(crate) facts: Facts,
    /// What was seen of each replica in each life: applied up to there.
    seen: BTreeMap<(usize, u64, u64), u64>,
    election_safety: ElectionSafety,
    durable: AcknowledgedIsDurable,
    no_duplicates: NoDuplicates,
    linearizable: Linearizable,
    /// Appends that were acknowledged, and reads that were answered: a seed in which nothing
    /// happens proves nothing.
    pub(crate) acknowledged: u64,
    pub(crate) reads: u64,
}

impl Oracle {
    /// Looks at the replicas of a machine after its turn.
    pub(crate) fn look(
        &mut self,
        machine: usize,
        life: u64,
        replicas: &[Replica],
    ) -> Result<(), Violation> {
        for replica in replicas {
            self.durable.saw(replica);
        }
        for replica in replicas {
            let is_new = named("election safety", self.election_safety.saw(replica))?;
            if is_new {
                let group = self.facts.group(replica.group, &replica.partition);
                let verdict = self.durable.elected(group, replica);
                named("acknowledged is durable", verdict)?;
            }
            self.look_at_applied((machine, life, replica.group), replica)?;
        }
        Ok(())
    }

    fn look_at_applied(
        &mut self,
        who: (usize, u64, u64),
        replica: &Replica,
    ) -> Result<(), Violation> {
        let Some(log) = replica.log.as_ref().filter(|_| !replica.installing) else {
            return Ok(());
        };
        let seen = self.seen.get(&who).copied().unwrap_or(0);
        let mut next = (seen + 1).max(log.bounds().first_raft_index);
        while next <= replica.applied {
            // What cannot be read for damage is not looked at; nobody is told of it either.
            let Ok(frames) = log.frames(next, replica.applied + 1, LOOK_BYTES) else { break };
            if frames.is_empty() {
                break;
            }
            for frame in &frames {
                self.look_at_frame(replica, frame)?;
            }
            next += frames.len() as u64;
        }
        self.seen.insert(who, replica.applied);
        Ok(())
    }

    fn look_at_frame(&mut self, replica: &Replica, frame: &Frame) -> Result<(), Violation> {
        let group = self.facts.group(replica.group, &replica.partition);
        if let Some(known) = group.entry(frame.raft_index) {
            return named("log matching", log_matching::check_applied(group, frame, known));
        }
        let expected = group.entries.len() as u64 + 1;
        if frame.raft_index != expected {
            let message = format!("entry {} is applied before {expected}", frame.raft_index);
            return Err(Violation { property: "log matching", message });
        }
        named("dense offsets", dense_offsets::check(group, frame))?;
        named("monotone time", monotone_time::check(group, frame))?;
        let attempt = named("dense offsets", group.push(frame, replica.term))?;
        if let Some(attempt) = attempt {
            let (offset, start) = (frame.base_offset, group.start_offset);
            let verdict = self.no_duplicates.committed(attempt, offset, start);
            named("no duplicates", verdict)?;
        }
        if replica.leads {
            let verdict = self.durable.committed(replica, frame.raft_index);
            named("acknowledged is durable", verdict)?;
        }
        Ok(())
    }

    /// Compares logs of one group, each with how far it is applied: up to there, all of it was
    /// compared with what is committed.
    pub(crate) fn compare(&self, logs: &[(Log, u64)]) -> Result<(), Violation> {
        for (number, a) in logs.iter().enumerate() {
            for b in &logs[number + 1..] {
                let applied = a.1.min(b.1);
                named("log matching", log_matching::check_pair(&a.0, &b.0, applied))?;
            }
        }
        Ok(())
    }

    /// A client asks for an append or a linearizable read; what it gets is to be given back with
    /// the answer.
    pub(crate) fn asks(&self, partition: &PartitionId) -> u64 {
        self.linearizable.asks(partition)
    }

    pub(crate) fn appended(
        &mut self,
        partition: &PartitionId,
        attempt: u64,
        floor: u64,
        told: &Appended,
    ) -> Result<(), Violation> {
        self.acknowledged += 1;
        let group = self.facts.of(partition);
        let verdict = acknowledged_is_durable::acknowledged(group, attempt, told);
        named("acknowledged is durable", verdict)?;
        let offsets = told.base_offset..told.base_offset + u64::from(told.record_count);
        named("linearizable", self.linearizable.appended(partition, floor, offsets))
    }

    pub(crate) fn refused(&mut self, attempt: u64) -> Result<(), Violation> {
        named("no duplicates", self.no_duplicates.refused(attempt))
    }

    pub(crate) fn linearized(
        &mut self,
        partition: &PartitionId,
        floor: u64,
        end: u64,
    ) -> Result<(), Violation> {
        self.reads += 1;
        let known = self.facts.of(partition).map_or(0, |group| group.records.len() as u64);
        let verdict: Verdict = match end <= known {
            true => Ok(()),
            false => Err(format!("{partition} ends at {end}, committed are {known}")),
        };
        named("committed reads", verdict)?;
        named("linearizable", self.linearizable.read(partition, floor, end))
    }

    pub(crate) fn tailed(
        &mut self,
        partition: &PartitionId,
        tail: &mut Tail,
        answer: &Result<Vec<StoredBatch>, ReadError>,
    ) -> Result<(), Violation> {
        let group = self.facts.of(partition);
        match answer {
            Ok(batches) => {
                self.reads += 1;
                for batch in batches {
                    named("committed reads", committed_reads::check(group, batch))?;
                }
                named("streams", tail.read(batches))
            }
            Err(error) => named("streams", tail.refused(group, error)),
        }
    }
}
