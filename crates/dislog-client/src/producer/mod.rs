//! Adding records.
//!
//! ```text
//!  send ─► permit (bytes) ─► accumulator ─► pipeline ─► ProduceStream ─► leader
//!  Delivery ◄──────────────────────────── outcome ◄───── answers, in order
//! ```
//! Handles share one accumulator per partition, a mutex held for the time of encoding one record.
//! One task per partition, started by its first record, owns everything behind it.
//!
//! Left out: one stream for several partitions. A failure ends a stream, and partitions fail by
//! themselves.

mod accumulator;
mod batch;
mod pipeline;
mod requests;
mod route;
mod sender;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use dislog_types::limits::{BATCH_BYTES_MAX, PRODUCER_BATCHES_REMEMBERED};
use dislog_types::time::{Clock, SystemClock};
use dislog_types::{PartitionId, TopicName};
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::client::{Client, check_record};
use crate::router::Router;
use crate::{Compression, Error, Record};
use batch::{Appended, Waiting};
use route::Route;
use sender::{Sender, Shared};

/// The most batches of a partition that may be under way: half of what the server remembers, so
/// that it recognises all of them when they come again behind as many others.
const IN_FLIGHT_MAX: usize = PRODUCER_BATCHES_REMEMBERED / 2;

/// What a record holds of the buffer beside its content: framing, and what waits for it.
const RECORD_OVERHEAD_BYTES: usize = 64;

/// The shortest time for an answer: less than a sync of a slow disk, and every batch would be sent
/// twice.
const ANSWER_TIMEOUT_MIN: Duration = Duration::from_millis(100);

/// The largest buffer: what one permit can count.
const BUFFER_BYTES_MAX: usize = 1 << 31;

/// How a producer behaves.
#[derive(Clone, Debug)]
pub struct ProducerOptions {
    /// Send everything to this partition. `None`: by the hash of the key, as Kafka's Java client
    /// does; records without a key go to one partition until a batch is full, then to another.
    pub partition: Option<u32>,
    /// How batches are compressed. None.
    pub compression: Compression,
    /// A batch is sent when it has this many bytes, before compression. A larger record travels
    /// alone. 1 MiB.
    pub batch_bytes_max: usize,
    /// A batch that is not full waits at most this long for more records, and does not wait at all
    /// while fewer than two others of its partition are under way. 5 ms.
    pub linger: Duration,
    /// Bytes of records that may be accepted and not yet acknowledged; `send` waits for room.
    /// Records count with their content and 64 bytes each. 32 MiB.
    pub buffer_bytes_max: usize,
    /// Batches of one partition that may be under way at once: 1 to 32. 16.
    pub in_flight_max: usize,
    /// How long the delivery of a record is tried, from when its batch was begun. 120 s.
    pub delivery_timeout: Duration,
    /// How long the leader of a partition may leave a batch unanswered before it is looked for
    /// elsewhere, and all that is unanswered sent again: the time without a server that is stopped
    /// but not gone. Doubles while that does not help. 1.25 s.
    pub answer_timeout: Duration,
    /// Retries never double a record. If off, a broken connection fails what was under way, a
    /// refused batch fails those sent behind it, and `answer_timeout` does not apply. On.
    pub idempotent: bool,
}

impl Default for ProducerOptions {
    fn default() -> ProducerOptions {
        ProducerOptions {
            partition: None,
            compression: Compression::None,
            batch_bytes_max: 1 << 20,
            linger: Duration::from_millis(5),
            buffer_bytes_max: 32 << 20,
            in_flight_max: 16,
            delivery_timeout: Duration::from_secs(120),
            answer_timeout: Duration::from_millis(1_250),
            idempotent: true,
        }
    }
}

impl ProducerOptions {
    fn check(&self) -> Result<(), Error> {
        let within = |name: &str, value: usize, min: usize, max: usize| {
            let message = || format!("{name} is {value}, it must be {min} to {max}");
            if (min..=max).contains(&value) { Ok(()) } else { Err(Error::Options(message())) }
        };
        within("in_flight_max", self.in_flight_max, 1, IN_FLIGHT_MAX)?;
        if self.answer_timeout < ANSWER_TIMEOUT_MIN {
            let given = self.answer_timeout;
            let message = format!("answer_timeout is {given:?}, at least {ANSWER_TIMEOUT_MIN:?}");
            return Err(Error::Options(message));
        }
        within("batch_bytes_max", self.batch_bytes_max, 1, BATCH_BYTES_MAX)?;
        within("buffer_bytes_max", self.buffer_bytes_max, 1, BUFFER_BYTES_MAX)
    }
}

