//! Starting, stopping, and what a stop does to those who are connected.

use std::time::{Duration, Instant};

use dislog_proto::{reason, v1};
use dislog_server::{Config, Insecure, SecurityError, Server, StartError};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tonic::Code;

use crate::http_client::{open, read_to_end, read_until};
use crate::node::{
    assert_fails, consume_from, produce_to, soon, start, start_in, start_with, values,
};

/// The promise is 2 s, but the disk may stand still for longer. Whoever waited for a client would
/// need 30.
pub(crate) const SHUTDOWN_MAX: Duration = Duration::from_secs(15);

#[tokio::test]
async fn a_stop_ends_open_streams_and_idle_connections_at_once() {
    // Whoever would have to be cut off would make it too slow.
    let node = start_with(|config| config.shutdown_grace_ms = 30_000).await;
    let mut log = node.log().await;
    soon(log.produce(produce_to("t", &["x"]))).await.unwrap();
    let mut tail = soon(log.consume_stream(consume_from("t", 1))).await.unwrap().into_inner();
    let (requests, received) = tokio::sync::mpsc::channel(1);
    let received = tokio_stream::wrappers::ReceiverStream::new(received);
    let mut answers = soon(log.produce_stream(received)).await.unwrap().into_inner();
    requests.send(produce_to("t", &["y"])).await.unwrap();
    assert_eq!(soon(answers.message()).await.unwrap().unwrap().offset, 1);
    assert_eq!(soon(tail.message()).await.unwrap().unwrap().records[0].offset, 1);

    let path = "GET /v1/topics/t/records?follow=true";
    let mut lines = open(node.addr(), path, &["accept: application/x-ndjson"]).await;
    read_until(&mut lines, "\"offset\":1").await;
    let mut events =
        open(node.addr(), "GET /v1/topics/t/records", &["accept: text/event-stream"]).await;
    read_until(&mut events, "id: 1\n").await;
    let mut waiting = open(node.addr(), "GET /v1/topics/t/records?offset=2&wait=5m", &[]).await;
    let mut silent = TcpStream::connect(node.addr()).await.unwrap();
    let mut idle = TcpStream::connect(node.addr()).await.unwrap();
    idle.write_all(b"GET /livez HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
    read_until(&mut idle, "ok\n").await;

    let started = Instant::now();
    soon(node.server.shutdown()).await;
    let elapsed = started.elapsed();
    assert!(elapsed < SHUTDOWN_MAX, "nothing was under way, but it took {elapsed:?}");
    assert_fails(soon(tail.message()).await, Code::Unavailable, reason::SHUTTING_DOWN);
    assert_fails(soon(answers.message()).await, Code::Unavailable, reason::SHUTTING_DOWN);
    read_until(&mut lines, "{\"error\":{\"type\":\"urn:dislog:SHUTTING_DOWN\"").await;
    read_until(&mut events, "event: error\ndata: {\"type\":\"urn:dislog:SHUTTING_DOWN\"").await;
    read_until(&mut waiting, "503 Service Unavailable").await;
    for stream in [&mut silent, &mut idle] {
        assert!(read_to_end(stream).await.is_empty());
    }
}

#[tokio::test]
async fn a_stop_waits_for_nobody_longer_than_the_grace() {
    let node = start_with(|config| config.shutdown_grace_ms = 200).await;
    let mut log = node.log().await;
    let value = "x".repeat(1 << 20);
    for _ in 0..16 {
        soon(log.produce(produce_to("t", &[&value]))).await.unwrap();
    }
    // A reader that does not read, and a request that is never finished.
    let path = "GET /v1/topics/t/records";
    let _slow = open(node.addr(), path, &["accept: application/x-ndjson"]).await;
    let mut unfinished = TcpStream::connect(node.addr()).await.unwrap();
    unfinished
        .write_all(b"POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 100\r\n\r\n{")
        .await
        .unwrap();
    let tail = v1::ConsumeRequest { max_bytes: 1 << 20, ..consume_from("t", 0) };
    let _unread = soon(log.consume_stream(tail)).await.unwrap();
    let started = Instant::now();
    soon(node.server.shutdown()).await;
    let elapsed = started.elapsed();
    assert!(elapsed < SHUTDOWN_MAX, "{elapsed:?}");
}

#[tokio::test]
async fn a_restart_loses_and_doubles_nothing() {
    let mut node = start().await;
    for round in 0..4_u64 {
        let mut log = node.log().await;
        for _ in 0..5 {
            let value = round.to_string();
            soon(log.produce(produce_to("t", &[&value]))).await.unwrap();
        }
        soon(node.server.shutdown()).await;
        node = start_in(node.dir, |_| {}).await;
        let all = v1::ConsumeRequest { max_records: 1_000, ..consume_from("t", 0) };
        let consumed = soon(node.log().await.consume(all)).await.unwrap().into_inner();
        let expected: Vec<String> =
            (0..=round).flat_map(|round| vec![round.to_string(); 5]).collect();
        assert_eq!(values(&consumed.records), expected);
    }
}

#[tokio::test]
async fn appends_under_way_are_acknowledged_before_a_stop() {
    let node = start().await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let mut log = node.log().await;
        tasks.spawn(async move {
            let mut acknowledged = Vec::new();
            while let Ok(produced) = log.produce(produce_to("t", &["x"])).await {
                acknowledged.push(produced.into_inner().offset);
            }
            acknowledged
        });
    }
    let mut watch = node.log().await;
    let wait = v1::ConsumeRequest { wait_ms: 20_000, ..consume_from("t", 50) };
    // The topic is created by the first producer; ask until it is there.
    while soon(watch.consume(wait.clone())).await.is_err() {}
    soon(node.server.shutdown()).await;
    let mut acknowledged: Vec<u64> = soon(tasks.join_all()).await.concat();
    acknowledged.sort_unstable();
    let node = start_in(node.dir, |_| {}).await;
    let last = *acknowledged.last().unwrap();
    acknowledged.dedup();
    assert!(acknowledged.len() > 50);
    soon(node.log().await.consume(consume_from("t", last))).await.unwrap();
}

