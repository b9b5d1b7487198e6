//! Where records of one partition gather into batches: pure state, filled by `send`, emptied by the
//! sender task.

use std::collections::VecDeque;
use std::time::Duration;

use dislog_types::Record;
use tokio::time::Instant;

use super::Delivery;
use super::batch::{Batch, Waiting};
use crate::Error;
use crate::retry::later;

/// Batches that are not taken by the sender task yet.
///
/// - Records leave in the order in which they came: `sealed` before `open`.
/// - After a failure nothing is accepted until `resume`.
#[derive(Debug)]
pub(super) struct Accumulator {
    batch_bytes_max: usize,
    open: Option<Batch>,
    sealed: VecDeque<Batch>,
    /// How large the last batch became: what to expect of the next.
    expected_bytes: usize,
    last: Option<Waiting>,
    failed: Option<Error>,
    closed: bool,
}

/// What became of a record.
#[derive(Debug)]
pub(super) struct Pushed {
    pub(super) delivery: Delivery,
    /// The sender task has something new to look at: a batch was begun or became full.
    pub(super) wake: bool,
    /// A batch became full.
    pub(super) filled: bool,
}

impl Accumulator {
    pub(super) fn new(batch_bytes_max: usize) -> Accumulator {
        Accumulator {
            batch_bytes_max,
            open: None,
            sealed: VecDeque::new(),
            expected_bytes: 0,
            last: None,
            failed: None,
            closed: false,
        }
    }

    /// Adds a record that holds `bytes_held` of the buffer. The time is asked for if it begins a
    /// batch.
    pub(super) fn push(
        &mut self,
        record: &Record,
        bytes_held: usize,
        now: impl FnOnce() -> Instant,
    ) -> Result<Pushed, Error> {
        self.check()?;
        if let Some(open) = &mut self.open
            && open.push(record, bytes_held, self.batch_bytes_max)
        {
            let filled = open.open_bytes() >= self.batch_bytes_max;
            let delivery = open.delivery_of_last();
            if filled {
                self.seal();
            }
            return Ok(Pushed { delivery, wake: filled, filled });
        }
        let filled = self.seal();
        let batch = Batch::begin(record, bytes_held, self.expected_bytes, now());
        let delivery = batch.delivery_of_last();
        self.last = Some(batch.waiting());
        self.open = Some(batch);
        Ok(Pushed { delivery, wake: true, filled })
    }

    /// Whether records are accepted.
    pub(super) fn check(&self) -> Result<(), Error> {
        match &self.failed {
            _ if self.closed => Err(Error::Closed),
            Some(cause) => Err(Error::Abandoned { cause: Box::new(cause.clone()) }),
            None => Ok(()),
        }
    }

    /// Lets the open batch wait no longer. Says whether there was one.
    pub(super) fn seal(&mut self) -> bool {
        let Some(batch) = self.open.take() else { return false };
        self.expect_alike(&batch);
        self.sealed.push_back(batch);
        true
    }

    fn expect_alike(&mut self, batch: &Batch) {
        self.expected_bytes = batch.open_bytes().min(self.batch_bytes_max);
    }

    /// Whether all there is is a batch that is not full.
    pub(super) fn is_filling(&self) -> bool {
        self.open.is_some() && self.sealed.is_empty()
    }

    /// The next batch to send: a sealed one; or the open one if it has waited for `linger`, or
    /// `at_once`.
    pub(super) fn take_ready(
        &mut self,
        now: Instant,
        linger: Duration,
        at_once: bool,
    ) -> Option<Batch> {
        if let Some(batch) = self.sealed.pop_front() {
            return Some(batch);
        }
        let is_ready = |open: &mut Batch| at_once || now >= later(open.begun(), linger);
        let batch = self.open.take_if(is_ready)?;
        self.expect_alike(&batch);
        Some(batch)
    }

    /// When `take_ready` has something that it has not now; `None` if only a new record can change
    /// that.
    pub(super) fn ready_at(&self, linger: Duration) -> Option<Instant> {
        let first = self.sealed.front().map(Batch::begun);
        first.or_else(|| self.open.as_ref().map(|open| later(open.begun(), linger)))
    }

    /// Refuses records from now on, and gives back those that are here.
    pub(super) fn fail(&mut self, error: Error) -> Vec<Batch> {
        self.seal();
        self.failed.get_or_insert(error);
        self.sealed.drain(..).collect()
    }

    /// Why records are refused, if a delivery failed.
    pub(super) fn failed(&self) -> Option<&Error> {
        self.failed.as_ref()
    }

    /// Accepts records again.
    pub(super) fn resume(&mut self) {
        if self.failed.take().is_some() {
            // What failed is of the past, and nothing was accepted behind it.
            self.last = None;
        }
    }

    /// Refuses records from now on and seals what there is.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.seal();
    }

    /// Closed, and everything was taken.
    pub(super) fn is_finished(&self) -> bool {
        self.closed && self.open.is_none() && self.sealed.is_empty()
    }

    /// What waits for the record accepted last, and so for all before it.
    pub(super) fn last(&self) -> Option<Waiting> {
        self.last.clone()
    }
}
