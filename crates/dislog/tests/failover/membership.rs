//! Nodes that come and go for good.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use dislog_client::{
    Client, ClientOptions, Delivery, ProducerOptions, ReadFrom, Record, TopicSettings,
};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::cluster::{Cluster, until_within};
use crate::load::{Gaps, Tail, Writer, times};
use crate::ports::free_addresses;
use crate::{NODES, TOPIC, within};

#[tokio::test(flavor = "multi_thread")]
async fn one_node_grows_to_three_and_three_shrink_to_two() {
    let mut cluster = Cluster::start_some(free_addresses(NODES), None, 1).await;
    let client = cluster.client(0);
    cluster.create_topic(&client).await;
    let produced = within(client.produce("default", 0, vec![Record::new("a")], None)).await;
    assert_eq!(produced.unwrap().offset, 0);
    let mut writer = Writer::start(&client);
    let tail = Tail::start(&client, ReadFrom::default());
    writer.goes_on_and_on().await;
    let mut gaps = Gaps::of("grown and shrunk");
    writer.longest_gap();
    let start = Instant::now();
    for number in 1..NODES {
        cluster.start_node(number);
    }
    cluster.until_well(NODES, NODES).await;
    eprintln!("from one node to three replicas of each partition: {:?}", start.elapsed());
    writer.goes_on_and_on().await;
    gaps.push(writer.longest_gap());

    let leaving = cluster.agreed_leader().await;
    let address = cluster.addresses[leaving].clone();
    cluster.runs(&["cluster", "drain", &address, "--wait"]).await;
    cluster.runs(&["cluster", "check", &address]).await;
    // It says that it leaves, and is taken out.
    cluster.terminate(leaving);
    cluster.until_well(NODES - 1, NODES - 1).await;
    writer.goes_on_and_on().await;
    gaps.push(writer.longest_gap());
    let count = writer.end().await;
    tail.end(count).await;
    cluster.check(count).await;
    gaps.check();
}

/// What a record of the large log holds.
const VALUE_BYTES: usize = 16 << 10;

/// How often a record is sent whose way is measured.
const PROBE_EVERY: Duration = Duration::from_millis(5);

/// How long is measured before anything happens.
const CALM: Duration = Duration::from_secs(1);

/// For every MiB that a new node is to have, at most.
const JOIN_PER_MIB: Duration = Duration::from_millis(200);

/// How much longer produce may take while the new node catches up, at the 99th of 100.
const SLOWER_MAX: u32 = 2;

/// A smaller log is there before anything can be said of the 99th of 100.
const MEASURED_MIB_MIN: usize = 256;

/// The time for which a 99th of 100 is taken. All nodes and whoever else is on the machine share
/// its disk: when that stands still, it does so in a few of these times, and not in most.
const PERIOD: Duration = Duration::from_secs(1);

/// `DISLOG_JOIN_MIB` is how large the log is that the new node gets.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_node_catches_up_under_load_and_then_votes() {
    let mib = times("DISLOG_JOIN_MIB", 16);
    let mut cluster = Cluster::start_some(free_addresses(NODES), None, NODES - 1).await;
    let client = cluster.client(0);
    let segment_bytes = Some(((mib as u64) << 20) / 8);
    let settings = TopicSettings { segment_bytes, ..TopicSettings::default() };
    cluster.create_topic_with(&client, settings).await;
    let start_offset = fill_and_trim(&client, mib).await;

    let mut probe = Probe::start(&client);
    // The larger the log, the longer is measured, before as well.
    sleep(CALM * u32::try_from(1 + mib / 64).unwrap()).await;
    let before = probe.latency().await;
    let start = Instant::now();
    cluster.start_node(NODES - 1);
    let limit = JOIN_PER_MIB * u32::try_from(mib).unwrap() + Duration::from_secs(60);
    // Asking takes time of the processors from what is measured: a large log is asked for in a few
    // of the periods.
    let pause = PERIOD.mul_f64(mib as f64 / 1_024.0);
    let is_well = async || {
        sleep(pause).await;
        cluster.is_well(NODES, NODES).await
    };
    until_within(limit, "the new node votes", is_well).await;
    let took = start.elapsed();
    let during = probe.latency().await;
    drop(probe);
    eprintln!(
        "a new node voted after {took:?} with {mib} MiB from offset {start_offset}; \
        produce before {before:?}, meanwhile {during:?}"
    );
    let digest = cluster.run(&["cluster", "digest"]).await;
    assert!(digest.status.success(), "{}", String::from_utf8_lossy(&digest.stderr));
    let (before, during) = (before.p99_of_periods, during.p99_of_periods);
    assert!(mib < MEASURED_MIB_MIN || during <= before * SLOWER_MAX);

    // It votes: with one of the old ones down, records are still acknowledged.
    cluster.terminate(0);
    let others = Client::connect(&cluster.addresses[1..], ClientOptions::default()).unwrap();
    within(others.produce(TOPIC, 0, vec![Record::new("last")], None)).await.unwrap();
}

