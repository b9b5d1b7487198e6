//! Nodes that are killed, stopped, cut off, damaged or gone, and others that come, under clients
//! that knew one address.
//!
//! Small by default; `docs/testing.md` says how to make long runs of it.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::print_stderr, reason = "what was measured is for the reader of the run")]

mod cluster;
mod disks;
mod load;
mod membership;
mod namespaces;
#[path = "../node/mod.rs"]
mod node;
mod outages;
mod partitions;
#[path = "../ports/mod.rs"]
mod ports;

use std::future::Future;
use std::time::Instant;

use cluster::Cluster;
use dislog_client::{
    Client, ClientOptions, ConsumerOptions, End, Error, ProducerOptions, ReadFrom, Record, Start,
    TopicSettings, partition_of_key,
};
use load::{Gaps, Tail, Writer};
use node::HANG;
use tokio::time::timeout;

const NODES: usize = 3;
const TOPIC: &str = "failover";

#[tokio::test(flavor = "multi_thread")]
async fn handing_over_leadership_hardly_interrupts_a_producer() {
    let cluster = Cluster::start().await;
    let client = cluster.client(1);
    cluster.create_topic(&client).await;
    let mut writer = Writer::start(&client);
    let mut tail = Tail::start(&client, ReadFrom::Any);
    let mut gaps = Gaps::of("leadership handed over");
    for _ in 0..6 {
        writer.goes_on_and_on().await;
        let next = cluster.follower(0).await;
        writer.longest_gap();
        cluster.hand_over(TOPIC, next).await;
        writer.goes_on_and_on().await;
        gaps.push(writer.longest_gap());
        tail.sees(writer.acked()).await;
    }
    let count = writer.end().await;
    tail.end(count).await;
    cluster.check(count).await;
    gaps.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_never_out_of_range_at_a_follower() {
    let cluster = Cluster::start().await;
    let client = cluster.client(0);
    cluster.create_topic(&client).await;
    let (mut next, end) = (0, Instant::now() + 3 * HANG);
    while next < 200 {
        assert!(Instant::now() < end, "{next} of 200");
        let records = vec![Record::new("a"), Record::new("b")];
        let produced = within(client.produce(TOPIC, 0, records, Some(next))).await;
        match produced {
            Ok(produced) => assert_eq!(produced.offset, next),
            // A leader may lose its office on a busy machine.
            Err(Error::UnknownOutcome { .. }) => continue,
            // They were appended after all.
            Err(Error::UnexpectedOffset { actual, .. }) if actual == Some(next + 2) => {}
            Err(error) => panic!("{error}"),
        }
        // The followers hear of it a moment later.
        let (start, end) = (Start::Offset(next + 1), End::Offset(next + 2));
        let options = ConsumerOptions { start, end, ..ConsumerOptions::default() };
        let mut consumer = client.consumer(TOPIC, 0, options).unwrap();
        let record = within(consumer.next()).await.unwrap().unwrap();
        assert_eq!((record.offset, record.value), (next + 1, "b".into()));
        next += 2;
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
