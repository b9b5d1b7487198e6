//! What a client does when nobody answers. No server is needed for this.

use std::net::SocketAddr;
use std::time::Duration;

use dislog_client::{
    Client, ClientOptions, ConsumerOptions, End, Error, Outcome, Producer, ProducerOptions, Record,
};
use futures_util::FutureExt;
use tokio::net::{TcpListener, TcpSocket};

use crate::node::client;
use crate::wire::{Answers, Wire};

/// An address that refuses connections.
fn nobody() -> SocketAddr {
    let place = TcpSocket::new_v4().unwrap();
    place.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = place.local_addr().unwrap();
    // Nobody else gets it: it stays bound, and never listens.
    std::mem::forget(place);
    addr
}

fn producer(addr: SocketAddr, buffer_bytes_max: usize, delivery_timeout: Duration) -> Producer {
    let options = ProducerOptions {
        partition: Some(0),
        buffer_bytes_max,
        delivery_timeout,
        ..ProducerOptions::default()
    };
    client(addr).producer("t", options).unwrap()
}

#[tokio::test]
async fn send_waits_once_the_buffer_is_full() {
    let producer = producer(nobody(), 100_000, Duration::from_secs(120));
    let mut accepted = 0;
    while let Some(sent) = producer.send(Record::new(vec![0; 1_000])).now_or_never() {
        drop(sent.unwrap());
        accepted += 1;
    }
    assert!((90..=100).contains(&accepted), "100 kB hold {accepted} records of 1 kB");
}

#[tokio::test]
async fn room_comes_back_when_deliveries_fail() {
    let producer = producer(nobody(), 2_000, Duration::from_millis(50));
    let first = producer.send(Record::new(vec![0; 1_500])).await.unwrap();
    // There is room for it only once the first one was given up; then it is refused.
    let second = producer.send(Record::new(vec![0; 1_500])).await;
    assert!(matches!(second, Err(Error::Abandoned { .. })), "{second:?}");
    assert!(first.await.is_err());
}

#[tokio::test]
async fn a_record_larger_than_the_buffer_is_refused_at_once() {
    let producer = producer(nobody(), 1_000, Duration::from_secs(120));
    let error = producer.send(Record::new(vec![0; 1_000])).await.unwrap_err();
    assert!(matches!(error, Error::RecordTooLarge { bytes: 1_000, .. }), "{error}");
}

#[tokio::test]
async fn what_never_left_was_not_appended() {
    let producer = producer(nobody(), 1 << 20, Duration::from_secs(2));
    let deliveries = [
        producer.send(Record::new("a")).await.unwrap(),
        producer.send(Record::new("b")).await.unwrap(),
    ];
    let [first, second] = futures_util::future::join_all(deliveries).await.try_into().unwrap();
    let first = first.unwrap_err();
    assert!(matches!(&first, Error::Timeout { last, .. } if last.contains("refused")), "{first}");
    assert_eq!(first.outcome(), Outcome::NotAppended);
    assert_eq!(second.unwrap_err().outcome(), Outcome::NotAppended);
}

#[tokio::test]
async fn what_left_and_was_not_answered_has_an_unknown_outcome() {
    let node = crate::node::Node::start().await;
    let wire = Wire::to(node.addr()).await;
    node.client().produce("t", 0, vec![Record::new("a")], None).await.unwrap();
    let producer = producer(wire.addr(), 1 << 20, Duration::from_secs(3));
    producer.send(Record::new("a")).await.unwrap().await.unwrap();
    wire.set_answers(Answers::Lose);
    let error = producer.send(Record::new("b")).await.unwrap().await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
    assert!(error.to_string().contains("UNKNOWN"), "{error}");
}

/// A runtime that ends takes the producer's task along, which must leave nobody waiting.
#[test]
fn a_producer_ends_with_its_runtime() {
    let runtime = || tokio::runtime::Runtime::new().unwrap();
    for idle in [false, true] {
        let first = runtime();
        let (producer, delivery) = first.block_on(async {
            let node = crate::node::Node::start().await;
            let addr = if idle { node.addr() } else { nobody() };
            let producer = producer(addr, 100_000, Duration::from_secs(120));
            let delivery = producer.send(Record::new("a")).await.unwrap();
            if idle {
                assert_eq!(producer.flush().await, Ok(()));
            }
            (producer, delivery)
        });
        drop(first);
        runtime().block_on(async {
            assert_eq!(delivery.await.is_ok(), idle);
            for _ in 0..3 {
                let refused = producer.send(Record::new(vec![0; 90_000])).await.unwrap_err();
                assert_eq!(refused, Error::Closed);
            }
            assert_eq!(producer.flush().await.is_ok(), idle);
            assert_eq!(producer.close().await.is_ok(), idle);
        });
    }
}

