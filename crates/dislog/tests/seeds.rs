//! The defects of the systems that Dislog was specified from, each as a test on the real binary.
//!
//! `DISLOG_RESTART_MIB` sets how much is in the log that is started again (64).

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::print_stderr, reason = "what was measured is for the reader of the run")]

mod node;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use dislog_client::{
    Client, ClientOptions, ConsumerOptions, End, ProducerOptions, Record, Start, TopicSettings,
};
use dislog_proto::v1;
use dislog_proto::v1::log_client::LogClient;
use node::{HANG, Node};
use tonic::transport::Channel;

/// How long the idle follower is watched.
const IDLE: Duration = Duration::from_secs(4);
/// The least that a segment may be set to hold.
const SEGMENT_BYTES_MIN: u64 = 4 << 10;

fn client(node: &Node) -> Client {
    Client::connect([&node.address], ClientOptions::default()).unwrap()
}

async fn log_client(node: &Node) -> LogClient<Channel> {
    let endpoint = format!("http://{}", node.address);
    let client = LogClient::connect(endpoint).await.unwrap();
    client.max_decoding_message_size(64 << 20)
}

fn request(topic: &str, values: impl IntoIterator<Item = &'static [u8]>) -> v1::ProduceRequest {
    let record = |value: &'static [u8]| v1::Record { value: value.into(), ..v1::Record::default() };
    let records = values.into_iter().map(record).collect();
    v1::ProduceRequest { topic: topic.to_owned(), records, ..v1::ProduceRequest::default() }
}

fn from_offset(topic: &str, offset: u64) -> v1::ConsumeRequest {
    v1::ConsumeRequest { topic: topic.to_owned(), offset, ..v1::ConsumeRequest::default() }
}

