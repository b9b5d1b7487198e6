//! Four nodes and partitions of three replicas: whatever a node has no replica of, it has others
//! answer.

use std::cell::Cell;
use std::time::Instant;

use dislog_proto::v1;
use dislog_proto::v1::consume_request::Start;
use dislog_proto::v1::log_client::LogClient;
use rustix::process::Signal;
use serde_json::Value;
use tokio::runtime::Runtime;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::{Asking, Cluster, HANG, is_well, nodes, until};

const NODES: usize = 4;
const TOPIC: &str = "spread";
const PARTITIONS: u32 = 4;
/// What a stream sends.
const REQUESTS: u32 = 400;

/// Four nodes of which each has no replica of one of the partitions.
struct Spread {
    cluster: Cluster,
    /// By partition: which node leads it, and which has no replica.
    leaders: Vec<usize>,
    without: Vec<usize>,
    /// How many records were added, by partition.
    added: Cell<[u32; PARTITIONS as usize]>,
}

impl Spread {
    fn start() -> Spread {
        let cluster = Cluster::of(NODES);
        cluster.ok(&["topic", "create", TOPIC, "--partitions", &PARTITIONS.to_string()]);
        let well = cluster.until("all is well", |status| is_well(status, PARTITIONS.into()));
        let id = |number: usize| {
            let address = &cluster.addresses[number];
            &nodes(&well).find(|node| node["address"] == **address).unwrap()["id"]
        };
        let is_led = |topic: &Value| {
            let partitions = topic["partitions"].as_array();
            partitions.is_some_and(|all| all.iter().all(|one| one["leader"] != ""))
        };
        let topic = until("all are led", || Some(described(&cluster, 0)), is_led);
        let find = |is_it: &dyn Fn(&Value, &Value) -> bool| -> Vec<usize> {
            let partitions = topic["partitions"].as_array().unwrap().iter();
            let of = |partition| (0..NODES).find(|number| is_it(partition, id(*number))).unwrap();
            partitions.map(of).collect()
        };
        let leaders = find(&|partition, id| partition["leader"] == *id);
        let without =
            find(&|partition, id| !partition["replicas"].as_array().unwrap().contains(id));
        Spread { cluster, leaders, without, added: Cell::default() }
    }

    /// Adds a record, and gives its offset. Asks again if there is no leader, or if nobody knows
    /// whether it was added: its place in the sequence keeps it from being added twice.
    fn add(&self, number: usize, partition: u32, value: &str) -> u64 {
        let mut added = self.added.get();
        let sequence = &mut added[partition as usize];
        let path = format!(
            "/v1/topics/{TOPIC}/records?partition={partition}&producer_id=1&sequence={sequence}"
        );
        *sequence += 1;
        self.added.set(added);
        let end = Instant::now() + HANG;
        loop {
            let mut asking = Asking::at(&self.cluster.addresses[number]);
            asking.ask("POST", &path, value.as_bytes());
            match asking.answer() {
                (201, added) => return added["offset"].as_u64().unwrap(),
                (503 | 504, problem) => assert!(Instant::now() < end, "{problem}"),
                (_, problem) => panic!("{problem}"),
            }
        }
    }

    /// Asks for records, again while the partition has no leader.
    fn get(&self, number: usize, partition: u32, what: &str) -> (u16, Value) {
        let sign = if what.contains('?') { '&' } else { '?' };
        let path = format!("/v1/topics/{TOPIC}/records{what}{sign}partition={partition}");
        let end = Instant::now() + HANG;
        loop {
            let mut asking = Asking::at(&self.cluster.addresses[number]);
            asking.ask("GET", &path, b"");
            match asking.answer() {
                (503, problem) => assert!(Instant::now() < end, "{problem}"),
                answer => return answer,
            }
        }
    }

