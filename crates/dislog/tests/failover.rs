//! Three nodes, of which one is killed, stopped or gone, under a client that knew one address.
//!
//! `DISLOG_FAILOVERS` sets how many leaders are killed (10).

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::print_stderr, reason = "what was measured is for the reader of the run")]

mod node;

use std::future::Future;
use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dislog_client::{
    Client, ClientOptions, ConsumerOptions, Delivery, End, Error, Producer, ProducerOptions,
    ReadFrom, Record, Start, TopicSettings, partition_of_key,
};
use dislog_proto::v1;
use dislog_proto::v1::admin_client::AdminClient;
use dislog_proto::v1::log_client::LogClient;
use node::{HANG, Node};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

const NODES: usize = 3;
const TOPIC: &str = "failover";
/// Deliveries that the producer waits for at most.
const PENDING_MAX: usize = 64;
/// Acknowledgements that show that it goes on.
const MORE: u64 = 50;
/// How long a producer may stand still when its leader is lost: an election, and time for a machine
/// that does other things.
const GAP_MAX: Duration = Duration::from_secs(15);
/// How often a condition that only a server can tell of is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Nodes whose addresses stay. Below the ports that the system gives out, so that nobody gets one
/// while its node is down.
struct Cluster {
    addresses: Vec<String>,
    data: Vec<TempDir>,
    nodes: Vec<Option<Node>>,
}

impl Cluster {
    async fn start() -> Cluster {
        let addresses = free_addresses();
        let data: Vec<TempDir> = (0..NODES).map(|_| tempfile::tempdir().unwrap()).collect();
        let mut cluster = Cluster { addresses, data, nodes: Vec::new() };
        for number in 0..NODES {
            cluster.nodes.push(None);
            cluster.start_node(number);
        }
        until("all nodes see each other", async || cluster.is_whole(NODES).await).await;
        cluster
    }

    fn start_node(&mut self, number: usize) {
        let join = (number > 0).then(|| self.addresses[0].as_str());
        let node = Node::start_at(self.data[number].path(), &self.addresses[number], join);
        self.nodes[number] = Some(node);
    }

    fn kill(&mut self, number: usize) {
        self.nodes[number].take().unwrap().kill();
    }

    fn node(&self, number: usize) -> &Node {
        self.nodes[number].as_ref().unwrap()
    }

    /// A client that is given the address of one node.
    fn client(&self, number: usize) -> Client {
        Client::connect([&self.addresses[number]], ClientOptions::default()).unwrap()
    }

    async fn create_topic(&self, client: &Client) {
        client.create_topic(TOPIC, 1, TopicSettings::default()).await.unwrap();
        until("all nodes vote", async || {
            for number in 0..NODES {
                if self.voters(number).await != Some(NODES) {
                    return false;
                }
            }
            self.leader().await.is_some()
        })
        .await;
    }

    /// What each of the nodes that run says of the servers.
    async fn servers(&self) -> Vec<Vec<v1::Server>> {
        let mut all = Vec::new();
        for (number, _) in self.nodes.iter().enumerate().filter(|(_, node)| node.is_some()) {
            let asked = v1::GetServersRequest { topic: TOPIC.to_owned(), partition: 0 };
            let Some(mut log) = log(&self.addresses[number]).await else { continue };
            if let Ok(Ok(answer)) = timeout(HANG, log.get_servers(asked)).await {
                all.push(answer.into_inner().servers);
            }
        }
        all
    }

    async fn is_whole(&self, count: usize) -> bool {
        let servers = self.servers().await;
        servers.len() == count && servers.iter().all(|servers| servers.len() == count)
    }

    /// Who leads, once all nodes that run say the same.
    async fn leader(&self) -> Option<usize> {
        let servers = self.servers().await;
        let leader = |servers: &Vec<v1::Server>| {
            Some(servers.iter().find(|server| server.is_leader)?.rpc_addr.clone())
        };
        let first = leader(servers.first()?)?;
        let agreed = servers.iter().all(|servers| leader(servers).as_ref() == Some(&first));
        self.addresses.iter().position(|address| *address == first).filter(|_| agreed)
    }

