//! Clients that write and read while nodes come and go, and what they notice of it.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dislog_client::{
    Client, ConsumerOptions, Delivery, End, Producer, ProducerOptions, ReadFrom, Record, Start,
};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::TOPIC;
use crate::node::HANG;

/// Deliveries that the producer waits for at most.
const PENDING_MAX: usize = 64;

/// Acknowledgements that show that it goes on.
const MORE: u64 = 50;

/// How long a producer may stand still when its leader is lost, unless `DISLOG_GAP_MAX_MS` says
/// otherwise: an election, and time for a machine that does other things.
const GAP_MAX_MS: usize = 15_000;

/// How often something is done: what the environment says, or few times.
pub(crate) fn times(name: &str, few: usize) -> usize {
    std::env::var(name).map_or(few, |value| value.parse().expect("a number"))
}

/// The longest time without an acknowledgement each time that something was done.
pub(crate) struct Gaps {
    what: &'static str,
    all: Vec<Duration>,
}

impl Gaps {
    pub(crate) fn of(what: &'static str) -> Gaps {
        Gaps { what, all: Vec::new() }
    }

    pub(crate) fn push(&mut self, gap: Duration) {
        self.all.push(gap);
    }

    /// Says what was measured; 99 of 100 must be as short as a producer may stand still.
    pub(crate) fn check(self) {
        let max_ms = times("DISLOG_GAP_MAX_MS", GAP_MAX_MS);
        self.check_below(Duration::from_millis(max_ms as u64));
    }

    /// As `check`, with a limit of its own.
    pub(crate) fn check_below(mut self, max: Duration) {
        self.all.sort_unstable();
        let Gaps { what, all } = self;
        let at = |share: usize| all[(all.len() * share).div_ceil(100) - 1];
        let (count, p50, p99, longest) = (all.len(), at(50), at(99), at(100));
        eprintln!("{what}: {count} times, stood still for p50 {p50:?}, p99 {p99:?}, {longest:?}");
        assert!(p99 < max, "{what}: {all:?}");
    }
}

/// How the producer fares.
#[derive(Default)]
struct Acks {
    last: Option<Instant>,
    longest_gap: Duration,
}

/// A producer that sends numbers until it is told to end, and what it had acknowledged.
pub(crate) struct Writer {
    acked: watch::Receiver<u64>,
    acks: Arc<Mutex<Acks>>,
    ending: watch::Sender<bool>,
    sending: JoinHandle<u64>,
    settling: JoinHandle<()>,
}

impl Writer {
    pub(crate) fn start(client: &Client) -> Writer {
        // Small batches, so that many are under way.
        let options = ProducerOptions { batch_bytes_max: 300, ..ProducerOptions::default() };
        let producer = client.producer(TOPIC, options).unwrap();
        let (deliveries, settled) = mpsc::channel(PENDING_MAX);
        let (ending, ended) = watch::channel(false);
        let (counted, acked) = watch::channel(0);
        let acks = Arc::new(Mutex::new(Acks::default()));
        let sending = tokio::spawn(send_numbers(producer, deliveries, ended));
        let settling = tokio::spawn(settle(settled, counted, acks.clone()));
        Writer { acked, acks, ending, sending, settling }
    }

    /// Waits for so many more acknowledgements.
    async fn goes_on(&mut self, more: u64) {
        let goal = *self.acked.borrow() + more;
        let waited = timeout(HANG, self.acked.wait_for(|acked| *acked >= goal)).await;
        assert!(waited.is_ok(), "the producer stands still");
        waited.unwrap().unwrap();
    }

    /// What is acknowledged by now.
    pub(crate) fn acked(&self) -> u64 {
        *self.acked.borrow()
    }

    /// Waits for as many acknowledgements as show that what was under way is not all.
    pub(crate) async fn goes_on_and_on(&mut self) {
        self.goes_on(PENDING_MAX as u64 + MORE).await;
    }

    /// The longest time without an acknowledgement since this was asked last.
    pub(crate) fn longest_gap(&self) -> Duration {
        std::mem::take(&mut self.acks.lock().unwrap().longest_gap)
    }

    pub(crate) async fn end(self) -> u64 {
        self.ending.send_replace(true);
        let sent = self.sending.await.unwrap();
        self.settling.await.unwrap();
        assert_eq!(*self.acked.borrow(), sent);
        sent
    }
}

async fn send_numbers(
    producer: Producer,
    deliveries: mpsc::Sender<Delivery>,
    ended: watch::Receiver<bool>,
) -> u64 {
    let mut number = 0_u64;
    while !*ended.borrow() {
        let delivery = producer.send(Record::new(number.to_string())).await.unwrap();
        deliveries.send(delivery).await.unwrap();
        number += 1;
    }
    producer.close().await.unwrap();
    number
}

async fn settle(
    mut deliveries: mpsc::Receiver<Delivery>,
    counted: watch::Sender<u64>,
    acks: Arc<Mutex<Acks>>,
) {
    let mut number = 0;
    while let Some(delivery) = deliveries.recv().await {
        assert_eq!(delivery.await.unwrap().offset, number, "the only producer");
        number += 1;
        let now = Instant::now();
        let mut acks = acks.lock().unwrap();
        if let Some(last) = acks.last.replace(now) {
            acks.longest_gap = acks.longest_gap.max(now - last);
        }
        counted.send_replace(number);
    }
}

/// Follows the end of the log and checks that each number comes once, in its turn.
pub(crate) struct Tail {
    seen: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

impl Tail {
    pub(crate) fn start(client: &Client, read_from: ReadFrom) -> Tail {
        let options = ConsumerOptions {
            start: Start::Earliest,
            end: End::Never,
            read_from,
            ..ConsumerOptions::default()
        };
        let mut consumer = client.consumer(TOPIC, 0, options).unwrap();
        let (counted, seen) = watch::channel(0);
        let task = tokio::spawn(async move {
            let mut number = 0_u64;
            while let Some(record) = consumer.next().await.unwrap() {
                assert_eq!(record.offset, number);
                assert_eq!(record.value, number.to_string());
                number += 1;
                counted.send_replace(number);
            }
        });
        Tail { seen, task }
    }

    pub(crate) async fn sees(&mut self, count: u64) {
        let seen = timeout(HANG, self.seen.wait_for(|seen| *seen >= count)).await;
        seen.expect("the tail stands still").expect("the tail failed");
    }

    pub(crate) async fn end(mut self, count: u64) {
        self.sees(count).await;
        assert_eq!(*self.seen.borrow(), count);
        self.task.abort();
    }
}
