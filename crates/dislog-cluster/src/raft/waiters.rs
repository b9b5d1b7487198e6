//! Who waits for what: appends and trims for their entry, retries for the entry of the first
//! attempt, reads for what was committed before them.

use std::collections::VecDeque;

use dislog_types::PartitionId;
use tokio::sync::oneshot;

use super::input::AppendReply;
use crate::error::{AppendError, ReadError};
use crate::partition::append::Appended;

/// Callers whose entries were proposed and not yet applied.
///
/// - `proposed` is in the order of `raft_index`.
#[derive(Default)]
pub(super) struct Waiters {
    proposed: VecDeque<(u64, Waiter)>,
    duplicates: Vec<(Appended, AppendReply)>,
}

/// One caller.
pub(super) enum Waiter {
    Append(Appended, AppendReply),
    Trim(oneshot::Sender<Result<u64, AppendError>>),
}

impl Waiter {
    fn fail(self, error: &AppendError) {
        match self {
            Waiter::Append(_, reply) => reply.send(Err(error.clone())),
            Waiter::Trim(reply) => {
                let _ = reply.send(Err(error.clone()));
            }
        }
    }
}

impl Waiters {
    /// Waits for the entry at `raft_index`, behind all others that were proposed.
    pub(super) fn push(&mut self, raft_index: u64, waiter: Waiter) {
        let in_order = self.proposed.back().is_none_or(|(last, _)| *last < raft_index);
        assert!(in_order, "entries are proposed in order");
        self.proposed.push_back((raft_index, waiter));
    }

    /// Waits for a batch that was proposed before, by somebody else.
    pub(super) fn push_duplicate(&mut self, place: Appended, reply: AppendReply) {
        self.duplicates.push((place, reply));
    }

    /// Answers everyone whose entry is applied.
    pub(super) fn complete(&mut self, applied: u64, start_offset: u64, committed_offset: u64) {
        while self.proposed.front().is_some_and(|(raft_index, _)| *raft_index <= applied) {
            match self.proposed.pop_front().expect("there is a first").1 {
                Waiter::Append(place, reply) => reply.send(Ok(place)),
                Waiter::Trim(reply) => {
                    let _ = reply.send(Ok(start_offset));
                }
            }
        }
        for (place, reply) in self.duplicates.extract_if(.., |(place, _)| {
            place.base_offset + u64::from(place.record_count) <= committed_offset
        }) {
            reply.send(Ok(place));
        }
    }

    /// Tells everyone the same.
    pub(super) fn fail(&mut self, error: &AppendError) {
        for (_, waiter) in self.proposed.drain(..) {
            waiter.fail(error);
        }
        for (_, reply) in self.duplicates.drain(..) {
            reply.send(Err(error.clone()));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.proposed.is_empty() && self.duplicates.is_empty()
    }
}

/// Ticks after which a read that nobody confirmed is given up: its question was lost.
const READ_TICKS_MAX: u64 = 20;

/// Linearizable reads under way, by the number that stands for them in Raft.
///
/// The numbers begin anew with the process, and a leader may confirm what was asked before by the
/// one before: so what stands for a read also names the session that asked.
#[derive(Default)]
pub(super) struct Reads {
    session: u64,
    asked: VecDeque<Asked>,
    /// Confirmed, waiting until this raft_index is applied.
    confirmed: Vec<(u64, oneshot::Sender<Result<(), ReadError>>)>,
    next_number: u64,
    ticks: u64,
}

struct Asked {
    number: u64,
    tick: u64,
    reply: oneshot::Sender<Result<(), ReadError>>,
}

impl Reads {
    /// None, in a run that `session` stands for.
    pub(super) fn new(session: u64) -> Reads {
        Reads { session, ..Reads::default() }
    }

    /// Takes on a read; returns the context that stands for it among those of all replicas.
    pub(super) fn push(
        &mut self,
        replica: u64,
        reply: oneshot::Sender<Result<(), ReadError>>,
    ) -> Vec<u8> {
        self.next_number += 1;
        let number = self.next_number;
        self.asked.push_back(Asked { number, tick: self.ticks, reply });
        [number, replica, self.session].map(u64::to_le_bytes).concat()
    }

    /// Some time passed.
    pub(super) fn tick(&mut self, id: &PartitionId) {
        self.ticks += 1;
        let lost = |asked: &Asked| asked.tick + READ_TICKS_MAX < self.ticks;
        while self.asked.front().is_some_and(lost) {
            let asked = self.asked.pop_front().expect("there is a first");
            let _ = asked.reply.send(Err(ReadError::NoLeader(id.clone())));
        }
    }

    /// Raft confirmed the read of `context`, and with it those asked before: it may be served once
    /// `raft_index` is applied.
    pub(super) fn confirm(&mut self, context: &[u8], raft_index: u64) {
        let Some(number) = context.first_chunk().copied().map(u64::from_le_bytes) else { return };
        if context.last_chunk() != Some(&self.session.to_le_bytes()) {
            return;
        }
        while self.asked.front().is_some_and(|asked| asked.number <= number) {
            let asked = self.asked.pop_front().expect("there is a first");
            self.confirmed.push((raft_index, asked.reply));
        }
    }

    /// Answers every read whose position is applied.
    pub(super) fn complete(&mut self, applied: u64) {
        for (_, reply) in self.confirmed.extract_if(.., |(raft_index, _)| *raft_index <= applied) {
            let _ = reply.send(Ok(()));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.asked.is_empty() && self.confirmed.is_empty()
    }

    /// There is no leader any more that could confirm.
    pub(super) fn fail(&mut self, id: &PartitionId) {
        let confirmed = self.confirmed.drain(..).map(|(_, reply)| reply);
        for reply in self.asked.drain(..).map(|asked| asked.reply).chain(confirmed) {
            let _ = reply.send(Err(ReadError::NoLeader(id.clone())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_is_not_confirmed_by_an_answer_to_the_process_before() {
        let ask = |reads: &mut Reads| {
            let (reply, answer) = oneshot::channel();
            (reads.push(2, reply), answer)
        };
        let (mut before, mut after) = (Reads::new(70), Reads::new(71));
        let (late, _) = ask(&mut before);
        let (context, mut answer) = ask(&mut after);
        after.confirm(&late, 280);
        after.complete(280);
        assert!(answer.try_recv().is_err(), "a later entry was committed since");
        after.confirm(&context, 328);
        after.complete(327);
        assert!(answer.try_recv().is_err());
        after.complete(328);
        assert_eq!(answer.try_recv(), Ok(Ok(())));
    }
}
