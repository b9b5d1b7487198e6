//! Clients at work: each does one thing after the other, one request at a time.

use dislog_cluster::{AppendError, ReadError, TopicError};
use dislog_types::PartitionId;
use dislog_types::batch::ProducerStamp;

use crate::oracle::{Oracle, Violation};
use crate::properties::streams::Tail;
use crate::random::Random;
use crate::workload::{Answer, Body, Request, batch};

/// How long a client waits for an answer.
const TIMEOUT_MS: u64 = 2_000;

/// How long it rests after an answer that says to try again.
const RETRY_MS: u64 = 60;

/// The most bytes that a record has beyond saying whose it is.
const FILL_BYTES_MAX: u64 = 300;

/// What a client is for.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    /// Appends, once each: what may have happened is not tried again.
    Plain,
    /// Appends, tried again until the answer is known.
    Idempotent { id: i64, sequence: i32 },
    /// Appends, each at the end that it expects.
    Conditional { expected: u64 },
    /// Asks for the end.
    Linear,
    /// Reads everything.
    Tail(Tail),
    /// Moves the start.
    Trims,
    /// Creates the topic, once.
    Creates { partitions: u32, retention_bytes: u64 },
    /// Has a node drained, once.
    Drains { node_id: u64 },
}

/// An append under way.
#[derive(Clone, Debug)]
struct Operation {
    attempt: u64,
    batch: Vec<u8>,
    count: i32,
    /// What was seen when it was first asked for.
    floor: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Actor {
    pub(crate) work: Work,
    pub(crate) partition: PartitionId,
    /// The machine to ask next.
    pub(crate) target: usize,
    /// The number of the request that waits for its answer, or that was the last.
    pub(crate) call: u64,
    pub(crate) waits: bool,
    pub(crate) done: bool,
    /// Requests that came to something.
    pub(crate) successes: u64,
    operation: Option<Operation>,
    floor: u64,
    /// How long it rests between two operations.
    pause_ms_max: u64,
}

impl Actor {
    pub(crate) fn new(work: Work, partition: PartitionId, random: &mut Random) -> Actor {
        Actor {
            work,
            partition,
            target: 0,
            call: 0,
            waits: false,
            done: false,
            successes: 0,
            operation: None,
            floor: 0,
            pause_ms_max: [20, 100, 400][random.index(3)],
        }
    }

    /// What it asks for next, and how long it will wait.
    pub(crate) fn ask(
        &mut self,
        oracle: &Oracle,
        attempts: &mut u64,
        random: &mut Random,
    ) -> (Request, u64) {
        self.call += 1;
        self.waits = true;
        let id = self.partition.clone();
        let request = match &self.work {
            Work::Plain | Work::Idempotent { .. } | Work::Conditional { .. } => {
                if self.operation.is_none() {
                    self.operation = Some(self.operation(oracle, attempts, random));
                }
                let operation = self.operation.as_ref().expect("it was just made");
                let expected_offset = match self.work {
                    Work::Conditional { expected } => Some(expected),
                    _ => None,
                };
                Request::Append { to: id, batch: operation.batch.clone(), expected_offset }
            }
            Work::Linear => {
                self.floor = oracle.asks(&self.partition);
                Request::Linearize { of: id }
            }
            Work::Tail(tail) => Request::Read { of: id, offset: tail.next },
            Work::Trims => {
                let group = oracle.facts.of(&id);
                let end = group.map_or(0, |group| group.records.len() as u64);
                Request::Trim { of: id, offset: random.below(end + 1) }
            }
            &Work::Creates { partitions, retention_bytes } => {
                Request::Create { partitions, retention_bytes }
            }
            &Work::Drains { node_id } => Request::Drain { node_id },
        };
        (request, TIMEOUT_MS)
    }

    fn operation(&self, oracle: &Oracle, attempts: &mut u64, random: &mut Random) -> Operation {
        *attempts += 1;
        let count = u32::try_from(random.within(1, 4)).expect("it is small");
        let by = match self.work {
            Work::Idempotent { id, sequence } => Some(ProducerStamp { id, epoch: 0, sequence }),
            _ => None,
        };
        let fill = random.index(usize::try_from(FILL_BYTES_MAX).expect("it is small"));
        Operation {
            attempt: *attempts,
            batch: batch(*attempts, count, fill, by),
            count: i32::try_from(count).expect("it is small"),
            floor: oracle.asks(&self.partition),
        }
    }

