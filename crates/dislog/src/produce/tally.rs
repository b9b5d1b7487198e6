//! What became of the records: counted as their deliveries are confirmed, in order.

use std::collections::BTreeMap;

use dislog_client::{Delivered, Delivery, Error, Outcome};
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

/// Groups of deliveries that may wait to be confirmed. With the most records a group may have, this
/// bounds the memory that waiting deliveries take; the bytes of their records are bounded by the
/// producer's buffer.
pub(crate) const GROUPS_UNDER_WAY_MAX: usize = 256;

/// The deliveries of records that were read together.
pub(crate) struct Sent {
    /// The deliveries, in order.
    pub(crate) deliveries: Vec<Delivery>,
    /// Bytes of input that the records took.
    pub(crate) input_bytes: u64,
}

/// What is known of all records that were sent.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Records on stable storage, by partition.
    pub(crate) partitions: BTreeMap<u32, Span>,
    /// Records that may or may not have been added.
    pub(crate) unknown: u64,
    /// The first failure.
    pub(crate) failure: Option<Error>,
}

/// The records added to one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Span {
    /// How many.
    pub(crate) records: u64,
    /// The offset of the first.
    pub(crate) first_offset: u64,
    /// The offset of the last. Others may have added records in between.
    pub(crate) last_offset: u64,
}

impl Tally {
    /// How many records are on stable storage.
    pub(crate) fn records(&self) -> u64 {
        self.partitions.values().map(|span| span.records).sum()
    }

    fn count(&mut self, result: Result<Delivered, Error>) {
        match result {
            Ok(delivered) => {
                let offset = delivered.offset;
                let new = Span { records: 0, first_offset: offset, last_offset: offset };
                let span = self.partitions.entry(delivered.partition).or_insert(new);
                span.records += 1;
                span.last_offset = offset;
            }
            Err(error) => {
                if error.outcome() == Outcome::Unknown {
                    self.unknown += 1;
                }
                self.failure.get_or_insert(error);
            }
        }
    }
}

/// Counts until there are no more deliveries, and says so when one has failed. The second number
/// returned: bytes of input that were added.
pub(crate) async fn count(
    mut sent: mpsc::Receiver<Sent>,
    failed: oneshot::Sender<()>,
    progress: ProgressBar,
) -> (Tally, u64) {
    let mut failed = Some(failed);
    let mut tally = Tally::default();
    let mut input_bytes = 0;
    while let Some(group) = sent.recv().await {
        for delivery in group.deliveries {
            tally.count(delivery.await);
            if let Some(failed) = failed.take_if(|_| tally.failure.is_some()) {
                // Nothing may be left to be sent.
                let _ = failed.send(());
            }
        }
        if tally.failure.is_none() {
            input_bytes += group.input_bytes;
            progress.set_position(input_bytes);
            progress.set_message(format!("{} records", HumanCount(tally.records())));
        }
    }
    progress.finish_and_clear();
    (tally, input_bytes)
}

/// A progress bar on standard error if that is a terminal and nobody types the records.
pub(crate) fn progress(input_bytes: Option<u64>, is_typed: bool) -> ProgressBar {
    if is_typed {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(input_bytes, ProgressDrawTarget::stderr());
    let template = match input_bytes {
        Some(_) => "{wide_bar} {bytes}/{total_bytes}, {msg}, {bytes_per_sec}, {eta} left",
        None => "{spinner} {bytes}, {msg}, {bytes_per_sec}",
    };
    bar.with_style(ProgressStyle::with_template(template).expect("the template is a constant"))
}

/// What was added, for people.
pub(crate) fn summary(topic: &str, tally: &Tally, input_bytes: u64, elapsed: &str) -> String {
    let records = crate::topic::count(tally.records(), "record");
    let offsets = match tally.partitions.iter().next() {
        None => String::new(),
        Some(_) if tally.partitions.len() > 1 => {
            format!(", {} partitions", tally.partitions.len())
        }
        Some((_, span)) if span.records == 1 => format!(", offset {}", span.first_offset),
        Some((_, span)) => format!(", offsets {} to {}", span.first_offset, span.last_offset),
    };
    format!("added {records} to {topic}{offsets} ({} in {elapsed})", HumanBytes(input_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivered(partition: u32, offset: u64) -> Result<Delivered, Error> {
        Ok(Delivered { partition, offset, timestamp_ms: 0 })
    }

    #[test]
    fn records_are_counted_by_partition() {
        let mut tally = Tally::default();
        tally.count(delivered(0, 5));
        assert_eq!(summary("t", &tally, 1, "1 s"), "added 1 record to t, offset 5 (1 B in 1 s)");
        tally.count(delivered(0, 6));
        assert_eq!(
            summary("t", &tally, 2, "1 s"),
            "added 2 records to t, offsets 5 to 6 (2 B in 1 s)"
        );
        tally.count(delivered(3, 0));
        assert_eq!(
            summary("t", &tally, 3, "1 s"),
            "added 3 records to t, 2 partitions (3 B in 1 s)"
        );
        assert_eq!(tally.partitions[&0], Span { records: 2, first_offset: 5, last_offset: 6 });
    }

    #[test]
    fn the_first_failure_counts_and_unknown_outcomes_are_told_apart() {
        let id = dislog_client::PartitionId {
            topic: dislog_client::TopicName::default_topic(),
            partition: 0,
        };
        let unknown = Error::UnknownOutcome { id, last: "reset".into() };
        let mut tally = Tally::default();
        tally.count(delivered(0, 0));
        tally.count(Err(unknown.clone()));
        tally.count(Err(Error::Abandoned { cause: Box::new(unknown.clone()) }));
        assert_eq!((tally.records(), tally.unknown), (1, 1));
        assert_eq!(tally.failure, Some(unknown));
    }
}
