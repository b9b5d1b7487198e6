//! A node to test: a cluster of one on the simulated disk or the real one, with a clock that stands
//! still.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use dislog_cluster::{
    Append, AppendError, Appended, Cluster, Config, Discovery, NoNetwork, OpenError, Partition,
    TopicChange, TopicSettings,
};
use dislog_log::fs::SimFs;
use dislog_types::batch::{BatchHeader, ProducerStamp, records};
use dislog_types::time::Clock;
use dislog_types::{BatchBuilder, Compression, PartitionId, Record, TopicName};

/// A clock that is set by hand.
#[derive(Debug)]
pub struct TestClock(AtomicI64);

impl TestClock {
    pub fn new(now_ms: i64) -> Arc<TestClock> {
        Arc::new(TestClock(AtomicI64::new(now_ms)))
    }

    pub fn advance(&self, ms: i64) {
        self.0.fetch_add(ms, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

pub fn config(data_dir: &Path) -> Config {
    Config {
        data_dir: data_dir.to_owned(),
        topic_defaults: TopicSettings {
            retention_bytes: 0,
            retention_ms: 0,
            segment_bytes: 1 << 20,
            replicas: 3,
        },
        appends_in_flight_bytes_max: 4 << 20,
        sync_threads: 2,
        discovery: Discovery::default(),
    }
}

pub fn data_dir() -> PathBuf {
    PathBuf::from("/data")
}

/// Opens a node on a simulated disk.
pub fn open_sim(fs: &SimFs, clock: &Arc<TestClock>) -> Result<Cluster, OpenError> {
    let clock: Arc<dyn Clock> = Arc::<TestClock>::clone(clock);
    Cluster::open(config(&data_dir()), Arc::new(fs.clone()), clock, Arc::new(NoNetwork))
}

pub fn name(topic: &str) -> TopicName {
    topic.parse().unwrap()
}

pub fn id(topic: &str) -> PartitionId {
    PartitionId { topic: name(topic), partition: 0 }
}

/// Creates a topic of one partition.
pub async fn create(cluster: &Cluster, topic: &str, change: TopicChange) -> Partition {
    cluster.create_topic(name(topic), 1, change).await.unwrap();
    cluster.partition(&id(topic)).unwrap()
}

/// A batch of records, each with one of `values`.
pub fn batch(values: &[&str], producer: Option<ProducerStamp>) -> Append {
    let mut builder = BatchBuilder::new();
    for value in values {
        assert!(builder.push(&Record::new(value.to_string())));
    }
    let batch = builder.finish(Compression::None, producer);
    let header = BatchHeader::verify(&batch).unwrap();
    Append { batch, header, expected_offset: None }
}

/// One batch of one producer, epoch 0.
pub fn stamped(id: i64, sequence: i32, values: &[&str]) -> Append {
    batch(values, Some(ProducerStamp { id, epoch: 0, sequence }))
}

pub async fn append(partition: &Partition, values: &[&str]) -> Result<Appended, AppendError> {
    partition.append(batch(values, None)).await
}

/// Every record from `offset` to the committed end, checked to be dense.
pub async fn read_all(partition: &Partition, mut offset: u64) -> Vec<String> {
    let mut values = Vec::new();
    let end = partition.progress().committed_offset;
    while offset < end {
        let batches = partition.read(offset, 64 << 10).await.unwrap();
        assert!(!batches.is_empty(), "below the committed offset there are records");
        for stored in batches {
            let header = BatchHeader::verify(&stored.batch).unwrap();
            assert_eq!(header.base_offset, stored.base_offset);
            assert_eq!(header.record_count, stored.record_count);
            for (at, record) in (stored.base_offset..).zip(records(&header, &stored.batch).unwrap())
            {
                if at >= offset {
                    assert_eq!(at, offset, "offsets are dense");
                    values.push(String::from_utf8(record.value.to_vec()).unwrap());
                    offset += 1;
                }
            }
        }
    }
    values
}
