//! What a consumer promises.

use dislog_client::{
    Client, ConsumedRecord, Consumer, ConsumerOptions, End, Error, ProducerOptions, Record, Start,
};

use crate::node::{Node, client, read_all};
use crate::wire::Wire;

async fn fill(client: &Client, topic: &str, numbers: std::ops::Range<u64>) {
    let options = ProducerOptions { batch_bytes_max: 100, ..ProducerOptions::default() };
    let producer = client.producer(topic, options).unwrap();
    for number in numbers {
        drop(producer.send(Record::new(number.to_string())).await.unwrap());
    }
    producer.close().await.unwrap();
}

fn consumer(client: &Client, start: Start, end: End) -> Consumer {
    let options = ConsumerOptions { start, end, ..ConsumerOptions::default() };
    client.consumer("t", 0, options).unwrap()
}

async fn offsets(mut consumer: Consumer) -> Vec<u64> {
    let mut offsets = Vec::new();
    while let Some(record) = consumer.next().await.unwrap() {
        assert_eq!(record.value, record.offset.to_string());
        offsets.push(record.offset);
    }
    offsets
}

#[tokio::test]
async fn ranges_are_exact() {
    let node = Node::start().await;
    let client = node.client();
    fill(&client, "t", 0..50).await;
    for (start, end, range) in [
        (Start::Earliest, End::Committed, 0..50),
        (Start::Offset(7), End::Committed, 7..50),
        (Start::Offset(7), End::Offset(9), 7..9),
        (Start::Offset(50), End::Committed, 50..50),
        (Start::Last(3), End::Committed, 47..50),
        (Start::Last(99), End::Committed, 0..50),
        (Start::Latest, End::Committed, 50..50),
        (Start::Timestamp(0), End::Offset(4), 0..4),
        (Start::Timestamp(i64::MAX), End::Committed, 50..50),
    ] {
        let seen = offsets(consumer(&client, start, end)).await;
        assert_eq!(seen, range.collect::<Vec<_>>(), "{start:?} to {end:?}");
    }
}

#[tokio::test]
async fn a_time_finds_its_first_record() {
    let node = Node::start().await;
    let client = node.client();
    fill(&client, "t", 0..50).await;
    let records = read_all(&client, "t", 0).await;
    let time_ms = records[30].timestamp_ms;
    let first = records.iter().find(|record| record.timestamp_ms >= time_ms).unwrap();
    let found = client.offset_of("t", 0, Start::Timestamp(time_ms)).await.unwrap();
    assert_eq!(found, first.offset);
}

#[tokio::test]
async fn an_offset_beyond_the_end_is_an_error_that_names_the_range() {
    let node = Node::start().await;
    let client = node.client();
    fill(&client, "t", 0..5).await;
    for end in [End::Committed, End::Never] {
        let error = consumer(&client, Start::Offset(9), end).next().await.unwrap_err();
        let expected = matches!(error, Error::OutOfRange { offset: 9, earliest: 0, latest: 5, .. });
        assert!(expected, "{error}");
    }
}

#[tokio::test]
async fn trimmed_records_are_named_and_seek_goes_on() {
    let node = Node::start().await;
    let client = node.client();
    fill(&client, "t", 0..50).await;
    assert_eq!(client.trim_topic("t", 0, 20).await.unwrap(), 20);
    let mut consumer = consumer(&client, Start::Offset(3), End::Never);
    for _ in 0..2 {
        let error = consumer.next().await.unwrap_err();
        assert!(matches!(error, Error::Trimmed { offset: 3, earliest: 20, .. }), "{error}");
    }
    consumer.seek(20);
    assert_eq!(consumer.next().await.unwrap().unwrap().offset, 20);
}

#[tokio::test]
async fn a_follower_sees_what_comes_and_survives_restarts_and_cuts() {
    let mut node = Node::start().await;
    let direct = node.client();
    fill(&direct, "t", 0..10).await;
    let wire = Wire::to(node.addr()).await;
    let mut follower = consumer(&client(wire.addr()), Start::Offset(5), End::Never);
    let mut seen: Vec<ConsumedRecord> = Vec::new();
    for round in 1..=4 {
        while seen.len() < round * 10 - 5 {
            seen.push(follower.next().await.unwrap().unwrap());
        }
        match round {
            1 | 3 => wire.cut(),
            _ => {
                node.stop().await;
                node.start_again().await;
            }
        }
        fill(&direct, "t", round as u64 * 10..round as u64 * 10 + 10).await;
    }
    assert_eq!(
        seen.iter().map(|record| record.offset).collect::<Vec<_>>(),
        (5..40).collect::<Vec<_>>()
    );
    assert!(seen.iter().all(|record| record.value == record.offset.to_string()));
}

#[tokio::test]
async fn latest_starts_with_the_next_record() {
    let node = Node::start().await;
    let client = node.client();
    fill(&client, "t", 0..3).await;
    let mut follower = consumer(&client, Start::Latest, End::Never);
    // The start is fixed by the first `next`, which finds nothing yet.
    let next = tokio::spawn(async move { follower.next().await });
    while !next.is_finished() {
        client.produce("t", 0, vec![Record::new("x")], None).await.unwrap();
        tokio::task::yield_now().await;
    }
    let record = next.await.unwrap().unwrap().unwrap();
    assert!(record.offset >= 3 && record.value == "x");
}

#[tokio::test]
async fn records_and_batches_may_be_mixed_and_the_position_is_exact() {
    let node = Node::start().await;
    let client = node.client();
    fill(&client, "t", 0..50).await;
    let mut consumer = consumer(&client, Start::Earliest, End::Committed);
    assert_eq!(consumer.position(), None);
    let mut next = 0;
    loop {
        let Some(record) = consumer.next().await.unwrap() else { break };
        assert_eq!(record.offset, next);
        next += 1;
        assert_eq!(consumer.position(), Some(next));
        let Some(batch) = consumer.next_batch().await.unwrap() else { break };
        assert_eq!(batch.records[0].offset, next);
        assert_eq!(batch.committed_offset, 50);
        next += batch.records.len() as u64;
        assert_eq!(consumer.position(), Some(next));
    }
    assert_eq!(next, 50);
    assert_eq!(consumer.next().await.unwrap(), None, "the end stays the end");
}

#[tokio::test]
async fn a_missing_topic_is_said_to_be_missing() {
    let node = Node::start().await;
    let mut consumer = node.client().consumer("none", 0, Default::default()).unwrap();
    assert!(matches!(consumer.next().await, Err(Error::TopicNotFound(_))));
}