    /// The values of a page.
    fn values(&self, number: usize, partition: u32, what: &str) -> Vec<String> {
        let (status, page) = self.get(number, partition, what);
        assert_eq!(status, 200, "node {number}, partition {partition}, {what}: {page}");
        let records = page["records"].as_array().unwrap().iter();
        records.map(|record| record["value"].as_str().unwrap().to_owned()).collect()
    }

    async fn log(&self, number: usize) -> LogClient<Channel> {
        let address = format!("http://{}", self.cluster.addresses[number]);
        LogClient::connect(address).await.unwrap()
    }
}

fn described(cluster: &Cluster, number: usize) -> Value {
    let mut asking = Asking::at(&cluster.addresses[number]);
    asking.ask("GET", &format!("/v1/topics/{TOPIC}"), b"");
    asking.answer().1
}

#[test]
fn every_node_answers_for_every_partition() {
    let spread = Spread::start();
    for partition in 0..PARTITIONS {
        for number in 0..NODES {
            let offset = spread.add(number, partition, &format!("by {number}"));
            assert_eq!(offset, number as u64);
        }
    }
    let all = [0, 1, 2, 3].map(|number| format!("by {number}"));
    for (partition, number) in (0..PARTITIONS).zip(&spread.without) {
        let values = |what: &str| spread.values(*number, partition, what);
        assert_eq!(values("?linearizable=true"), all);
        assert_eq!(values("?offset=1&limit=2"), all[1..3]);
        assert_eq!(values("?last=1&linearizable=true"), all[3..]);
        assert_eq!(values("?offset=latest"), [""; 0]);
        let (status, third) = spread.get(*number, partition, "/2");
        assert_eq!((status, third["value"].as_str()), (200, Some("by 2")));
        let since = third["timestamp_ms"].as_i64().unwrap();
        let first_then = values(&format!("?timestamp={since}&limit=1")).remove(0);
        assert!(all[..3].contains(&first_then), "{first_then}");
        let (status, beyond) = spread.get(*number, partition, "/4");
        assert_eq!((status, &beyond["reason"]), (404, &"OFFSET_OUT_OF_RANGE".into()), "{beyond}");
    }
    let is_known = |topic: &Value| {
        let is_whole = |all: &Vec<Value>| {
            all.len() == PARTITIONS as usize && all.iter().all(|one| one["committed_offset"] == 4)
        };
        topic["partitions"].as_array().is_some_and(is_whole)
    };
    for number in 0..NODES {
        until("each node knows the ends", || Some(described(&spread.cluster, number)), is_known);
    }
}

/// Of a topic that was deleted, nothing is read by the name of the one that came after it.
#[test]
fn a_topic_of_the_same_name_is_another_everywhere() {
    let spread = Spread::start();
    for (partition, number) in (0..PARTITIONS).zip(&spread.without) {
        spread.add(*number, partition, "old");
        spread.add(*number, partition, "older");
        let values = spread.values(*number, partition, "?linearizable=true");
        assert_eq!(values, ["old", "older"]);
    }
    spread.cluster.ok(&["topic", "delete", TOPIC, "--yes"]);
    spread.cluster.ok(&["topic", "create", TOPIC, "--partitions", &PARTITIONS.to_string()]);
    spread.added.set(Default::default());
    for partition in 0..PARTITIONS {
        spread.add(spread.leaders[0], partition, "new");
        for number in 0..NODES {
            let (_, page) = spread.get(number, partition, "?linearizable=true");
            assert_eq!(page["records"][0]["value"], "new", "{page}");
            assert_eq!(page["committed_offset"], 1, "{page}");
        }
    }
}

