//! Many partitions that rest: what creating them takes, what they cost while nothing happens, and
//! that they are as quick to fail over as busy ones.
//!
//! `DISLOG_PARTITIONS` sets how many there are (60), `DISLOG_IDLE_SECONDS` for how long the use of
//! processors is measured (2), `DISLOG_BINARY` which binary runs (that of this build).

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::print_stderr, reason = "what was measured is for the reader of the run")]

mod node;
mod ports;

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use dislog_client::{Client, ClientOptions, TopicSettings};
use dislog_proto::v1;
use dislog_proto::v1::admin_client::AdminClient;
use dislog_proto::v1::log_client::LogClient;
use node::Node;
use ports::free_addresses;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;

const NODES: usize = 3;
const TOPIC: &str = "many";
/// How long anything may take before it counts as hanging: a debug build on a busy machine.
const HANG: Duration = Duration::from_secs(180);
/// How often a condition that only a server can tell of is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How often an append is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(20);
/// Appends under way at a time.
const APPENDS: usize = 64;
/// A node whose partitions rest uses less of a core than this, of a thousand: a debug build that
/// hibernates stays below half of it, and one that does not is above it from some 100 partitions.
const IDLE_PERMILLE_MAX: u128 = 60;
/// How long no partition may take to be written again when the node that leads it is killed: an
/// election, and time for a machine that does other things.
const FAILOVER_MAX: Duration = Duration::from_secs(15);

/// Its nodes end before their directories are removed.
struct Cluster {
    addresses: Vec<String>,
    nodes: Vec<Option<Node>>,
    data: Vec<TempDir>,
    partitions: u32,
}

impl Cluster {
    async fn start(partitions: u32) -> Cluster {
        let data: Vec<TempDir> = (0..NODES).map(|_| tempfile::tempdir().unwrap()).collect();
        let addresses = free_addresses(NODES);
        let mut cluster = Cluster { addresses, data, nodes: Vec::new(), partitions };
        for number in 0..NODES {
            cluster.nodes.push(None);
            cluster.start_node(number);
        }
        until("all nodes see each other", async || {
            let mut log = cluster.log(0).await;
            let asked = v1::GetServersRequest::default();
            log.get_servers(asked).await.is_ok_and(|a| a.into_inner().servers.len() == NODES)
        })
        .await;
        cluster
    }

    fn start_node(&mut self, number: usize) {
        let join = (number > 0).then(|| self.addresses[0].as_str());
        let (command, data_dir) = (Command::new(node::binary()), self.data[number].path());
        let node = Node::start_at(command, data_dir, &self.addresses[number], join);
        self.nodes[number] = Some(node);
    }

    fn running(&self) -> impl Iterator<Item = (usize, &Node)> {
        let nodes = self.nodes.iter().enumerate();
        nodes.filter_map(|(number, node)| Some((number, node.as_ref()?)))
    }

    async fn log(&self, number: usize) -> LogClient<Channel> {
        LogClient::connect(format!("http://{}", self.addresses[number])).await.unwrap()
    }

    /// What the nodes that run say of their replicas of the topic.
    async fn replicas(&self) -> Vec<Vec<v1::Replica>> {
        let mut all = Vec::new();
        for (number, _) in self.running() {
            let endpoint = format!("http://{}", self.addresses[number]);
            let mut admin = AdminClient::connect(endpoint).await.unwrap();
            let answer = admin.describe_replicas(v1::DescribeReplicasRequest {}).await.unwrap();
            let replicas = answer.into_inner().replicas.into_iter();
            all.push(replicas.filter(|replica| replica.topic == TOPIC).collect());
        }
        all
    }

    /// Every partition has three replicas with the same records, who know who leads.
    async fn is_in_step(&self) -> bool {
        let replicas = self.replicas().await;
        let is_whole = |of_node: &Vec<v1::Replica>| of_node.len() == self.partitions as usize;
        let mut of: BTreeMap<u32, Vec<v1::Replica>> = BTreeMap::new();
        let is_whole = replicas.iter().all(is_whole);
        for replica in replicas.into_iter().flatten() {
            of.entry(replica.partition).or_default().push(replica);
        }
        is_whole && of.values().all(|replicas| agree(replicas))
    }