    async fn agreed_leader(&self) -> usize {
        let mut found = None;
        until("the nodes agree on a leader", async || {
            found = self.leader().await;
            found.is_some()
        })
        .await;
        found.unwrap()
    }

    async fn voters(&self, number: usize) -> Option<usize> {
        let replicas = self.replicas(number).await?;
        Some(replicas.iter().find(|replica| replica.topic == TOPIC)?.voters.len())
    }

    async fn replicas(&self, number: usize) -> Option<Vec<v1::Replica>> {
        let endpoint = format!("http://{}", self.addresses[number]);
        let mut admin = AdminClient::connect(endpoint).await.ok()?;
        let answer = admin.describe_replicas(v1::DescribeReplicasRequest {}).await.ok()?;
        Some(answer.into_inner().replicas)
    }

    async fn committed_offset(&self, number: usize) -> u64 {
        let replicas = self.replicas(number).await.unwrap_or_default();
        replicas.iter().find(|replica| replica.topic == TOPIC).map_or(0, |r| r.committed_offset)
    }

    async fn hand_over(&self, from: usize, to: usize) {
        let servers = self.servers().await;
        let to = servers[0].iter().find(|server| server.rpc_addr == self.addresses[to]).unwrap();
        let (topic, node_id) = (TOPIC.to_owned(), to.id.clone());
        let asked = v1::TransferLeaderRequest { topic, partition: 0, node_id };
        let endpoint = format!("http://{}", self.addresses[from]);
        let mut admin = AdminClient::connect(endpoint).await.unwrap();
        admin.transfer_leader(asked).await.unwrap();
    }

    /// Every node has exactly these records, each at its place.
    async fn check(&self, count: u64) {
        for number in 0..NODES {
            until("the node has everything", async || self.committed_offset(number).await >= count)
                .await;
            let mut log = log(&self.addresses[number]).await.unwrap();
            let mut offset = 0;
            while offset < count {
                let max_bytes = 1 << 20;
                let topic = TOPIC.to_owned();
                let asked = v1::ConsumeRequest { topic, offset, max_bytes, ..Default::default() };
                let answer = log.consume(asked).await.unwrap().into_inner();
                assert!(answer.committed_offset == count, "node {number} has more than was sent");
                for record in answer.records {
                    assert_eq!(record.offset, offset, "on node {number}");
                    assert_eq!(record.value, offset.to_string(), "on node {number} at {offset}");
                    offset += 1;
                }
            }
        }
    }
}

async fn log(address: &str) -> Option<LogClient<tonic::transport::Channel>> {
    LogClient::connect(format!("http://{address}")).await.ok()
}

fn free_addresses() -> Vec<String> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let is_free = |address: &String| TcpListener::bind(address).is_ok();
    let process = u16::try_from(std::process::id() % 100).unwrap();
    let next = || 19_500 + (process + NEXT.fetch_add(1, Ordering::Relaxed)) % 100;
    let addresses = std::iter::repeat_with(|| format!("127.0.0.1:{}", next()));
    addresses.filter(is_free).take(NODES).collect()
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

/// How the producer fares.
#[derive(Default)]
struct Acks {
    last: Option<Instant>,
    longest_gap: Duration,
}

/// A producer that sends numbers until it is told to end, and what it had acknowledged.
struct Writer {
    acked: watch::Receiver<u64>,
    acks: Arc<Mutex<Acks>>,
    ending: watch::Sender<bool>,
    sending: JoinHandle<u64>,
    settling: JoinHandle<()>,
}

