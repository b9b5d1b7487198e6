//! Clients that mean no good, or do not know better.

use std::time::Duration;

use bytes::Bytes;
use dislog_proto::{reason, v1};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;
use tonic::codegen::http::uri::PathAndQuery;
use tonic_prost::ProstCodec;

use crate::http_client::{get, open, post, read_answer, read_to_end, read_until, send};
use crate::node::{
    Node, arrival, assert_fails, consume_from, produce_surely, produce_to, record, soon, start,
    start_with, values,
};

/// The node still does its work.
pub(crate) async fn assert_serves(node: &Node) {
    let offset = produce_surely(node, &produce_to("alive", &["x"])).await;
    let consumed = soon(node.log().await.consume(consume_from("alive", offset))).await.unwrap();
    assert_eq!(values(&consumed.into_inner().records), ["x"]);
    assert_eq!(get(node, "/readyz").await.status, 200);
}

/// Numbers without a pattern, the same in every run (Steele, Lea and Flood, "SplitMix", 2014).
pub(crate) fn random_bytes(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)).to_le_bytes()[0]
    };
    (0..count).map(|_| next()).collect()
}

#[tokio::test]
async fn random_bytes_on_the_port() {
    let node = start().await;
    for seed in 0..50 {
        let mut stream = TcpStream::connect(node.addr()).await.unwrap();
        // The node may close before it has taken everything.
        let _refused = stream.write_all(&random_bytes(seed, 4_096)).await;
        let _refused = stream.shutdown().await;
        read_to_end(&mut stream).await;
    }
    for seed in 0..50 {
        let mut stream = TcpStream::connect(node.addr()).await.unwrap();
        let bytes =
            [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), random_bytes(seed, 4_096)].concat();
        let _refused = stream.write_all(&bytes).await;
        let _refused = stream.shutdown().await;
        read_to_end(&mut stream).await;
    }
    // TLS to a port without it.
    let mut stream = TcpStream::connect(node.addr()).await.unwrap();
    stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await.unwrap();
    assert!(read_to_end(&mut stream).await.starts_with(b"HTTP/1.1 400"));
    assert_serves(&node).await;
}

/// Sends bytes as one gRPC message, whatever they are.
async fn call(node: &Node, method: &'static str, message: Vec<u8>) -> Result<Bytes, tonic::Status> {
    let mut client = tonic::client::Grpc::new(node.channel().await);
    soon(client.ready()).await.unwrap();
    let path = PathAndQuery::from_static(method);
    let request = tonic::Request::new(Raw(message.into()));
    soon(client.unary(request, path, ProstCodec::<Raw, Raw>::default()))
        .await
        .map(|raw| raw.into_inner().0)
}

/// A message that encodes as the bytes it is.
#[derive(Clone, Debug, Default)]
struct Raw(Bytes);