    async fn until_in_step(&self) {
        until("every replica is in step", async || self.is_in_step().await).await;
    }

    /// The ids of the nodes.
    async fn ids(&self) -> Vec<String> {
        let mut ids = Vec::new();
        for address in &self.addresses {
            let mut admin = AdminClient::connect(format!("http://{address}")).await.unwrap();
            let answer = admin.describe_cluster(v1::DescribeClusterRequest {}).await.unwrap();
            ids.push(answer.into_inner().node_id);
        }
        ids
    }

    /// The partitions that each node leads, by its id.
    async fn led(&self) -> BTreeMap<String, Vec<u32>> {
        let mut led: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for replica in self.replicas().await.swap_remove(0) {
            led.entry(replica.leader).or_default().push(replica.partition);
        }
        led
    }

    /// Appends a record to each of these partitions by way of one node, however often that takes;
    /// the longest time that one took.
    async fn append_to(&self, partitions: &[u32], by: usize, number: i32) -> Duration {
        let log = self.log(by).await;
        let (mut longest, mut under_way) = (Duration::ZERO, JoinSet::new());
        let start = Instant::now();
        for some in partitions.chunks(partitions.len().div_ceil(APPENDS).max(1)) {
            under_way.spawn(append_in_turn(log.clone(), some.to_vec(), number, start));
        }
        while let Some(taken) = under_way.join_next().await {
            longest = longest.max(taken.unwrap());
        }
        longest
    }

    /// Every replica has exactly these records.
    async fn check(&self, count: u64) {
        self.until_in_step().await;
        for (number, _) in self.running() {
            let mut log = self.log(number).await;
            for partition in 0..self.partitions {
                let (topic, max_records) = (TOPIC.to_owned(), 100);
                let asked =
                    v1::ConsumeRequest { topic, partition, max_records, ..Default::default() };
                let records = log.consume(asked).await.unwrap().into_inner().records;
                let values: Vec<&[u8]> = records.iter().map(|record| &record.value[..]).collect();
                let expected: Vec<String> = (0..count).map(|number| number.to_string()).collect();
                let expected: Vec<&[u8]> = expected.iter().map(String::as_bytes).collect();
                assert_eq!(values, expected, "partition {partition} on node {number}");
            }
        }
    }

    /// Processor time of each running node while nothing happens, of a thousand.
    async fn idle_permille(&self, window: Duration) -> Vec<u128> {
        let before: Vec<Duration> = self.running().map(|(_, node)| node.cpu()).collect();
        let start = Instant::now();
        sleep(window).await;
        let elapsed = start.elapsed();
        let used = self.running().zip(before).map(|((_, node), before)| node.cpu() - before);
        used.map(|used| used.as_micros() * 1_000 / elapsed.as_micros()).collect()
    }

    /// Waits until the nodes rest.
    async fn until_idle(&self, window: Duration) -> Vec<u128> {
        let mut used = self.idle_permille(window).await;
        let start = Instant::now();
        while used.iter().any(|permille| *permille > IDLE_PERMILLE_MAX) {
            assert!(start.elapsed() < HANG, "the nodes do not rest: {used:?} of 1,000 of a core");
            used = self.idle_permille(window).await;
        }
        used
    }
}

fn agree(replicas: &[v1::Replica]) -> bool {
    let same = |replica: &v1::Replica| {
        replica.leader == replicas[0].leader
            && replica.voters.len() == NODES
            && replica.committed_offset == replicas[0].committed_offset
    };
    replicas.len() == NODES && !replicas[0].leader.is_empty() && replicas.iter().all(same)
}

