//! Three nodes in one process, on simulated disks, connected by a hub that loses what it is told
//! to: they find each other, agree, and go on when one is gone.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod node;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dislog_cluster::{
    AppendError, Appended, Cluster, Discovery, Network, Partition, Peer, PeerFrame, ReadError,
    TopicChange, TopicError,
};
use dislog_log::fs::{Fs as _, SimFs};
use dislog_types::time::SystemClock;
use node::{append, config, id, name, read_all, stamped};
use tokio::time::timeout;

/// Carries frames between the nodes of this process, by address.
#[derive(Clone, Default)]
struct Hub(Arc<Mutex<Wires>>);

#[derive(Default)]
struct Wires {
    nodes: HashMap<String, Cluster>,
    cut: HashSet<String>,
}

struct Plug {
    hub: Hub,
    address: String,
}

impl Network for Plug {
    fn send(&self, peer: &Peer, frame: PeerFrame) {
        let wires = self.hub.0.lock().unwrap();
        if wires.cut.contains(&self.address) || wires.cut.contains(&*peer.address) {
            return;
        }
        let to = wires.nodes.get(&*peer.address).cloned();
        drop(wires);
        if let Some(to) = to {
            to.receive(frame);
        }
    }
}

impl Hub {
    fn start(&self, address: &str, fs: &SimFs, discovery: Discovery) -> Cluster {
        let plug = Plug { hub: self.clone(), address: address.to_owned() };
        let mut config = config(Path::new("/data"));
        config.discovery = Discovery { address: address.to_owned(), ..discovery };
        let (fs, clock) = (Arc::new(fs.clone()), Arc::new(SystemClock));
        let cluster = Cluster::open(config, fs, clock, Arc::new(plug)).unwrap();
        self.0.lock().unwrap().nodes.insert(address.to_owned(), cluster.clone());
        cluster
    }

    fn cut(&self, address: &str) {
        self.0.lock().unwrap().cut.insert(address.to_owned());
    }

    fn heal(&self) {
        self.0.lock().unwrap().cut.clear();
    }

    /// The handles would keep the nodes alive.
    fn clear(&self) {
        let nodes = std::mem::take(&mut self.0.lock().unwrap().nodes);
        drop(nodes);
    }
}

fn joining(seed: &str) -> Discovery {
    Discovery { seeds: vec![seed.to_owned()], ..Discovery::default() }
}

/// Waits until something holds; the condition is looked at often, because what it looks at is in
/// several nodes.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = timeout(Duration::from_secs(30), async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(waited.await.is_ok(), "never: {what}");
}

/// Replicas that vote, as a node knows it; none while they are changing.
fn voters(cluster: &Cluster, topic: &str) -> usize {
    let members = cluster.members_of(&id(topic));
    if members.changing { 0 } else { members.voters.len() }
}

fn metadata_voters(cluster: &Cluster) -> usize {
    cluster.nodes().iter().filter(|node| node.votes).count()
}