impl prost::Message for Raw {
    fn encode_raw(&self, buffer: &mut impl prost::bytes::BufMut) {
        buffer.put(self.0.clone());
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: prost::encoding::WireType,
        buffer: &mut impl prost::bytes::Buf,
        context: prost::encoding::DecodeContext,
    ) -> Result<(), prost::DecodeError> {
        prost::encoding::skip_field(wire_type, tag, buffer, context)
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

#[tokio::test]
async fn messages_that_are_none() {
    let node = start().await;
    for seed in 0..200 {
        for method in ["/log.v1.Log/Produce", "/log.v1.Log/Consume", "/log.v1.Admin/CreateTopic"] {
            // Some of these happen to be messages.
            if let Err(status) = call(&node, method, random_bytes(seed, 40)).await {
                assert_ne!(status.code(), Code::Unknown, "{status:?}");
            }
        }
    }
    for method in ["/log.v1.Log/Nothing", "/log.v2.Log/Produce", "/"] {
        assert_eq!(call(&node, method, Vec::new()).await.unwrap_err().code(), Code::Unimplemented);
    }
    assert_serves(&node).await;
}

#[tokio::test]
async fn unknown_fields_are_ignored_and_wrong_utf8_is_refused() {
    let node = start().await;
    let mut produce = prost::Message::encode_to_vec(&produce_to("t", &["x"]));
    produce.extend_from_slice(&[0xf8, 0x3f, 1]); // field 1023, a varint
    call(&node, "/log.v1.Log/Produce", produce).await.unwrap();
    let consumed = soon(node.log().await.consume(consume_from("t", 0))).await.unwrap();
    assert_eq!(values(&consumed.into_inner().records), ["x"]);
    let topic_of_one_bad_byte = vec![0x52, 1, 0xff]; // field 10
    let refused = call(&node, "/log.v1.Log/Produce", topic_of_one_bad_byte).await.unwrap_err();
    assert_eq!(refused.code(), Code::Internal, "{refused:?}");
    assert_serves(&node).await;
}

#[tokio::test]
async fn absurd_numbers() {
    let node = start().await;
    soon(node.log().await.produce(produce_to("t", &["a", "b"]))).await.unwrap();
    let mut log = node.log().await;
    let absurd = v1::ConsumeRequest {
        max_records: u32::MAX,
        max_bytes: u32::MAX,
        start: Some(v1::consume_request::Start::Last(u64::MAX)),
        ..consume_from("t", u64::MAX)
    };
    assert_eq!(soon(log.consume(absurd)).await.unwrap().into_inner().records.len(), 2);
    let absurd = v1::ConsumeRequest { partition: u32::MAX, ..consume_from("t", 0) };
    assert_fails(soon(log.consume(absurd)).await, Code::NotFound, reason::TOPIC_NOT_FOUND);
    let timestamps = [i64::MIN, -1, i64::MAX];
    let records = timestamps.map(|created_ms| v1::Record { created_ms, ..v1::Record::default() });
    let request = v1::ProduceRequest { records: records.to_vec(), ..produce_to("t", &[]) };
    let offset = soon(log.produce(request)).await.unwrap().into_inner().offset;
    for (index, created_ms) in timestamps.into_iter().enumerate() {
        let consumed = soon(log.consume(consume_from("t", offset + index as u64))).await.unwrap();
        assert_eq!(consumed.into_inner().records[0].created_ms, created_ms);
    }
}

#[tokio::test]
async fn a_body_of_ten_gigabytes_is_refused_unread() {
    let node = start().await;
    let path = "POST /v1/topics/t/records";
    let mut stream = open(node.addr(), path, &["content-length: 10737418240"]).await;
    soon(read_answer(&mut stream)).await.problem(413, "TOO_LARGE");
    let mut stream = open(node.addr(), "POST /", &["content-length: 10737418240"]).await;
    soon(read_answer(&mut stream)).await.problem(413, "TOO_LARGE");
    // Without a length it is refused as soon as it is too large.
    let mut stream = open(node.addr(), path, &["transfer-encoding: chunked"]).await;
    let chunk = [&b"100000\r\n"[..], &vec![0; 1 << 20], b"\r\n"].concat();
    let mut sent = 0;
    while stream.write_all(&chunk).await.is_ok() {
        sent += 1;
        assert!(sent < 100, "the server takes a body without end");
    }
    // One line without an end is no record.
    let headers = ["content-type: application/x-ndjson", "transfer-encoding: chunked"];
    let mut stream = open(node.addr(), path, &headers).await;
    let mut sent = 0;
    while stream.write_all(&chunk).await.is_ok() {
        sent += 1;
        assert!(sent < 100, "the server takes a line without end");
    }
    assert_serves(&node).await;
}

#[tokio::test]
async fn large_headers_and_paths_are_refused() {
    let node = start().await;
    let long = format!("x: {}", "y".repeat(100_000));
    let mut stream = open(node.addr(), "GET /livez", &[&long]).await;
    let answer = read_to_end(&mut stream).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{answer:?}");
    let path = format!("GET /v1/topics/{}", "t".repeat(5_000));
    send(&node, &path, &[], b"").await.problem(400, "INVALID_REQUEST");
    assert_serves(&node).await;
}

#[tokio::test]
async fn slow_heads_and_bodies_are_cut_off() {
    let node = start_with(|config| {
        config.header_timeout_ms = 1_000;
        config.request_timeout_ms = 200;
    })
    .await;
    for start in ["", "P", "PRI * HT", "GET / HTTP/1.1\r\nhost: te"] {
        let mut stream = TcpStream::connect(node.addr()).await.unwrap();
        stream.write_all(start.as_bytes()).await.unwrap();
        let answer = read_to_end(&mut stream).await;
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 408"), "{start:?}: {answer:?}");
    }
    let mut stream = open(node.addr(), "POST /", &["content-length: 100"]).await;
    soon(read_answer(&mut stream)).await.problem(408, "INVALID_REQUEST");
    // A connection that was of use and is idle now does not keep its place either.
    let mut stream = TcpStream::connect(node.addr()).await.unwrap();
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
    assert!(read_to_end(&mut stream).await.ends_with(b"ok\n"));
    assert_serves(&node).await;
}

#[tokio::test]
async fn an_unfinished_grpc_message_is_given_up() {
    let node = start_with(|config| config.request_timeout_ms = 200).await;
    let answer = unfinished(&node, 1_000).await;
    assert_eq!(answer.unwrap_err().code(), Code::DeadlineExceeded);
    assert_serves(&node).await;
}

#[tokio::test]
async fn unfinished_messages_have_large_ones_wait_and_small_ones_not() {
    let node = start_with(|config| {
        config.request_timeout_ms = 2_000;
        config.append_bytes_in_flight_max = 16 << 20;
    })
    .await;
    // Both say that 8 MiB are coming, which is all there is room for, and never finish.
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..2 {
        calls.spawn(unfinished_on(node.channel().await, 8 << 20));
    }
    while calls.len() == 2 {
        assert_serves(&node).await;
        if let Some(given_up) = calls.try_join_next() {
            assert_eq!(given_up.unwrap().unwrap_err().code(), Code::DeadlineExceeded);
        }
    }
    let value = "x".repeat(4 << 20);
    produce_surely(&node, &produce_to("t", &[&value])).await;
}

async fn unfinished(node: &Node, bytes: u32) -> Result<(), tonic::Status> {
    unfinished_on(node.channel().await, bytes).await
}

/// Announces a message of so many bytes, sends the first, and no more.
async fn unfinished_on(
    mut channel: tonic::transport::Channel,
    bytes: u32,
) -> Result<(), tonic::Status> {
    use tokio_stream::StreamExt as _;
    use tower::{Service as _, ServiceExt as _};

    let mut data = vec![0];
    data.extend_from_slice(&bytes.to_be_bytes());
    data.push(7);
    let first =
        tokio_stream::once(Ok::<_, tonic::Status>(http_body::Frame::data(Bytes::from(data))));
    let body = first.chain(tokio_stream::pending());
    let request = tonic::codegen::http::Request::builder()
        .method("POST")
        .uri("http://node/log.v1.Log/Produce")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(tonic::body::Body::new(http_body_util::StreamBody::new(body)))
        .unwrap();
    let service = soon(channel.ready()).await.unwrap();
    let response = soon(service.call(request)).await.unwrap();
    match tonic::Status::from_header_map(response.headers()) {
        Some(status) if status.code() != Code::Ok => Err(status),
        _ => Ok(()),
    }
}

#[tokio::test]
async fn half_closed_streams() {
    let node = start().await;
    let mut log = node.log().await;
    let nothing = tokio_stream::empty::<v1::ProduceRequest>();
    let mut answers = soon(log.produce_stream(nothing)).await.unwrap().into_inner();
    assert_eq!(soon(answers.message()).await.unwrap(), None);
    // HTTP/1.1: the client sends its request, says that it is done sending, and still wants the
    // answer.
    let mut stream = open(node.addr(), "GET /livez", &[]).await;
    stream.shutdown().await.unwrap();
    let answer = read_to_end(&mut stream).await;
    assert!(answer.is_empty() || answer.ends_with(b"ok\n"));
    // A body that ends early.
    let mut stream = open(node.addr(), "POST /v1/topics/t/records", &["content-length: 100"]).await;
    stream.write_all(b"half").await.unwrap();
    stream.shutdown().await.unwrap();
    read_to_end(&mut stream).await;
    let missing = soon(log.consume(consume_from("t", 0))).await;
    assert_fails(missing, Code::NotFound, reason::TOPIC_NOT_FOUND);
}

#[tokio::test]
async fn clients_that_go_away_do_not_take_their_appends_with_them() {
    let node = start().await;
    for _ in 0..20 {
        let mut stream =
            open(node.addr(), "POST /v1/topics/t/records", &["content-length: 1"]).await;
        stream.write_all(b"x").await.unwrap();
        drop(stream);
    }
    assert_serves(&node).await;
    // All or nothing for each, and the log goes on densely.
    let produced = soon(node.log().await.produce(produce_to("t", &["last"]))).await.unwrap();
    let all = v1::ConsumeRequest { max_records: 100, ..consume_from("t", 0) };
    let consumed = soon(node.log().await.consume(all)).await.unwrap().into_inner();
    assert!(consumed.records.len() as u64 > produced.into_inner().offset);
}

#[tokio::test]
async fn slow_readers_hold_little_and_disturb_nobody() {
    let node = start().await;
    let mut log = node.log().await;
    let value = "x".repeat(1 << 20);
    for _ in 0..24 {
        soon(log.produce(produce_to("t", &[&value]))).await.unwrap();
    }
    let before = resident_bytes();
    let mut readers = Vec::new();
    for _ in 0..20 {
        let path = "GET /v1/topics/t/records?follow=true";
        readers.push(open(node.addr(), path, &["accept: application/x-ndjson"]).await);
    }
    for reader in &mut readers {
        read_until(reader, "200 OK").await;
    }
    assert_serves(&node).await;
    // 20 readers of 24 MiB each want 480 MiB; they may have a few pages each.
    let grown = resident_bytes().saturating_sub(before) >> 20;
    assert!(grown < 250, "{grown} MiB more for 20 readers that do not read");
}

pub(crate) fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// A connection that was answered and stays open.
async fn served(node: &Node) -> TcpStream {
    let mut stream = TcpStream::connect(node.addr()).await.unwrap();
    stream.write_all(b"GET /v1/cluster HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
    read_until(&mut stream, "200 OK").await;
    stream
}

#[tokio::test]
async fn connections_beyond_the_share_of_a_client_are_told_so() {
    let node = start_with(|config| config.connections_per_client_max = 2).await;
    let first = served(&node).await;
    let _second = served(&node).await;
    let why = get(&node, "/v1/cluster").await.problem(429, "OVERLOADED");
    assert!(why.contains("127.0.0.1 has 2 connections"), "{why}");
    let produced = soon(node.log().await.produce(produce_to("t", &["x"]))).await;
    let metadata = assert_fails(produced, Code::ResourceExhausted, reason::OVERLOADED);
    assert_eq!(metadata[reason::RETRY], "true");
    // Over HTTP/2, too, the connection ends once that was said.
    let mut http2 = TcpStream::connect(node.addr()).await.unwrap();
    let request = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\
        \0\0\x06\x01\x05\0\0\0\x01\x82\x84\x86\x41\x01x";
    http2.write_all(request).await.unwrap();
    let answer = read_to_end(&mut http2).await;
    assert!(String::from_utf8_lossy(&answer).contains("has 2 connections"), "{answer:?}");
    // Probes are answered all the same.
    assert_eq!(get(&node, "/livez").await.status, 200);
    drop(first);
    soon(async { while get(&node, "/v1/cluster").await.status != 200 {} }).await;
}

#[tokio::test]
async fn clients_beyond_all_places_are_told_so() {
    let node = start_with(|config| config.connections_max = 2).await;
    let _taken = [served(&node).await, served(&node).await];
    let why = get(&node, "/v1/cluster").await.problem(503, "OVERLOADED");
    assert!(why.contains("another node"), "{why}");
    assert_eq!(get(&node, "/readyz").await.status, 200);
}

#[tokio::test]
async fn streams_beyond_the_share_of_a_client_are_told_so() {
    let node = start_with(|config| config.requests_per_client_max = 2).await;
    let mut log = node.log().await;
    soon(log.produce(produce_to("t", &["x"]))).await.unwrap();
    let from_start = consume_from("t", 0);
    let first = soon(log.consume_stream(from_start.clone())).await.unwrap();
    let follow = "GET /v1/topics/t/records?follow=true";
    let mut second = open(node.addr(), follow, &["accept: application/x-ndjson"]).await;
    read_until(&mut second, "200 OK").await;
    let refused = soon(log.consume_stream(from_start)).await;
    assert_fails(refused.map(drop), Code::ResourceExhausted, reason::OVERLOADED);
    let why = get(&node, "/v1/topics/t/records").await.problem(429, "OVERLOADED");
    assert!(why.contains("127.0.0.1 has 2 requests"), "{why}");
    drop(first);
    soon(async { while get(&node, "/v1/topics/t/records").await.status != 200 {} }).await;
}

#[tokio::test]
async fn connections_that_ask_for_nothing_make_way() {
    let node = start_with(|config| config.guests_max = 2).await;
    let mut oldest = TcpStream::connect(node.addr()).await.unwrap();
    let mut kept = TcpStream::connect(node.addr()).await.unwrap();
    let client = served(&node).await;
    assert!(read_to_end(&mut oldest).await.is_empty());
    // The one that is served is no guest any more, so there was room for this.
    let _another = TcpStream::connect(node.addr()).await.unwrap();
    let waited = tokio::time::timeout(Duration::from_millis(200), kept.readable()).await;
    assert!(waited.is_err(), "it was ended too");
    drop(client);
    kept.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    assert!(read_to_end(&mut kept).await.ends_with(b"ok\n"));
}

#[tokio::test]
async fn a_line_that_is_not_finished_is_given_up() {
    let node = start_with(|config| config.request_timeout_ms = 300).await;
    let kind = "content-type: application/x-ndjson";
    let headers = [kind, "transfer-encoding: chunked"];
    let line = "POST /v1/topics/t/records";
    // Between lines a client may take its time.
    let mut patient = open(node.addr(), line, &headers).await;
    patient.write_all(b"10\r\n{\"value\":\"one\"}\n\r\n").await.unwrap();
    let mut slow = open(node.addr(), line, &headers).await;
    slow.write_all(b"10\r\n{\"value\":\"one\"}\n\r\n").await.unwrap();
    arrival(&node, "t", 1).await;
    slow.write_all(b"5\r\n{\"val\r\n").await.unwrap();
    let answer = soon(read_answer(&mut slow)).await;
    answer.problem(408, "INVALID_REQUEST");
    assert_eq!(answer.json()["appended"], "1", "{answer:?}");
    patient.write_all(b"0\r\n\r\n").await.unwrap();
    assert_eq!(soon(read_answer(&mut patient)).await.status, 201);
}

#[tokio::test]
async fn answers_that_are_not_taken_keep_their_client_from_more() {
    const ASKED: usize = 24;
    const HELD_MAX: usize = 4;
    let node = start_with(|config| config.request_timeout_ms = 1_000).await;
    // 8 MiB in JSON, which is more than the system takes of what nobody reads.
    let records = vec![record(vec![0xff; 6 << 20])];
    let large = v1::ProduceRequest { records, ..produce_to("t", &[]) };
    produce_surely(&node, &large).await;
    let mut asked = Vec::new();
    for _ in 0..ASKED {
        asked.push(open(node.addr(), "GET /v1/topics/t/records/0", &[]).await);
    }
    let mut given = 0;
    for stream in &mut asked {
        let mut status = *b"HTTP/1.1 ...";
        soon(stream.read_exact(&mut status)).await.unwrap();
        match &status {
            b"HTTP/1.1 200" => given += 1,
            status => assert_eq!(status, b"HTTP/1.1 503"),
        }
    }
    assert!((1..=HELD_MAX).contains(&given), "{given}");
    drop(asked);
    assert_serves(&node).await;
}

#[tokio::test]
async fn json_that_nests_deeply_is_refused() {
    let node = start().await;
    let deep = format!("{{\"json\":{}}}", "[".repeat(100_000));
    post(&node, "/v1/topics/t/records", "application/json", &deep)
        .await
        .problem(400, "INVALID_REQUEST");
    assert_serves(&node).await;
}