/// The end of the log is followed by way of a node without a replica, also while the nodes that
/// have one fail.
#[test]
fn the_end_is_followed_from_a_node_without_a_replica() {
    let mut spread = Spread::start();
    let (without, leader) = (spread.without[0], spread.leaders[0]);
    spread.add(without, 0, "first");
    let runtime = Runtime::new().unwrap();
    let mut log = runtime.block_on(spread.log(without));
    let request = v1::ConsumeRequest {
        topic: TOPIC.to_owned(),
        start: Some(Start::Earliest(true)),
        max_records: 10,
        ..v1::ConsumeRequest::default()
    };
    let mut stream = runtime.block_on(log.consume_stream(request)).unwrap().into_inner();
    let mut next = || {
        let message =
            runtime.block_on(async { tokio::time::timeout(HANG, stream.message()).await });
        let records = message.expect("it stands still").unwrap().expect("it ended").records;
        let text = |record: v1::Record| String::from_utf8(record.value.into()).unwrap();
        records.into_iter().map(text).collect::<Vec<_>>()
    };
    assert_eq!(next(), ["first"]);
    spread.add(without, 0, "second");
    assert_eq!(next(), ["second"]);
    for killed in [leader, (0..NODES).find(|number| ![leader, without].contains(number)).unwrap()] {
        spread.cluster.end(killed, Signal::KILL);
        let value = format!("without {killed}");
        spread.add(without, 0, &value);
        assert_eq!(next(), [value]);
        let server = spread.cluster.server(killed);
        spread.cluster.servers[killed] = Some(server);
        spread.cluster.until_up(NODES);
    }
}

/// What a stream sends for a partition is there in that order, wherever its leader is and whichever
/// node the stream is sent to.
#[test]
fn a_stream_for_several_partitions_keeps_the_order_of_each() {
    let spread = Spread::start();
    // One keeps the stream and sends requests on; the other sends the stream on.
    for number in [spread.leaders[0], spread.without[0]] {
        a_stream_by(&spread, number);
    }
}

fn a_stream_by(spread: &Spread, number: usize) {
    let runtime = Runtime::new().unwrap();
    let end = Instant::now() + HANG;
    // A leader that loses its office leaves nobody to say what became of some of the records.
    let mut attempts = 1;
    while let Err(status) = runtime.block_on(stream(spread, number, attempts)) {
        let is_unknown = matches!(status.code(), Code::DeadlineExceeded | Code::Unavailable);
        assert!(is_unknown && Instant::now() < end, "attempt {attempts}: {status}");
        attempts += 1;
    }
    for attempt in 1..=attempts {
        let mut count = 0;
        for partition in 0..PARTITIONS {
            let values = spread.values(0, partition, "?limit=10000&linearizable=true");
            let of_attempt = format!("{number} {attempt} ");
            let values = values.iter().filter_map(|value| value.strip_prefix(&of_attempt));
            let numbers: Vec<u32> = values.map(|value| value.parse().unwrap()).collect();
            let is_in_order = numbers.windows(2).all(|two| two[0] < two[1]);
            assert!(is_in_order, "attempt {attempt}, partition {partition}: {numbers:?}");
            count += numbers.len() as u32;
        }
        assert!(count == REQUESTS || attempt < attempts, "{count} of {REQUESTS} are there");
    }
}

/// Sends requests in a stream, and waits until each has its answer.
async fn stream(spread: &Spread, number: usize, attempt: u32) -> Result<(), Status> {
    let mut log = spread.log(number).await;
    let requests = (0..REQUESTS).map(move |request| v1::ProduceRequest {
        topic: TOPIC.to_owned(),
        partition: if request == 0 { 0 } else { 1 + request / 8 % 3 },
        records: vec![v1::Record {
            value: format!("{number} {attempt} {request}").into_bytes().into(),
            ..v1::Record::default()
        }],
        ..v1::ProduceRequest::default()
    });
    let answers = log.produce_stream(tokio_stream::iter(requests)).await?;
    let mut answers = answers.into_inner();
    for request in 0..REQUESTS {
        let answer = tokio::time::timeout(HANG, answers.message()).await;
        let answer = answer.expect("it stands still")?;
        assert!(answer.is_some(), "request {request}");
    }
    Ok(())
}