/// Where a record was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// The partition.
    pub partition: u32,
    /// The record's offset.
    pub offset: u64,
    /// When it was appended, Unix milliseconds.
    pub timestamp_ms: i64,
}

/// The delivery of one record: a future that resolves once the record is on stable storage, or
/// failed. Deliveries of a partition resolve in the order of `send`. Dropping one does not cancel
/// the delivery.
#[derive(Debug)]
#[must_use = "a delivery that is not awaited may fail unseen; `flush` reports failures too"]
pub struct Delivery {
    batch: Waiting,
    position: u32,
}

impl Future for Delivery {
    type Output = Result<Delivered, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = std::task::ready!(Pin::new(&mut self.batch).poll(context));
        Poll::Ready(settled(outcome).map(|appended| Delivered {
            partition: appended.partition,
            offset: appended.offset + u64::from(self.position),
            timestamp_ms: appended.timestamp_ms,
        }))
    }
}

fn settled(
    outcome: Result<Result<Appended, Error>, tokio::sync::oneshot::error::RecvError>,
) -> Result<Appended, Error> {
    let ended = |_| Error::UnknownOutcome {
        id: crate::client::whole_topic(None),
        last: "the producer's runtime ended".to_owned(),
    };
    outcome.unwrap_or_else(|error| Err(ended(error)))
}

/// Adds records to a topic. A cheap handle: clones share buffer, batches and order.
///
/// When the last handle is dropped without [`Producer::close`], what was accepted is still sent in
/// the background, as long as the runtime lives and [`ProducerOptions::delivery_timeout`] allows; a
/// failure of that is seen by nobody but who awaits the deliveries.
#[derive(Clone, Debug)]
pub struct Producer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    client: Client,
    topic: TopicName,
    options: ProducerOptions,
    room: Arc<Semaphore>,
    /// Found out by the first `send`.
    lanes: OnceCell<Lanes>,
}

/// The partitions that this producer sends to.
#[derive(Debug)]
struct Lanes {
    router: Router,
    lanes: Vec<Lane>,
}