impl Writer {
    fn start(client: &Client) -> Writer {
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

    /// The longest time without an acknowledgement since this was asked last.
    fn longest_gap(&self) -> Duration {
        std::mem::take(&mut self.acks.lock().unwrap().longest_gap)
    }

    async fn end(self) -> u64 {
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
struct Tail {
    seen: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

impl Tail {
    fn start(client: &Client, read_from: ReadFrom) -> Tail {
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

    async fn sees(&mut self, count: u64) {
        let seen = timeout(HANG, self.seen.wait_for(|seen| *seen >= count)).await;
        seen.expect("the tail stands still").expect("the tail failed");
    }

    async fn end(mut self, count: u64) {
        self.sees(count).await;
        assert_eq!(*self.seen.borrow(), count);
        self.task.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_leaders_under_load_loses_and_doubles_nothing() {
    let kills = std::env::var("DISLOG_FAILOVERS").map_or(10, |kills| kills.parse().unwrap());
    let mut cluster = Cluster::start().await;
    let client = cluster.client(0);
    cluster.create_topic(&client).await;
    let mut writer = Writer::start(&client);
    let mut tail = Tail::start(&client, ReadFrom::default());
    let mut gaps = Vec::new();
    for _ in 0..kills {
        writer.goes_on(MORE).await;
        let leader = cluster.agreed_leader().await;
        writer.longest_gap();
        cluster.kill(leader);
        writer.goes_on(PENDING_MAX as u64 + MORE).await;
        gaps.push(writer.longest_gap());
        cluster.start_node(leader);
        let acked = *writer.acked.borrow();
        tail.sees(acked).await;
        until("the node is back", async || {
            cluster.is_whole(NODES).await && cluster.committed_offset(leader).await >= acked
        })
        .await;
    }
    let count = writer.end().await;
    tail.end(count).await;
    cluster.check(count).await;
    gaps.sort_unstable();
    let p50 = gaps[gaps.len() / 2];
    eprintln!("{kills} kills, {count} records, longest gaps: p50 {p50:?}, all {gaps:?}");
    assert!(gaps.iter().all(|gap| *gap < GAP_MAX), "{gaps:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_leader_holds_nobody_up_for_long() {
    const STOPPED: Duration = Duration::from_secs(5);
    let cluster = Cluster::start().await;
    let client = cluster.client(0);
    cluster.create_topic(&client).await;
    let mut writer = Writer::start(&client);
    writer.goes_on(MORE).await;
    let leader = cluster.agreed_leader().await;
    // By a client that asks who leads now.
    let mut tail = Tail::start(&cluster.client(0), ReadFrom::Leader);
    tail.sees(MORE).await;
    writer.longest_gap();
    cluster.node(leader).pause();
    let start = Instant::now();
    writer.goes_on(PENDING_MAX as u64 + MORE).await;
    let gap = writer.longest_gap();
    // It was read from, and does not say that it is gone.
    let acked = *writer.acked.borrow();
    tail.sees(acked).await;
    let (noticed, calls) = (start.elapsed(), client.list_topics());
    assert!(within(calls).await.unwrap().iter().any(|topic| topic.name == TOPIC));
    sleep(STOPPED.saturating_sub(start.elapsed())).await;
    cluster.node(leader).resume();
    writer.goes_on(MORE).await;
    let count = writer.end().await;
    tail.end(count).await;
    cluster.check(count).await;
    eprintln!("stopped leader: producer stood for {gap:?}, its reader for at most {noticed:?}");
    assert!(gap < GAP_MAX && noticed < GAP_MAX, "{gap:?} {noticed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn handing_over_leadership_hardly_interrupts_a_producer() {
    let cluster = Cluster::start().await;
    let client = cluster.client(1);
    cluster.create_topic(&client).await;
    let mut writer = Writer::start(&client);
    let mut tail = Tail::start(&client, ReadFrom::Any);
    let mut gaps = Vec::new();
    for _ in 0..6 {
        writer.goes_on(MORE).await;
        let leader = cluster.agreed_leader().await;
        writer.longest_gap();
        cluster.hand_over(leader, (leader + 1) % NODES).await;
        writer.goes_on(PENDING_MAX as u64 + MORE).await;
        gaps.push(writer.longest_gap());
        // The value alone: a borrow would hold up the writer as long as it lasts.
        let acked = *writer.acked.borrow();
        tail.sees(acked).await;
    }
    let count = writer.end().await;
    tail.end(count).await;
    cluster.check(count).await;
    eprintln!("longest gaps when leadership was handed over: {gaps:?}");
    assert!(gaps.iter().all(|gap| *gap < GAP_MAX), "{gaps:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_never_out_of_range_at_a_follower() {
    let cluster = Cluster::start().await;
    let client = cluster.client(0);
    cluster.create_topic(&client).await;
    for round in 0..100 {
        let records = vec![Record::new("a"), Record::new("b")];
        let produced = within(client.produce(TOPIC, 0, records, None)).await.unwrap();
        assert_eq!(produced.offset, 2 * round);
        // The followers hear of it a moment later.
        let (start, end) = (Start::Offset(2 * round + 1), End::Offset(2 * round + 2));
        let options = ConsumerOptions { start, end, ..ConsumerOptions::default() };
        let mut consumer = client.consumer(TOPIC, 0, options).unwrap();
        let record = within(consumer.next()).await.unwrap().unwrap();
        assert_eq!((record.offset, record.value), (2 * round + 1, "b".into()));
    }
    let start = Start::Offset(201);
    let options = ConsumerOptions { start, end: End::Never, ..ConsumerOptions::default() };
    let error = within(client.consumer(TOPIC, 0, options).unwrap().next()).await.unwrap_err();
    assert!(matches!(error, Error::OutOfRange { offset: 201, latest: 200, .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_spread_over_partitions_that_several_nodes_lead() {
    const PARTITIONS: u32 = 6;
    let cluster = Cluster::start().await;
    let port = cluster.addresses[2].trim_start_matches("127.0.0.1");
    let named = [format!("http://localhost{port}")];
    let client = Client::connect(named, ClientOptions::default()).unwrap();
    client.create_topic("spread", PARTITIONS, TopicSettings::default()).await.unwrap();
    let options = ProducerOptions { batch_bytes_max: 300, ..ProducerOptions::default() };
    let producer = client.producer("spread", options).unwrap();
    let mut counts = [0_u32; PARTITIONS as usize];
    let mut deliveries = Vec::new();
    for number in 0..2_000_u32 {
        let keyed = number % 2 == 0;
        let key = keyed.then(|| number.to_string().into());
        let record = Record { key, ..Record::new("value") };
        deliveries.push((number, producer.send(record).await.unwrap()));
    }
    for (number, delivery) in deliveries {
        let partition = within(delivery).await.unwrap().partition;
        counts[partition as usize] += number % 2;
        if number % 2 == 0 {
            let key = number.to_string();
            assert_eq!(partition, partition_of_key(key.as_bytes(), PARTITIONS), "{key}");
        }
    }
    within(producer.close()).await.unwrap();
    assert!(counts.iter().all(|count| *count > 0), "without keys: {counts:?}");
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(HANG, future).await.expect("it hangs")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_that_a_client_was_given_may_go() {
    let mut cluster = Cluster::start().await;
    let client = cluster.client(0);
    cluster.create_topic(&client).await;
    let producer = client.producer(TOPIC, ProducerOptions::default()).unwrap();
    let delivered = producer.send(Record::new("0")).await.unwrap().await.unwrap();
    assert_eq!(delivered.offset, 0);
    cluster.kill(0);
    let delivery = producer.send(Record::new("1")).await.unwrap();
    assert_eq!(within(delivery).await.unwrap().offset, 1);
    let again = within(client.produce(TOPIC, 0, vec![Record::new("2")], Some(2))).await;
    assert_eq!(again.unwrap().offset, 2);
    assert_eq!(within(client.list_topics()).await.unwrap().len(), 1);
    let options = ConsumerOptions { linearizable: true, ..ConsumerOptions::default() };
    let mut consumer = client.consumer(TOPIC, 0, options).unwrap();
    for number in 0..3 {
        let record = within(consumer.next()).await.unwrap().unwrap();
        assert_eq!((record.offset, record.value), (number, number.to_string().into()));
    }
    assert_eq!(within(consumer.next()).await.unwrap(), None);
    within(producer.close()).await.unwrap();
    cluster.start_node(0);
    cluster.check(3).await;
}