#[tokio::test]
async fn options_may_be_for_ever() {
    let node = crate::node::Node::start().await;
    let options = ProducerOptions {
        partition: Some(0),
        linger: Duration::MAX,
        delivery_timeout: Duration::MAX,
        answer_timeout: Duration::MAX,
        ..ProducerOptions::default()
    };
    let calls = ClientOptions { request_timeout: Duration::MAX, ..ClientOptions::default() };
    let client = Client::connect([node.addr().to_string()], calls).unwrap();
    let producer = client.producer("t", options).unwrap();
    for _ in 0..10 {
        drop(producer.send(Record::new("a")).await.unwrap());
    }
    producer.close().await.unwrap();
    let reading = ConsumerOptions { reconnect_timeout: Duration::MAX, ..following() };
    let wire = Wire::to(node.addr()).await;
    let mut consumer = crate::node::client(wire.addr()).consumer("t", 0, reading).unwrap();
    for _ in 0..10 {
        consumer.next().await.unwrap().unwrap();
    }
    wire.cut();
    client.produce("t", 0, vec![Record::new("b")], None).await.unwrap();
    assert_eq!(consumer.next().await.unwrap().unwrap().value, "b");
}

#[tokio::test]
async fn nothing_is_sent_to_a_server_that_does_not_say_who_leads() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let deaf = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            open.push(connection);
        }
    });
    let producer = producer(addr, 1 << 20, Duration::from_millis(300));
    let error = producer.send(Record::new("a")).await.unwrap().await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::NotAppended, "{error}");
    deaf.abort();
}

#[tokio::test]
async fn a_server_that_falls_silent_is_tried_anew_in_time_and_nothing_is_doubled() {
    let node = crate::node::Node::start().await;
    let wire = Wire::to(node.addr()).await;
    let options = ProducerOptions {
        partition: Some(0),
        answer_timeout: Duration::from_millis(100),
        ..ProducerOptions::default()
    };
    let producer = client(wire.addr()).producer("t", options).unwrap();
    producer.send(Record::new("0")).await.unwrap().await.unwrap();
    wire.set_answers(Answers::Lose);
    let delivery = producer.send(Record::new("1")).await.unwrap();
    // It took the record. The connection stays as it is, and nothing ever comes over it.
    let mut consumer = node.client().consumer("t", 0, following()).unwrap();
    for value in ["0", "1"] {
        assert_eq!(consumer.next().await.unwrap().unwrap().value, value);
    }
    wire.set_answers(Answers::Pass);
    assert_eq!(delivery.await.unwrap().offset, 1);
    producer.send(Record::new("2")).await.unwrap().await.unwrap();
    let all = crate::node::read_all(&node.client(), "t", 0).await;
    crate::node::assert_numbered(&all, 3);
}

fn following() -> ConsumerOptions {
    ConsumerOptions { end: End::Never, ..ConsumerOptions::default() }
}

#[tokio::test]
async fn calls_give_up_in_time() {
    let options =
        ClientOptions { request_timeout: Duration::from_secs(3), ..ClientOptions::default() };
    let client = Client::connect([nobody().to_string()], options).unwrap();
    let error = client.list_topics().await.unwrap_err();
    assert!(matches!(&error, Error::Timeout { last, .. } if last.contains("refused")), "{error}");
    let mut consumer = client.consumer("t", 0, Default::default()).unwrap();
    assert!(matches!(consumer.next().await, Err(Error::Timeout { .. })));
}

#[tokio::test]
async fn a_last_attempt_without_an_answer_does_not_hide_what_was_said_before() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        drop(listener.accept().await.unwrap());
        let mut kept = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            kept.push(connection);
        }
    });
    let options =
        ClientOptions { request_timeout: Duration::from_secs(3), ..ClientOptions::default() };
    let client = Client::connect([addr.to_string()], options).unwrap();
    let error = client.list_topics().await.unwrap_err();
    let Error::Timeout { last, .. } = &error else { panic!("{error}") };
    let before = last.strip_prefix("no answer; before that: ").expect(last);
    assert!(before.contains("connection"), "{before}");
}

#[tokio::test]
async fn another_server_is_tried() {
    let node = crate::node::Node::start().await;
    let servers = [nobody().to_string(), node.addr().to_string()];
    let client = Client::connect(servers, ClientOptions::default()).unwrap();
    assert!(client.list_topics().await.unwrap().is_empty());
    let producer = client.producer("t", ProducerOptions::default()).unwrap();
    assert_eq!(producer.send(Record::new("0")).await.unwrap().await.unwrap().offset, 0);
    let mut consumer = client.consumer("t", 0, Default::default()).unwrap();
    assert_eq!(consumer.next().await.unwrap().unwrap().value, "0");
}