#[tokio::test]
async fn an_address_in_use_is_named_and_leaves_the_data_alone() {
    let node = start().await;
    let dir = tempfile::tempdir().unwrap();
    let listen = node.addr().to_string();
    let data_dir = dir.path().join("data");
    let config = Config { data_dir: data_dir.clone(), listen: listen.clone(), ..Config::default() };
    let Err(error) = soon(Server::start(config)).await else { panic!("two nodes on one port") };
    assert!(matches!(&error, StartError::Listen { address, .. } if *address == listen));
    assert!(error.to_string().contains("--listen"), "{error}");
    assert!(!data_dir.exists());
    let config = Config { data_dir, listen: "no.such.host.invalid:1".into(), ..Config::default() };
    assert!(matches!(soon(Server::start(config)).await, Err(StartError::Listen { .. })));
}

#[tokio::test]
async fn two_nodes_do_not_share_a_data_directory() {
    let node = start().await;
    let data_dir = node.dir.path().join("data");
    let (listen, insecure) = ("127.0.0.1:0".into(), Insecure::Loopback);
    let config = Config { data_dir, listen, insecure, ..Config::default() };
    assert!(matches!(soon(Server::start(config)).await, Err(StartError::Open(_))));
}

#[tokio::test]
async fn a_node_is_protected_or_told_to_do_without() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    let there = dir.path().join("certs");
    let refused = async |listen: &str, insecure, tls_dir| {
        let (data_dir, listen) = (data_dir.clone(), listen.to_owned());
        let config = Config { data_dir, listen, insecure, tls_dir, ..Config::default() };
        match soon(Server::start(config)).await {
            Err(StartError::Security(error)) => error,
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("it started"),
        }
    };
    let error = refused("127.0.0.1:0", Insecure::No, None).await;
    assert!(matches!(error, SecurityError::Neither), "{error}");
    let error = refused("0.0.0.0:0", Insecure::Loopback, None).await;
    assert!(matches!(error, SecurityError::Exposed(_)), "{error}");
    let error = refused("127.0.0.1:0", Insecure::Loopback, Some(there.clone())).await;
    assert!(matches!(error, SecurityError::Both), "{error}");
    let error = refused("127.0.0.1:0", Insecure::No, Some(there)).await;
    assert!(matches!(error, SecurityError::Certificates { .. }), "{error}");
    assert!(!data_dir.exists());
}