    /// Takes an answer in; returns how long it rests.
    pub(crate) fn answer(
        &mut self,
        answer: Answer,
        oracle: &mut Oracle,
        random: &mut Random,
    ) -> Result<u64, Violation> {
        self.waits = false;
        let before = self.successes;
        match answer.body {
            Body::Append(Ok(told)) => {
                let operation = self.operation.take().expect("it asked for an append");
                let (attempt, floor) = (operation.attempt, operation.floor);
                oracle.appended(&self.partition, attempt, floor, &told)?;
                if let Work::Conditional { expected } = &self.work
                    && told.base_offset != *expected
                {
                    let message = format!("expected {expected}, appended as {told:?}");
                    return Err(Violation { property: "linearizable", message });
                }
                self.successes += 1;
                self.next_operation(operation.count, told.base_offset);
            }
            Body::Append(Err(error)) => self.not_appended(&error, oracle)?,
            Body::Linearize(Ok(end)) => {
                self.successes += 1;
                oracle.linearized(&self.partition, self.floor, end)?;
            }
            Body::Read(result) => {
                let Work::Tail(tail) = &mut self.work else { return Ok(RETRY_MS) };
                oracle.tailed(&self.partition, tail, &result)?;
                self.successes += u64::from(result.is_ok());
                // A tail goes on at once, sometimes elsewhere; also where the log starts now, or
                // it could be trimmed again before a tail that waits comes back.
                let goes_on = matches!(result, Ok(_) | Err(ReadError::Trimmed { .. }));
                if goes_on && !random.permille(100) {
                    return Ok(1);
                }
                self.target = usize::MAX;
            }
            Body::Trim(Ok(_)) => self.successes += 1,
            Body::Topic(Ok(()) | Err(TopicError::Exists(_))) => self.done = true,
            // The node lost its disk, or was drained and removed by an attempt without an answer.
            Body::Topic(Err(TopicError::Invalid(_)))
                if matches!(self.work, Work::Drains { .. }) =>
            {
                self.done = true;
            }
            Body::Linearize(Err(_)) | Body::Trim(Err(_)) | Body::Topic(Err(_)) => {}
        }
        if self.successes == before {
            self.target = usize::MAX;
        }
        Ok(match self.successes > before {
            true => 1 + random.below(self.pause_ms_max),
            false => RETRY_MS / 2 + random.below(RETRY_MS),
        })
    }

    fn next_operation(&mut self, count: i32, base_offset: u64) {
        match &mut self.work {
            Work::Idempotent { sequence, .. } => *sequence += count,
            Work::Conditional { expected } => {
                *expected = base_offset + u64::try_from(count).expect("it is not negative");
            }
            _ => {}
        }
    }

    fn not_appended(&mut self, error: &AppendError, oracle: &mut Oracle) -> Result<(), Violation> {
        let unknown = matches!(error, AppendError::UnknownOutcome | AppendError::Stopped(_));
        let idempotent = matches!(self.work, Work::Idempotent { .. });
        if !unknown && !idempotent {
            let operation = self.operation.take().expect("it asked for an append");
            oracle.refused(operation.attempt)?;
        }
        match (&mut self.work, error) {
            (Work::Conditional { expected }, AppendError::UnexpectedOffset { actual, .. }) => {
                *expected = *actual;
            }
            (
                Work::Idempotent { id, sequence },
                AppendError::ProducerUnknown { .. } | AppendError::SequenceForgotten { .. },
            ) => {
                // What it appended was trimmed: it begins again, as another.
                *id += 1_000;
                *sequence = 0;
                self.operation = None;
            }
            (Work::Idempotent { .. }, _) => {}
            _ if unknown => self.operation = None,
            _ => {}
        }
        Ok(())
    }

    /// No answer came.
    pub(crate) fn timed_out(&mut self) -> u64 {
        self.waits = false;
        self.target = usize::MAX;
        if matches!(self.work, Work::Plain | Work::Conditional { .. }) {
            self.operation = None;
        }
        1
    }
}