/// Makes a log of a size whose head is trimmed: where it starts.
async fn fill_and_trim(client: &Client, mib: usize) -> u64 {
    let options = ProducerOptions::default();
    let producer = client.producer(TOPIC, options).unwrap();
    let count = (mib << 20) / VALUE_BYTES;
    let trimmed = count / 10;
    for number in 0..count + trimmed {
        let mut value = vec![b'x'; VALUE_BYTES];
        // No two are equal.
        value[..8].copy_from_slice(&(number as u64).to_le_bytes());
        drop(producer.send(Record::new(value)).await.unwrap());
    }
    producer.close().await.unwrap();
    client.trim_topic(TOPIC, 0, trimmed as u64).await.unwrap()
}

/// Sends a record every now and then, whatever became of the last, and measures each.
struct Probe {
    /// When a record was sent, and how long it took.
    measured: mpsc::UnboundedReceiver<(Instant, Duration)>,
    sending: tokio::task::JoinHandle<()>,
}

impl Probe {
    fn start(client: &Client) -> Probe {
        let options = ProducerOptions { linger: Duration::ZERO, ..ProducerOptions::default() };
        let producer = client.producer(TOPIC, options).unwrap();
        let (done, measured) = mpsc::unbounded_channel();
        let sending = tokio::spawn(async move {
            let mut ticks = interval(PROBE_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            loop {
                // What it waits for its turn counts as well.
                let sent = ticks.tick().await.into_std();
                let delivery: Delivery = producer.send(Record::new(vec![0; 1_024])).await.unwrap();
                let done = done.clone();
                tokio::spawn(async move {
                    delivery.await.unwrap();
                    // Nobody asks at the end.
                    let _ = done.send((sent, sent.elapsed()));
                });
            }
        });
        Probe { measured, sending }
    }

    /// What was measured since this was asked last.
    async fn latency(&mut self) -> Latency {
        let mut all = Vec::new();
        self.measured.recv_many(&mut all, usize::MAX).await;
        let start = all.iter().map(|(sent, _)| *sent).min().expect("it received something");
        let mut periods = BTreeMap::<u128, Vec<Duration>>::new();
        for (sent, took) in &all {
            let period = (*sent - start).as_nanos() / PERIOD.as_nanos();
            periods.entry(period).or_default().push(*took);
        }
        let whole = || all.iter().map(|(_, took)| *took).collect();
        Latency {
            p50: percentile(50, whole()),
            p99: percentile(99, whole()),
            longest: percentile(100, whole()),
            p99_of_periods: percentile(
                50,
                periods.into_values().map(|period| percentile(99, period)).collect(),
            ),
        }
    }
}

/// How long records took.
#[derive(Debug)]
#[expect(dead_code, reason = "it is shown")]
struct Latency {
    p50: Duration,
    p99: Duration,
    longest: Duration,
    /// The median of what was the 99th of 100 in each [`PERIOD`].
    p99_of_periods: Duration,
}

fn percentile(share: usize, mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all[(all.len() * share).div_ceil(100) - 1]
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.sending.abort();
    }
}