/// Appends by whichever node leads, once, also if one loses its office meanwhile.
async fn append_somewhere(nodes: &[&Cluster], topic: &str, value: &str) -> Appended {
    static PRODUCER: AtomicI64 = AtomicI64::new(1);
    let producer = PRODUCER.fetch_add(1, Ordering::Relaxed);
    let appended = async {
        loop {
            for node in nodes {
                let Ok(partition) = node.partition(&id(topic)) else { continue };
                match partition.append(stamped(producer, 0, &[value])).await {
                    Ok(appended) => return appended,
                    Err(AppendError::NoLeader(_) | AppendError::UnknownOutcome) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(60), appended).await.expect("nobody leads")
}

/// Creates a topic by whichever node leads the metadata.
async fn create_somewhere(nodes: &[&Cluster], topic: &str) {
    let created = async {
        loop {
            for node in nodes {
                match node.create_topic(name(topic), 1, TopicChange::default()).await {
                    // It may be of an attempt whose outcome was unknown.
                    Ok(_) | Err(TopicError::Exists(_)) => return,
                    Err(TopicError::Append(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(60), created).await.expect("nobody leads");
}

fn partition(cluster: &Cluster, topic: &str) -> Partition {
    cluster.partition(&id(topic)).unwrap()
}

async fn close(hub: &Hub, nodes: impl IntoIterator<Item = Cluster>) {
    for node in nodes {
        node.close().await;
    }
    hub.clear();
}

#[tokio::test]
async fn one_node_grows_to_three_and_outlives_its_first() {
    let hub = Hub::default();
    let disks: Vec<SimFs> = (1..=3).map(SimFs::new).collect();
    let a = hub.start("a:1", &disks[0], Discovery::default());
    a.create_topic(name("t"), 1, TopicChange::default()).await.unwrap();
    for value in ["one", "two", "three"] {
        append(&partition(&a, "t"), &[value]).await.unwrap();
    }
    let b = hub.start("b:1", &disks[1], joining("a:1"));
    let c = hub.start("c:1", &disks[2], joining("a:1"));
    until("three replicas", || [&a, &b, &c].iter().all(|node| voters(node, "t") == 3)).await;
    assert_eq!(a.cluster_id(), b.cluster_id());
    until("three voters", || [&a, &b, &c].iter().all(|node| metadata_voters(node) == 3)).await;
    for node in [&a, &b, &c] {
        partition(node, "t").wait_for(2).await.unwrap();
        assert_eq!(read_all(&partition(node, "t"), 0).await, ["one", "two", "three"]);
    }
    until("each knows who leads", || {
        let leader = a.leader_of(&id("t"));
        leader.is_some() && [&b, &c].iter().all(|node| node.leader_of(&id("t")) == leader)
    })
    .await;
    // Whoever does not lead the metadata cannot change them, and knows another who can.
    let mut follower = None;
    until("a follower knows the leader", || {
        let knows_another = |node: &&Cluster| {
            node.forward_changes_to().is_some_and(|peer| peer.node_id != node.node_id())
        };
        follower = [&a, &b, &c].into_iter().find(knows_another);
        follower.is_some()
    })
    .await;
    assert!(matches!(
        follower.unwrap().create_topic(name("u"), 1, TopicChange::default()).await,
        Err(TopicError::Append(AppendError::NoLeader(_)))
    ));

    // Linearizable reads by a follower.
    let c_reads = partition(&c, "t");
    let read = async {
        while let Err(error) = c_reads.linearize().await {
            assert!(matches!(error, ReadError::NoLeader(_)), "{error}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(60), read).await.expect("nobody leads");

    hub.cut("a:1");
    let four = append_somewhere(&[&b, &c], "t", "four").await;
    assert_eq!(four.base_offset, 3);
    hub.heal();
    until("all have it", || {
        [&a, &b, &c].iter().all(|node| partition(node, "t").progress().committed_offset == 4)
    })
    .await;
    assert_eq!(read_all(&partition(&a, "t"), 0).await, ["one", "two", "three", "four"]);
    close(&hub, [a, b, c]).await;
}

#[tokio::test]
async fn three_nodes_form_a_cluster_and_start_again_together() {
    let hub = Hub::default();
    let disks: Vec<SimFs> = (11..=13).map(SimFs::new).collect();
    let addresses = ["a:1", "b:1", "c:1"];
    let forming = || Discovery {
        seeds: addresses.map(str::to_owned).to_vec(),
        bootstrap_expect: 3,
        ..Discovery::default()
    };
    let start = || -> Vec<Cluster> {
        let pairs = addresses.iter().zip(&disks);
        pairs.map(|(address, disk)| hub.start(address, disk, forming())).collect()
    };
    let mut nodes = start();
    until("one cluster", || nodes.iter().all(|node| metadata_voters(node) == 3)).await;
    let cluster_id = nodes[0].cluster_id();
    let all: Vec<&Cluster> = nodes.iter().collect();
    create_somewhere(&all, "t").await;
    until("known", || nodes.iter().all(|node| node.partition(&id("t")).is_ok())).await;
    for number in 0..20 {
        append_somewhere(&all, "t", &number.to_string()).await;
    }
    close(&hub, nodes).await;

    nodes = start();
    let all: Vec<&Cluster> = nodes.iter().collect();
    let next = append_somewhere(&all, "t", "20").await;
    assert_eq!(next.base_offset, 20);
    assert!(nodes.iter().all(|node| node.cluster_id() == cluster_id));
    let expected: Vec<String> = (0..=20).map(|number| number.to_string()).collect();
    for node in &nodes {
        partition(node, "t").wait_for(20).await.unwrap();
        assert_eq!(read_all(&partition(node, "t"), 0).await, expected);
    }
    close(&hub, nodes).await;
}

#[tokio::test]
async fn a_node_that_lags_behind_the_start_begins_anew() {
    let hub = Hub::default();
    let disks: Vec<SimFs> = (21..=23).map(SimFs::new).collect();
    let a = hub.start("a:1", &disks[0], Discovery::default());
    let small = TopicChange { segment_bytes: Some(4 << 10), ..TopicChange::default() };
    a.create_topic(name("t"), 1, small).await.unwrap();
    let log = partition(&a, "t");
    let value = "x".repeat(1_000);
    for _ in 0..50 {
        append(&log, &[&value]).await.unwrap();
    }
    assert_eq!(log.trim(30).await.unwrap(), 30);
    until("the head is gone", || log.status().segments < 10).await;
    let b = hub.start("b:1", &disks[1], joining("a:1"));
    let c = hub.start("c:1", &disks[2], joining("a:1"));
    until("three replicas", || [&a, &b, &c].iter().all(|node| voters(node, "t") == 3)).await;
    for node in [&a, &b, &c] {
        partition(node, "t").wait_for(49).await.unwrap();
        assert_eq!(partition(node, "t").progress().start_offset, 30);
        assert_eq!(read_all(&partition(node, "t"), 30).await.len(), 20);
    }
    close(&hub, [a, b, c]).await;
}

#[tokio::test]
async fn all_nodes_lose_power_at_once_and_nothing_else() {
    let hub = Hub::default();
    let disks: Vec<SimFs> = (31..=33).map(SimFs::new).collect();
    let addresses = ["a:1", "b:1", "c:1"];
    let start = |hub: &Hub| -> Vec<Cluster> {
        let discovery = |address: &str| match address {
            "a:1" => Discovery::default(),
            _ => joining("a:1"),
        };
        let pairs = addresses.iter().zip(&disks);
        pairs.map(|(address, disk)| hub.start(address, disk, discovery(address))).collect()
    };
    let mut nodes = start(&hub);
    nodes[0].create_topic(name("t"), 1, TopicChange::default()).await.unwrap();
    until("three replicas", || nodes.iter().all(|node| voters(node, "t") == 3)).await;
    let mut expected = Vec::new();
    for life in 0..5 {
        let all: Vec<&Cluster> = nodes.iter().collect();
        for number in 0..10 {
            let value = format!("{life}/{number}");
            let appended = append_somewhere(&all, "t", &value).await;
            assert_eq!(appended.base_offset, expected.len() as u64);
            expected.push(value);
        }
        // Cut off first, so that what goes on in this process reaches nobody.
        addresses.iter().for_each(|address| hub.cut(address));
        disks.iter().for_each(SimFs::crash);
        for node in nodes {
            node.close().await;
        }
        hub.clear();
        hub.heal();
        nodes = start(&hub);
    }
    for node in &nodes {
        partition(node, "t").wait_for(expected.len() as u64 - 1).await.unwrap();
        assert_eq!(read_all(&partition(node, "t"), 0).await, expected);
    }
    close(&hub, nodes).await;
}

#[tokio::test]
async fn a_replica_that_lost_what_it_acknowledged_is_replaced() {
    let hub = Hub::default();
    let disks: Vec<SimFs> = (41..=43).map(SimFs::new).collect();
    let a = hub.start("a:1", &disks[0], Discovery::default());
    let b = hub.start("b:1", &disks[1], joining("a:1"));
    let c = hub.start("c:1", &disks[2], joining("a:1"));
    until("three voters", || [&a, &b, &c].iter().all(|node| metadata_voters(node) == 3)).await;
    create_somewhere(&[&a, &b, &c], "t").await;
    until("three replicas", || [&a, &b, &c].iter().all(|node| voters(node, "t") == 3)).await;
    let mut expected = Vec::new();
    for number in 0..50 {
        append_somewhere(&[&a, &b, &c], "t", &number.to_string()).await;
        expected.push(number.to_string());
    }
    partition(&c, "t").wait_for(49).await.unwrap();
    c.close().await;
    hub.0.lock().unwrap().nodes.remove("c:1");

    // The log is as it was once: sound, and too short. Nothing beside it says so.
    let dir = Path::new("/data/partitions/t-0");
    disks[2].remove(&dir.join("checkpoint")).unwrap();
    let store = disks[2].open(&dir.join("00000000000000000000.store")).unwrap();
    store.set_len(2_000).unwrap();
    drop((store, c));
    let c = hub.start("c:1", &disks[2], joining("a:1"));
    until("another has taken its place", || {
        disks[2].list(Path::new("/data/partitions")).unwrap().iter().any(|dir| {
            dir.file_name().is_some_and(|name| name.to_string_lossy().starts_with("t-0+"))
        })
    })
    .await;
    until("three replicas", || [&a, &b, &c].iter().all(|node| voters(node, "t") == 3)).await;
    partition(&c, "t").wait_for(49).await.unwrap();
    assert_eq!(read_all(&partition(&c, "t"), 0).await, expected);
    close(&hub, [a, b, c]).await;
}