/// One partition.
#[derive(Debug)]
struct Lane {
    partition: u32,
    shared: Arc<Shared>,
    started: OnceLock<()>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Producer {
    pub(crate) fn new(
        client: Client,
        topic: TopicName,
        options: ProducerOptions,
    ) -> Result<Producer, Error> {
        options.check()?;
        let room = Arc::new(Semaphore::new(options.buffer_bytes_max));
        let inner = Inner { client, topic, options, room, lanes: OnceCell::new() };
        Ok(Producer { inner: Arc::new(inner) })
    }

    /// Accepts a record: waits for room in the buffer, then puts it into a batch, and returns its
    /// delivery. A record without a creation time gets the time of now.
    ///
    /// Safe to cancel: a record whose `send` did not return is not sent.
    ///
    /// # Errors
    /// If the record is too large, the producer is closed, or an earlier delivery failed: see
    /// [`Producer::resume`]. The first call also fails if the topic's partitions cannot be found
    /// out.
    pub async fn send(&self, mut record: Record) -> Result<Delivery, Error> {
        let bytes = self.bytes_held(&record)?;
        let lanes = self.lanes().await?;
        let room = &self.inner.room;
        // Whatever holds the room is under way, or will be once nothing else of its partition is.
        let permit = room.acquire_many(bytes).await.map_err(|_| Error::Closed)?;
        if record.created_ms == 0 {
            record.created_ms = SystemClock.now_ms();
        }
        let lane = lanes.lane_of(&record);
        let pushed = lane.shared.lock().push(&record, bytes as usize, Instant::now)?;
        permit.forget();
        if pushed.wake {
            lane.shared.wake.notify_one();
            self.start(lane);
        }
        if pushed.filled {
            lanes.router.batch_is_full();
        }
        Ok(pushed.delivery)
    }

    /// Sends what is waiting in batches and waits until everything accepted before this call was
    /// delivered.
    ///
    /// # Errors
    /// The first failure, if any delivery failed since the producer was made or resumed.
    pub async fn flush(&self) -> Result<(), Error> {
        let Some(lanes) = self.inner.lanes.get() else { return Ok(()) };
        lanes.seal_all();
        let mut result = Ok(());
        for lane in &lanes.lanes {
            let (last, failed) = {
                let accumulator = lane.shared.lock();
                (accumulator.last(), accumulator.failed().cloned())
            };
            let outcome = match (failed, last) {
                (Some(error), _) => Err(error),
                (None, Some(last)) => self.settled(last, lane).await,
                (None, None) => Ok(()),
            };
            result = result.and(outcome);
        }
        result
    }

    /// Flushes and ends the producer: later sends, through every handle, fail with
    /// [`Error::Closed`].
    ///
    /// # Errors
    /// As [`Producer::flush`].
    pub async fn close(&self) -> Result<(), Error> {
        self.inner.room.close();
        self.inner.end();
        let result = self.flush().await;
        let Some(lanes) = self.inner.lanes.get() else { return result };
        for lane in &lanes.lanes {
            let task = lane.task.lock().unwrap_or_else(PoisonError::into_inner).take();
            // It may also have been cancelled, with its runtime.
            if let Some(Err(ended)) = wait_for(task).await
                && let Ok(panic) = ended.try_into_panic()
            {
                std::panic::resume_unwind(panic);
            }
        }
        result
    }

    /// Goes on after a failed delivery. Until this is called, everything sent to that partition
    /// after the failed record fails too, so that no record follows one that is missing: what a
    /// producer adds to a partition is a prefix of what it was given.
    pub fn resume(&self) {
        let Some(lanes) = self.inner.lanes.get() else { return };
        lanes.lanes.iter().for_each(|lane| lane.shared.lock().resume());
    }

    /// The outcome of the last record of a lane, which comes after those of all before it. A
    /// failure of an earlier one has stopped the lane by then.
    async fn settled(&self, last: Waiting, lane: &Lane) -> Result<(), Error> {
        let outcome = settled(last.await).map(|_| ());
        match lane.shared.lock().failed() {
            Some(error) => Err(error.clone()),
            None => outcome,
        }
    }

    fn bytes_held(&self, record: &Record) -> Result<u32, Error> {
        check_record(record)?;
        let bytes = record.content_bytes() + RECORD_OVERHEAD_BYTES;
        let bytes_max = self.inner.options.buffer_bytes_max;
        match u32::try_from(bytes) {
            Ok(held) if bytes <= bytes_max => Ok(held),
            _ => {
                let bytes_max = bytes_max.saturating_sub(RECORD_OVERHEAD_BYTES);
                Err(Error::RecordTooLarge { bytes: record.content_bytes(), bytes_max })
            }
        }
    }

    async fn lanes(&self) -> Result<&Lanes, Error> {
        self.inner.lanes.get_or_try_init(|| self.find_lanes()).await
    }

    /// A topic that does not exist yet will have one partition, if the server creates topics by
    /// itself.
    async fn find_lanes(&self) -> Result<Lanes, Error> {
        let Inner { client, topic, options, .. } = &*self.inner;
        let partitions = match options.partition {
            Some(partition) => vec![partition],
            None => match client.partition_count(topic).await {
                Ok(count) => (0..count.max(1)).collect(),
                Err(Error::TopicNotFound(_)) => vec![0],
                Err(error) => return Err(error),
            },
        };
        Ok(Lanes {
            router: Router::new(partitions.len()),
            lanes: partitions.into_iter().map(|number| Lane::new(number, options)).collect(),
        })
    }

    /// Starts the lane's task, once.
    fn start(&self, lane: &Lane) {
        lane.started.get_or_init(|| {
            let id = PartitionId { topic: self.inner.topic.clone(), partition: lane.partition };
            let route = Route::new(self.inner.client.clone(), id.clone());
            let sender = Sender::new(
                id,
                self.inner.options.clone(),
                lane.shared.clone(),
                self.inner.room.clone(),
                route,
                self.inner.client.pool().clone(),
            );
            let task = tokio::spawn(sender.run());
            *lane.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
        });
    }
}

async fn wait_for(task: Option<JoinHandle<()>>) -> Option<Result<(), tokio::task::JoinError>> {
    Some(task?.await)
}

impl Lanes {
    fn lane_of(&self, record: &Record) -> &Lane {
        &self.lanes[self.router.choose(record.key.as_deref())]
    }

    fn seal_all(&self) {
        for lane in &self.lanes {
            if lane.shared.lock().seal() {
                lane.shared.wake.notify_one();
            }
        }
    }
}

impl Lane {
    fn new(partition: u32, options: &ProducerOptions) -> Lane {
        Lane {
            partition,
            shared: Arc::new(Shared::new(options.batch_bytes_max)),
            started: OnceLock::new(),
            task: Mutex::new(None),
        }
    }
}

impl Inner {
    fn end(&self) {
        let Some(lanes) = self.lanes.get() else { return };
        for lane in &lanes.lanes {
            lane.shared.lock().close();
            lane.shared.wake.notify_one();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.end();
    }
}
