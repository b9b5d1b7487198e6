//! What a producer promises.

use std::time::Duration;

use dislog_client::{
    Compression, Delivered, Error, Header, Outcome, ProducerOptions, Record, partition_of_key,
};

use crate::node::{Node, assert_numbered, client, read_all};
use crate::wire::{Answers, Wire};

fn small_batches() -> ProducerOptions {
    ProducerOptions { batch_bytes_max: 200, ..ProducerOptions::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_arrive_in_order_whatever_the_compression() {
    let node = Node::start().await;
    let client = node.client();
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
        let topic = compression.name();
        let options = ProducerOptions { compression, ..small_batches() };
        let producer = client.producer(topic, options).unwrap();
        let mut deliveries = Vec::new();
        for number in 0..1_000 {
            deliveries.push(producer.send(Record::new(number.to_string())).await.unwrap());
        }
        let mut last_timestamp_ms = 0;
        for (number, delivery) in deliveries.into_iter().enumerate() {
            let Delivered { partition, offset, timestamp_ms } = delivery.await.unwrap();
            assert_eq!((partition, offset), (0, number as u64));
            assert!(timestamp_ms >= last_timestamp_ms);
            last_timestamp_ms = timestamp_ms;
        }
        producer.close().await.unwrap();
        assert_numbered(&read_all(&client, topic, 0).await, 1_000);
    }
}

#[tokio::test]
async fn a_record_keeps_all_its_parts() {
    let node = Node::start().await;
    let client = node.client();
    let sent = Record {
        key: Some("k".into()),
        value: vec![0, 1, 255].into(),
        headers: vec![
            Header { key: "h".to_owned(), value: "1".into() },
            Header { key: "h".to_owned(), value: "".into() },
        ],
        created_ms: 1_234,
    };
    let producer = client.producer("parts", ProducerOptions::default()).unwrap();
    for record in [sent.clone(), Record::new("")] {
        producer.send(record).await.unwrap().await.unwrap();
    }
    let seen = read_all(&client, "parts", 0).await;
    assert_eq!(seen[0].key, sent.key);
    assert_eq!(seen[0].value, sent.value);
    assert_eq!(seen[0].headers, sent.headers);
    assert_eq!(seen[0].created_ms, 1_234);
    assert_eq!((seen[1].key.clone(), seen[1].value.len()), (None, 0));
    assert!(seen[1].created_ms > 1_234, "it was stamped with the time of its sending");
}

#[tokio::test]
async fn many_records_travel_in_few_batches() {
    let node = Node::start().await;
    let client = node.client();
    let options = ProducerOptions { linger: Duration::from_secs(60), ..ProducerOptions::default() };
    let producer = client.producer("batched", options).unwrap();
    for number in 0..1_000 {
        drop(producer.send(Record::new(number.to_string())).await.unwrap());
    }
    producer.flush().await.unwrap();
    let mut consumer = client.consumer("batched", 0, Default::default()).unwrap();
    let mut batches = 0;
    while consumer.next_batch().await.unwrap().is_some() {
        batches += 1;
    }
    assert!(batches <= 6, "the first few may go alone, the others go together: {batches}");
}

/// One for calls, and one for each processor up to four: two for a hundred streams at least.
#[tokio::test(flavor = "multi_thread")]
async fn the_producers_of_a_client_share_connections() {
    const PRODUCERS: usize = 100;
    let node = Node::start().await;
    let wire = Wire::to(node.addr()).await;
    let client = client(wire.addr());
    // A disk that is slow is no reason to dial again.
    let options =
        ProducerOptions { answer_timeout: Duration::from_secs(60), ..ProducerOptions::default() };
    let producers: Vec<_> =
        (0..PRODUCERS).map(|_| client.producer("shared", options.clone()).unwrap()).collect();
    let mut before = 0;
    for _ in 0..2 {
        let mut deliveries = Vec::new();
        for producer in &producers {
            deliveries.push(producer.send(Record::new("x")).await.unwrap());
        }
        for delivery in deliveries {
            delivery.await.unwrap();
        }
        let dialled = wire.accepted() - before;
        assert!(dialled <= 5, "{dialled} connections");
        before = wire.accepted();
        wire.cut();
    }
    assert_eq!(read_all(&client, "shared", 0).await.len(), 2 * PRODUCERS);
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_double_nothing() {
    let node = Node::start().await;
    let mut wire = Wire::to(node.addr()).await;
    let producer = client(wire.addr()).producer("t", small_batches()).unwrap();
    let mut deliveries = Vec::new();
    for number in 0..300 {
        if number % 100 == 50 {
            // The server appends what it gets, and nobody hears of it.
            wire.set_answers(Answers::Lose);
            deliveries.push(producer.send(Record::new(number.to_string())).await.unwrap());
            wire.loses().await;
            wire.cut();
            wire.set_answers(Answers::Pass);
            continue;
        }
        deliveries.push(producer.send(Record::new(number.to_string())).await.unwrap());
    }
    for (number, delivery) in deliveries.into_iter().enumerate() {
        assert_eq!(delivery.await.unwrap().offset, number as u64);
    }
    assert_numbered(&read_all(&node.client(), "t", 0).await, 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_idempotence_a_lost_answer_is_an_unknown_outcome() {
    let node = Node::start().await;
    let mut wire = Wire::to(node.addr()).await;
    let options = ProducerOptions { idempotent: false, partition: Some(0), ..small_batches() };
    let producer = client(wire.addr()).producer("t", options).unwrap();
    producer.send(Record::new("0")).await.unwrap().await.unwrap();
    wire.set_answers(Answers::Lose);
    let delivery = producer.send(Record::new("1")).await.unwrap();
    wire.loses().await;
    wire.cut();
    let error = delivery.await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
    assert!(matches!(producer.send(Record::new("2")).await, Err(Error::Abandoned { .. })));
    assert_eq!(producer.flush().await.unwrap_err().outcome(), Outcome::Unknown);
    wire.set_answers(Answers::Pass);
    producer.resume();
    producer.send(Record::new("2")).await.unwrap().await.unwrap();
    producer.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_neither_loses_nor_doubles() {
    let mut node = Node::start().await;
    let producer = node.client().producer("t", small_batches()).unwrap();
    let mut deliveries = Vec::new();
    for number in 0..900 {
        if number % 300 == 150 {
            node.stop().await;
            // What is sent now waits for the server.
            for early in number..number + 10 {
                deliveries.push(producer.send(Record::new(early.to_string())).await.unwrap());
            }
            node.start_again().await;
        }
        if number % 300 < 150 || number % 300 >= 160 {
            deliveries.push(producer.send(Record::new(number.to_string())).await.unwrap());
        }
    }
    producer.flush().await.unwrap();
    for (number, delivery) in deliveries.into_iter().enumerate() {
        assert_eq!(delivery.await.unwrap().offset, number as u64);
    }
    assert_numbered(&read_all(&node.client(), "t", 0).await, 900);
}

#[tokio::test]
async fn a_refused_delivery_stops_what_follows_until_resumed() {
    let node = Node::start().await;
    let client = node.client();
    // A topic of one partition: the other does not exist.
    client.create_topic("t", 1, Default::default()).await.unwrap();
    let options = ProducerOptions { partition: Some(7), ..ProducerOptions::default() };
    let producer = client.producer("t", options).unwrap();
    let error = producer.send(Record::new("a")).await.unwrap().await.unwrap_err();
    assert!(matches!(error, Error::TopicNotFound(_)), "{error}");
    assert_eq!(error.outcome(), Outcome::NotAppended);
    let refused = producer.send(Record::new("b")).await.unwrap_err();
    assert!(matches!(refused, Error::Abandoned { .. }), "{refused}");
    assert!(producer.close().await.is_err());
}

#[tokio::test]
async fn keys_choose_the_partition() {
    let node = Node::start().await;
    let client = node.client();
    client.create_topic("keyed", 4, Default::default()).await.unwrap();
    let producer = client.producer("keyed", ProducerOptions::default()).unwrap();
    for key in ["a", "b", "c", "d", "e", "f"] {
        let record = Record { key: Some(key.into()), ..Record::new(key) };
        let delivered = producer.send(record).await.unwrap().await.unwrap();
        assert_eq!(delivered.partition, partition_of_key(key.as_bytes(), 4), "{key}");
    }
    let mut count = 0;
    for partition in 0..4 {
        count += read_all(&client, "keyed", partition).await.len();
    }
    assert_eq!(count, 6);
}

#[tokio::test]
async fn a_dropped_producer_still_sends_what_it_accepted() {
    let node = Node::start().await;
    let producer = node.client().producer("t", ProducerOptions::default()).unwrap();
    let delivery = producer.send(Record::new("0")).await.unwrap();
    drop(producer);
    assert_eq!(delivery.await.unwrap().offset, 0);
}

#[tokio::test]
async fn records_of_a_mebibyte_and_of_the_largest_size_arrive() {
    use dislog_types::limits::RECORD_BYTES_MAX;
    let node = Node::start().await;
    let client = node.client();
    let producer = client.producer("large", ProducerOptions::default()).unwrap();
    for bytes in [1 << 20, RECORD_BYTES_MAX] {
        producer.send(Record::new(vec![9; bytes])).await.unwrap().await.unwrap();
    }
    let error = producer.send(Record::new(vec![9; RECORD_BYTES_MAX + 1])).await.unwrap_err();
    let limit = RECORD_BYTES_MAX;
    assert_eq!(error, Error::RecordTooLarge { bytes: limit + 1, bytes_max: limit });
    let seen = read_all(&client, "large", 0).await;
    assert_eq!(seen.iter().map(|r| r.value.len()).collect::<Vec<_>>(), [1 << 20, RECORD_BYTES_MAX]);
    assert!(seen.iter().all(|record| record.value.iter().all(|&byte| byte == 9)));
}

#[tokio::test]
async fn one_request_appends_only_where_it_is_expected() {
    let node = Node::start().await;
    let client = node.client();
    let records = || vec![Record::new("a"), Record::new("b")];
    let produced = client.produce("t", 0, records(), Some(0)).await.unwrap();
    assert_eq!((produced.offset, produced.count), (0, 2));
    let error = client.produce("t", 0, records(), Some(0)).await.unwrap_err();
    assert!(matches!(error, Error::UnexpectedOffset { actual: Some(2), .. }), "{error}");
    assert_eq!(read_all(&client, "t", 0).await.len(), 2);
}