/// Appends the record of a number to partitions, one after the other; when the last was appended.
async fn append_in_turn(
    mut log: LogClient<Channel>,
    partitions: Vec<u32>,
    number: i32,
    start: Instant,
) -> Duration {
    for partition in partitions {
        let record = v1::Record { value: number.to_string().into(), ..Default::default() };
        let idempotence =
            Some(v1::Idempotence { producer_id: 7, producer_epoch: 0, sequence: number });
        let (topic, records) = (TOPIC.to_owned(), vec![record]);
        let asked =
            v1::ProduceRequest { records, topic, partition, idempotence, ..Default::default() };
        while let Err(status) = log.produce(asked.clone()).await {
            assert!(start.elapsed() < HANG, "partition {partition}: {status:?}");
            sleep(TRY_AGAIN).await;
        }
    }
    start.elapsed()
}

/// Waits until something holds that only servers can tell.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            sleep(LOOK).await;
        }
    };
    assert!(timeout(HANG, waiting).await.is_ok(), "never: {what}");
}

fn from_environment(name: &str, default: u32) -> u32 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_rest_cost_little_and_fail_over_like_others() {
    let partitions = from_environment("DISLOG_PARTITIONS", 60);
    let window = Duration::from_secs(from_environment("DISLOG_IDLE_SECONDS", 2).into());
    let mut cluster = Cluster::start(partitions).await;
    let options = ClientOptions { request_timeout: HANG, ..ClientOptions::default() };
    let client = Client::connect([&cluster.addresses[0]], options).unwrap();

    let start = Instant::now();
    client.create_topic(TOPIC, partitions, TopicSettings::default()).await.unwrap();
    let created = start.elapsed();
    cluster.until_in_step().await;
    let in_step = start.elapsed();
    let led: Vec<usize> = cluster.led().await.values().map(Vec::len).collect();
    eprintln!("{partitions} partitions: created {created:?}, in step {in_step:?}, led {led:?}");
    let all: Vec<u32> = (0..partitions).collect();
    let took = cluster.append_to(&all, 0, 0).await;
    eprintln!("a record to each: {took:?}");

    let idle = cluster.until_idle(window).await;
    let rss: Vec<u64> = cluster.running().map(|(_, node)| node.rss_bytes().0 >> 20).collect();
    eprintln!("at rest: {idle:?} of 1,000 of a core, {rss:?} MiB");
    let start = Instant::now();
    cluster.replicas().await;
    eprintln!("three nodes described their replicas in {:?}", start.elapsed());

    let ids = cluster.ids().await;
    let lost = cluster.led().await.remove(&ids[2]).unwrap_or_default();
    cluster.nodes[2].take().unwrap().kill();
    let killed = Instant::now();
    until("other nodes lead", async || {
        cluster.led().await.keys().all(|leader| ids[..2].contains(leader))
    })
    .await;
    eprintln!("killed the leader of {}; led by others after {:?}", lost.len(), killed.elapsed());
    cluster.append_to(&lost, 0, 1).await;
    let took = killed.elapsed();
    eprintln!("written again within {took:?}");
    assert!(took < FAILOVER_MAX, "{took:?}");
    let others: Vec<u32> = all.iter().filter(|p| !lost.contains(p)).copied().collect();
    cluster.append_to(&others, 1, 1).await;
    let idle = cluster.until_idle(window).await;
    eprintln!("at rest without it: {idle:?} of 1,000 of a core");

    let start = Instant::now();
    cluster.start_node(2);
    let serves = start.elapsed();
    cluster.check(2).await;
    eprintln!("it serves again after {serves:?}, all were checked after {:?}", start.elapsed());
    // A share is exceeded by a tenth before anything is handed over.
    let share = all.len().div_ceil(NODES);
    let (most, mut shown) = (share + (share / 10).max(1), Vec::new());
    until("the leaders are even again", async || {
        let led = cluster.led().await;
        let counts: Vec<usize> = ids.iter().map(|id| led.get(id).map_or(0, Vec::len)).collect();
        if counts != shown {
            eprintln!("led {counts:?} after {:?}", start.elapsed());
            shown.clone_from(&counts);
        }
        counts.iter().all(|count| *count <= most)
    })
    .await;
    eprintln!("led evenly after {:?}", start.elapsed());
    cluster.until_idle(window).await;
}
