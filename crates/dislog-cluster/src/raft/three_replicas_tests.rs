//! Three replicas in one process, connected by a hub: the driver, the outbox, ticks and truncation
//! with peers.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, mpsc};

use dislog_log::Kind;
use dislog_log::fs::SimFs;
use dislog_types::batch::{BatchHeader, ProducerStamp};
use dislog_types::time::SystemClock;
use dislog_types::{BatchBuilder, Compression, PartitionId, Record, TopicName};
use tokio::sync::oneshot;

use super::driver::{self, DriverConfig, Input};
use super::open::OpenGroup;
use super::pulse::Pulse;
use super::transport::{PeerMessage, Transport};
use crate::error::AppendError;
use crate::partition::port::Port;
use crate::partition::retention::RetentionPolicy;
use crate::partition::{Append, Appended, Partition};

const GROUP: u64 = 7;
const NODES: [u64; 3] = [1, 2, 3];

/// Connects the drivers; messages from and to isolated nodes are lost.
#[derive(Clone, Default)]
struct Hub(Arc<Mutex<Wires>>);

#[derive(Default)]
struct Wires {
    drivers: HashMap<u64, Sender<Input>>,
    isolated: HashSet<u64>,
}

/// The hub, as one node sees it.
struct Plug {
    hub: Hub,
    node: u64,
}

impl Transport for Plug {
    fn flush(&mut self) {}

    fn node_of(&self, replica: u64) -> Option<u64> {
        Some(replica)
    }

    fn pulse(&mut self, node: u64, pulse: Pulse) {
        let wires = self.hub.0.lock().unwrap();
        if wires.isolated.contains(&self.node) || wires.isolated.contains(&node) {
            return;
        }
        if let Some(driver) = wires.drivers.get(&node) {
            let _ = driver.send(Input::Pulse(self.node, pulse));
        }
    }

    fn send(&mut self, message: PeerMessage) {
        let wires = self.hub.0.lock().unwrap();
        if wires.isolated.contains(&message.from) || wires.isolated.contains(&message.to) {
            return;
        }
        if let Some(driver) = wires.drivers.get(&message.to) {
            let _ = driver.send(Input::Message(message));
        }
    }
}

impl Hub {
    fn isolate(&self, node: u64) {
        self.0.lock().unwrap().isolated.insert(node);
    }

    fn heal(&self) {
        self.0.lock().unwrap().isolated.clear();
    }
}

fn start(node_id: u64, hub: &Hub) -> Partition {
    let fs = Arc::new(SimFs::new(node_id));
    let config = DriverConfig {
        fs: Arc::<SimFs>::clone(&fs),
        clock: Arc::new(SystemClock),
        transport: Box::new(Plug { hub: hub.clone(), node: node_id }),
        changed: Box::new(|| {}),
        data_dir: PathBuf::from("/"),
        sync_threads: 1,
        lock: None,
    };
    let driver = driver::start(config).unwrap();
    hub.0.lock().unwrap().drivers.insert(node_id, driver.clone());
    let open = OpenGroup {
        fs,
        dir: Path::new("/a-0").to_owned(),
        log: dislog_log::Config::default(),
        id: PartitionId { topic: TopicName::default_topic(), partition: 0 },
        group: GROUP,
        replica: node_id,
        initial: NODES.to_vec(),
        target: None,
        policy: RetentionPolicy::KEEP_ALL,
        observer: None,
    };
    let opened = open.open();
    let port = Arc::new(Port::new(driver, 1 << 20));
    let (sender, _) = mpsc::channel();
    port.send(Input::AddGroup(opened.group.unwrap(), sender)).unwrap();
    Partition::new(opened.shared, port)
}

fn batch(value: &str) -> Append {
    stamped(value, None)
}

fn stamped(value: &str, producer: Option<ProducerStamp>) -> Append {
    let mut builder = BatchBuilder::new();
    assert!(builder.push(&Record::new(value.to_owned())));
    let batch = builder.finish(Compression::None, producer);
    let header = BatchHeader::verify(&batch).unwrap();
    Append { batch, header, expected_offset: None }
}

/// Appends by whichever replica of `nodes` leads, as soon as one does, and once, also if one loses
/// its office meanwhile.
async fn append_by_leader(replicas: &[Partition], nodes: &[u64], value: &str) -> (u64, Appended) {
    static PRODUCER: AtomicI64 = AtomicI64::new(1);
    let id = PRODUCER.fetch_add(1, Ordering::Relaxed);
    let stamp = ProducerStamp { id, epoch: 0, sequence: 0 };
    loop {
        for &node in nodes {
            let replica = &replicas[usize::try_from(node - 1).unwrap()];
            match replica.append(stamped(value, Some(stamp))).await {
                Ok(appended) => return (node, appended),
                Err(AppendError::NoLeader(_) | AppendError::UnknownOutcome) => {
                    tokio::task::yield_now().await;
                }
                Err(error) => panic!("node {node}: {error}"),
            }
        }
    }
}

async fn committed(replica: &Partition, offset: u64) {
    replica.wait_for(offset).await.unwrap();
}

fn frames(replica: &Partition) -> Vec<(u64, u64, Kind, Vec<u8>)> {
    let log = replica.shared.log.as_ref().unwrap();
    let last = log.bounds().last_raft_index;
    let frames = log.frames(1, last + 1, u64::MAX).unwrap();
    let content = |f: dislog_log::Frame| (f.raft_index, f.term, f.kind, f.payload.to_vec());
    frames.into_iter().map(content).collect()
}

#[tokio::test]
async fn three_replicas_agree_through_a_change_of_leader() {
    let hub = Hub::default();
    let replicas: Vec<Partition> = NODES.iter().map(|&node| start(node, &hub)).collect();
    let (leader, first) = append_by_leader(&replicas, &NODES, "one").await;
    assert_eq!(first.base_offset, 0);
    for replica in &replicas {
        committed(replica, 0).await;
        assert_eq!(replica.read(0, 1).await.unwrap().len(), 1);
    }
    let old = &replicas[usize::try_from(leader - 1).unwrap()];
    old.linearize().await.unwrap();

    // Cut off, the leader can still stage; it cannot commit.
    hub.isolate(leader);
    let lost = old.submit(batch("never committed")).await.unwrap();
    let others: Vec<u64> = NODES.into_iter().filter(|&node| node != leader).collect();
    let (_, second) = append_by_leader(&replicas, &others, "two").await;
    assert_eq!(second.base_offset, 1);
    assert_eq!(lost.await, Err(AppendError::UnknownOutcome));
    assert!(matches!(old.append(batch("refused")).await, Err(AppendError::NoLeader(_))));
    assert_eq!(old.progress().committed_offset, 1);

    // Back again, it gives up what was never committed and takes over what was.
    hub.heal();
    let (_, third) = append_by_leader(&replicas, &NODES, "three").await;
    for replica in &replicas {
        committed(replica, third.base_offset).await;
    }
    for replica in &replicas {
        assert_eq!(frames(replica), frames(old));
    }
    let values: Vec<u64> =
        old.read(0, 1 << 20).await.unwrap().iter().map(|b| b.base_offset).collect();
    assert_eq!(values, [0, 1, 2]);

    let drivers: Vec<_> = hub.0.lock().unwrap().drivers.drain().collect();
    for (_, driver) in drivers {
        let (done, closed) = oneshot::channel();
        driver.send(Input::Close(Some(done))).unwrap();
        closed.await.unwrap();
    }
}