async fn values(client: &Client, topic: &str) -> Vec<Vec<u8>> {
    let options = ConsumerOptions { end: End::Committed, ..ConsumerOptions::default() };
    let mut consumer = client.consumer(topic, 0, options).unwrap();
    let mut values = Vec::new();
    while let Some(record) = consumer.next().await.unwrap() {
        assert_eq!(record.offset, values.len() as u64, "offsets are dense");
        values.push(record.value.to_vec());
    }
    values
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_restart_loses_and_duplicates_nothing() {
    let data_dir = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    for round in 0..3 {
        let node = Node::start(data_dir.path());
        assert_eq!(read_or_nothing(&client(&node), round).await, expected, "start {round}");
        let producer = client(&node).producer("restart", ProducerOptions::default()).unwrap();
        for number in 0..100 {
            let value = format!("{round}-{number}").into_bytes();
            drop(producer.send(Record::new(value.clone())).await.unwrap());
            expected.push(value);
        }
        producer.close().await.unwrap();
        assert_eq!(values(&client(&node), "restart").await, expected);
        assert!(node.terminate().0.success());
    }
}

async fn read_or_nothing(client: &Client, round: u32) -> Vec<Vec<u8>> {
    // Before the first round the topic does not exist yet.
    if round == 0 { Vec::new() } else { values(client, "restart").await }
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_records_are_records() {
    let data_dir = tempfile::tempdir().unwrap();
    let node = Node::start(data_dir.path());
    let mut log = log_client(&node).await;
    let one = log.produce(request("empty", [b"".as_slice()])).await.unwrap().into_inner();
    assert_eq!((one.offset, one.count), (0, 1));
    let many = log.produce(request("empty", [b"".as_slice(); 90])).await.unwrap().into_inner();
    assert_eq!((many.offset, many.count), (1, 90));
    assert_eq!(values(&client(&node), "empty").await, vec![Vec::<u8>::new(); 91]);
    node.kill();
    let node = Node::start(data_dir.path());
    assert_eq!(values(&client(&node), "empty").await, vec![Vec::<u8>::new(); 91]);
    assert!(node.terminate().0.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_segments_need_few_open_files() {
    const OPEN_FILES: u32 = 256;
    let segments_wanted = std::env::var("DISLOG_SEGMENTS").map_or(1_000, |n| n.parse().unwrap());
    let data_dir = tempfile::tempdir().unwrap();
    let node = Node::start_with_open_files(data_dir.path(), OPEN_FILES);
    let settings =
        TopicSettings { segment_bytes: Some(SEGMENT_BYTES_MIN), ..TopicSettings::default() };
    client(&node).create_topic("many", 1, settings).await.unwrap();
    let start = Instant::now();
    fill_segments(&node, segments_wanted).await;
    let filled = start.elapsed();
    let segments = segments(&node).await;
    assert!(segments >= segments_wanted, "there are {segments} segments");
    check_every_hundredth(&node, segments_wanted).await;
    assert!(node.terminate().0.success());
    let start = Instant::now();
    let node = Node::start_with_open_files(data_dir.path(), OPEN_FILES);
    let clean = start.elapsed();
    check_every_hundredth(&node, segments_wanted).await;
    assert!(node.open_files() < OPEN_FILES as usize);
    node.kill();
    let start = Instant::now();
    let node = Node::start_with_open_files(data_dir.path(), OPEN_FILES);
    eprintln!("filled in {filled:?}, restart {clean:?}, killed {:?}", start.elapsed());
    check_every_hundredth(&node, segments_wanted).await;
    assert!(node.terminate().0.success());
}

async fn segments(node: &Node) -> u32 {
    client(node).describe_topic("many").await.unwrap().partitions[0].segments
}

/// One record fills a segment, so that the next one begins another.
async fn fill_segments(node: &Node, count: u32) {
    let mut log = log_client(node).await;
    let value = |number: u32| {
        let mut value = number.to_string().into_bytes();
        value.resize(usize::try_from(SEGMENT_BYTES_MIN).unwrap() - 300, b' ');
        v1::Record { value: value.into(), ..v1::Record::default() }
    };
    let requests = (0..=count).map(move |number| v1::ProduceRequest {
        topic: "many".to_owned(),
        records: vec![value(number)],
        ..v1::ProduceRequest::default()
    });
    let stream = log.produce_stream(futures_util::stream::iter(requests)).await.unwrap();
    let mut answers = stream.into_inner();
    for expected in 0..=count {
        let answer = answers.message().await.unwrap().expect("an answer for each");
        assert_eq!(answer.offset, u64::from(expected));
    }
}

async fn check_every_hundredth(node: &Node, count: u32) {
    let mut log = log_client(node).await;
    for number in (0..=count).step_by(100) {
        let answer = log.consume(from_offset("many", u64::from(number))).await.unwrap();
        let record = &answer.into_inner().records[0];
        assert_eq!(record.offset, u64::from(number));
        assert!(record.value.starts_with(format!("{number} ").as_bytes()), "record {number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_follower_costs_nothing() {
    let data_dir = tempfile::tempdir().unwrap();
    let node = Node::start(data_dir.path());
    let mut log = log_client(&node).await;
    log.produce(request("idle", [b"first".as_slice()])).await.unwrap();
    let mut streams = Vec::new();
    for _ in 0..10 {
        let mut stream = log.consume_stream(from_offset("idle", 0)).await.unwrap().into_inner();
        assert_eq!(stream.message().await.unwrap().unwrap().records[0].value, &b"first"[..]);
        streams.push(stream);
    }
    let mut used = Vec::new();
    // What opening them left to do may not be done yet.
    while used.len() < 3 && used.iter().all(|used| *used >= IDLE / 100) {
        let before = node.cpu();
        // Nothing happens for so long, which is what is measured; a record would be an error.
        let quiet = tokio::time::timeout(IDLE, streams[0].message()).await;
        assert!(quiet.is_err(), "{quiet:?}");
        used.push(node.cpu() - before);
    }
    assert!(used.iter().any(|used| *used < IDLE / 100), "{used:?} of a core in {IDLE:?} each");
    log.produce(request("idle", [b"second".as_slice()])).await.unwrap();
    for stream in &mut streams {
        assert_eq!(stream.message().await.unwrap().unwrap().records[0].value, &b"second"[..]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_quickly_while_streams_are_open() {
    quickest(Duration::from_secs(2), ended_with_open_streams).await;
}

/// Whether it takes less than that, in the best of a few attempts: the disk stands still now and
/// then, but not for as long as somebody who waits for what does not come.
async fn quickest<F: Future<Output = Duration>>(limit: Duration, mut attempt: impl FnMut() -> F) {
    let mut took = Vec::new();
    while took.len() < 4 && took.iter().all(|took| *took >= limit) {
        took.push(attempt().await);
    }
    assert!(took.iter().any(|took| *took < limit), "{took:?}");
    assert!(took.iter().all(|took| *took < Duration::from_secs(15)), "{took:?}");
}

async fn ended_with_open_streams() -> Duration {
    let data_dir = tempfile::tempdir().unwrap();
    let node = Node::start(data_dir.path());
    let mut log = log_client(&node).await;
    log.produce(request("streams", [b"first".as_slice()])).await.unwrap();
    let mut reader = log.consume_stream(from_offset("streams", 0)).await.unwrap().into_inner();
    reader.message().await.unwrap().unwrap();
    let (to_server, requests) = tokio::sync::mpsc::channel(1);
    to_server.send(request("streams", [b"second".as_slice()])).await.unwrap();
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let mut writer = log.produce_stream(requests).await.unwrap().into_inner();
    assert_eq!(writer.message().await.unwrap().unwrap().offset, 1);
    let mut waiting = log.clone();
    let waiting = tokio::spawn(async move {
        let wait_ms = 60_000;
        waiting.consume(v1::ConsumeRequest { wait_ms, ..from_offset("streams", 2) }).await
    });
    let mut events = follow_events(&node.address, "streams");
    let (status, took) = tokio::task::spawn_blocking(|| node.terminate()).await.unwrap();
    assert!(status.success(), "{status}");
    reader_ends(&mut reader).await;
    assert!(writer.message().await.is_err() || to_server.is_closed());
    let answer = waiting.await.unwrap();
    assert!(answer.is_err(), "{answer:?}");
    events.read_to_end(&mut Vec::new()).unwrap();
    took
}

/// A stream of events over HTTP, of which the first has arrived.
fn follow_events(address: &str, topic: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(HANG)).unwrap();
    let head = format!(
        "GET /v1/topics/{topic}/records?offset=0 HTTP/1.1\r\nHost: {address}\r\n\
         Accept: text/event-stream\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("first") {
        let mut piece = [0; 1024];
        let len = stream.read(&mut piece).unwrap();
        assert!(len > 0, "the stream ended: {}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&piece[..len]);
    }
    stream
}

/// What was sent before the end is given; then the stream says that the server goes away.
async fn reader_ends(reader: &mut tonic::Streaming<v1::ConsumeResponse>) {
    while let Ok(message) = reader.message().await {
        match message {
            Some(_) => {}
            None => return,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_is_quick_after_a_clean_stop_and_after_kill_9() {
    let mib: usize = std::env::var("DISLOG_RESTART_MIB").map_or(64, |mib| mib.parse().unwrap());
    let stop = |node: Node| assert!(node.terminate().0.success());
    quickest(Duration::from_secs(1), || restarted(mib, stop)).await;
    quickest(Duration::from_secs(3), || restarted(2 * mib, Node::kill)).await;
}

/// How long a start takes with so many mebibytes after such an end.
async fn restarted(mib: usize, end: impl FnOnce(Node)) -> Duration {
    let data_dir = tempfile::tempdir().unwrap();
    let node = Node::start(data_dir.path());
    write_mebibytes(&node, mib).await;
    end(node);
    let (node, took) = timed_start(data_dir.path(), mib).await;
    assert!(node.terminate().0.success());
    eprintln!("restart with {mib} MiB: {took:?}");
    took
}

/// Records of 1 KiB that compression and holes cannot make small.
async fn write_mebibytes(node: &Node, mib: usize) {
    let producer = client(node).producer("large", ProducerOptions::default()).unwrap();
    for number in 0..mib << 10 {
        let mut value = number.to_be_bytes().repeat(128);
        value[8..16].fill(0xa5);
        drop(producer.send(Record::new(value)).await.unwrap());
    }
    producer.close().await.unwrap();
}

/// Starts a node and reads the last record of the log: from nothing to the first answer.
async fn timed_start(data_dir: &Path, mib: usize) -> (Node, Duration) {
    let start = Instant::now();
    let node = Node::start(data_dir);
    let client = client(&node);
    let options = ConsumerOptions { start: Start::Last(1), ..ConsumerOptions::default() };
    let mut consumer = client.consumer("large", 0, options).unwrap();
    let last = consumer.next().await.unwrap().expect("there is a last record");
    let took = start.elapsed();
    assert_eq!(last.offset + 1, (mib << 10) as u64);
    (node, took)
}
