//! `Produce`.

use bytes::Bytes;
use dislog_proto::{reason, v1};
use dislog_types::batch::ProducerStamp;
use dislog_types::limits::{BATCH_BYTES_MAX, RECORD_BYTES_MAX};
use dislog_types::{BatchBuilder, Compression, Record};
use tonic::Code;

use crate::node::{
    assert_fails, consume_from, produce_to, record, soon, start, start_in, start_with, values,
};

#[tokio::test]
async fn the_first_record_gets_offset_0_of_the_default_topic() {
    let node = start().await;
    let mut log = node.log().await;
    let produced = soon(log.produce(produce_to("", &["hi"]))).await.unwrap().into_inner();
    assert_eq!((produced.offset, produced.count, produced.duplicate), (0, 1, false));
    assert!(produced.timestamp_ms > 1_600_000_000_000);
    let consumed = soon(log.consume(consume_from("default", 0))).await.unwrap().into_inner();
    let record = &consumed.records[0];
    assert_eq!((&record.value[..], record.offset), (&b"hi"[..], 0));
    assert_eq!(record.timestamp_ms, produced.timestamp_ms);
    assert!(record.created_ms > 1_600_000_000_000 && record.term > 0);
    assert_eq!((consumed.start_offset, consumed.committed_offset, consumed.next_offset), (0, 1, 1));
}

#[tokio::test]
async fn everything_of_a_record_comes_back() {
    let node = start().await;
    let mut log = node.log().await;
    let header =
        |key: &str, value: &'static [u8]| v1::Header { key: key.into(), value: value.into() };
    let sent = v1::Record {
        value: Bytes::from_static(&[0, 255, 10]),
        key: Some(Bytes::new()),
        headers: vec![header("a", b"1"), header("a", b""), header("", b"\xff")],
        r#type: 7,
        created_ms: 12,
        offset: 99,
        term: 99,
        timestamp_ms: 99,
    };
    let request =
        v1::ProduceRequest { records: vec![sent.clone()], ..v1::ProduceRequest::default() };
    let produced = soon(log.produce(request)).await.unwrap().into_inner();
    let consumed = soon(log.consume(consume_from("", 0))).await.unwrap().into_inner();
    let seen = consumed.records[0].clone();
    let timestamp_ms = produced.timestamp_ms;
    assert_eq!(seen, v1::Record { offset: 0, term: seen.term, timestamp_ms, ..sent });
}

#[tokio::test]
async fn empty_records_are_records_and_an_empty_request_is_refused() {
    let node = start().await;
    let mut log = node.log().await;
    let records = vec![v1::Record::default(); 90];
    let request = v1::ProduceRequest { records, ..v1::ProduceRequest::default() };
    let produced = soon(log.produce(request)).await.unwrap().into_inner();
    assert_eq!((produced.offset, produced.count), (0, 90));
    let refused = soon(log.produce(v1::ProduceRequest::default())).await;
    assert_fails(refused, Code::InvalidArgument, reason::INVALID_REQUEST);
    let consumed = soon(log.consume(consume_from("", 89))).await.unwrap().into_inner();
    assert!(consumed.records[0].value.is_empty());
}

#[tokio::test]
async fn limits_are_told_apart_and_named() {
    let node = start().await;
    let mut log = node.log().await;
    let mut produce = async |records: Vec<v1::Record>| {
        let request = v1::ProduceRequest { records, ..v1::ProduceRequest::default() };
        soon(log.produce(request)).await
    };
    let largest = vec![0; RECORD_BYTES_MAX];
    assert_eq!(produce(vec![record(largest.clone())]).await.unwrap().into_inner().offset, 0);
    let too_large = produce(vec![record(vec![0; RECORD_BYTES_MAX + 1])]).await;
    assert_fails(too_large, Code::ResourceExhausted, reason::TOO_LARGE);
    let headers = vec![v1::Header::default(); 1_001];
    let too_many = produce(vec![v1::Record { headers, ..v1::Record::default() }]).await;
    assert_fails(too_many, Code::ResourceExhausted, reason::TOO_LARGE);
    // Each fits, together they do not; and the message as a whole is still one that is decoded.
    let half = vec![record(vec![0; BATCH_BYTES_MAX / 2]); 2];
    assert_fails(produce(half).await, Code::ResourceExhausted, reason::TOO_LARGE);
    let no_message = produce(vec![record(largest); 2]).await;
    assert_fails(no_message, Code::ResourceExhausted, reason::TOO_LARGE);
    let header = v1::Header { key: "dislog.type".into(), value: Bytes::new() };
    let reserved =
        produce(vec![v1::Record { headers: vec![header], ..v1::Record::default() }]).await;
    assert_fails(reserved, Code::InvalidArgument, reason::INVALID_REQUEST);
}

#[tokio::test]
async fn topics_are_created_on_first_use_or_not_at_all() {
    let node = start().await;
    let mut log = node.log().await;
    assert_eq!(soon(log.produce(produce_to("a.b", &["x"]))).await.unwrap().into_inner().offset, 0);
    for (topic, partition, code, reason) in [
        ("a/b", 0, Code::InvalidArgument, reason::INVALID_REQUEST),
        ("..", 0, Code::InvalidArgument, reason::INVALID_REQUEST),
        ("__metadata", 0, Code::InvalidArgument, reason::INVALID_REQUEST),
        ("a.b", 1, Code::NotFound, reason::TOPIC_NOT_FOUND),
        ("new", 7, Code::NotFound, reason::TOPIC_NOT_FOUND),
    ] {
        let request = v1::ProduceRequest { partition, ..produce_to(topic, &["x"]) };
        assert_fails(soon(log.produce(request)).await, code, reason);
    }
    let strict = start_with(|config| config.auto_create_topics = false).await;
    let refused = soon(strict.log().await.produce(produce_to("a", &["x"]))).await;
    assert_fails(refused, Code::NotFound, reason::TOPIC_NOT_FOUND);
}

#[tokio::test]
async fn many_first_producers_of_a_topic_all_succeed() {
    let node = start().await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let mut log = node.log().await;
        tasks.spawn(async move { log.produce(produce_to("race", &["x"])).await });
    }
    let mut offsets: Vec<u64> = soon(tasks.join_all())
        .await
        .into_iter()
        .map(|produced| produced.unwrap().into_inner().offset)
        .collect();
    offsets.sort_unstable();
    assert_eq!(offsets, (0..16).collect::<Vec<u64>>());
}

#[tokio::test]
async fn a_retry_gets_its_first_answer_also_after_a_restart() {
    let node = start().await;
    let stamped = |sequence, producer_epoch, value| v1::ProduceRequest {
        idempotence: Some(v1::Idempotence { producer_id: 7, producer_epoch, sequence }),
        ..produce_to("t", &[value])
    };
    let mut log = node.log().await;
    let first = soon(log.produce(stamped(0, 0, "a"))).await.unwrap().into_inner();
    soon(log.produce(stamped(1, 0, "b"))).await.unwrap();
    let retried = soon(log.produce(stamped(0, 0, "a"))).await.unwrap().into_inner();
    assert_eq!(retried, v1::ProduceResponse { duplicate: true, ..first });
    let gap = soon(log.produce(stamped(3, 0, "d"))).await;
    assert_fails(gap, Code::FailedPrecondition, reason::SEQUENCE_GAP);

    soon(node.server.shutdown()).await;
    let node = start_in(node.dir, |_| {}).await;
    let mut log = node.log().await;
    let retried = soon(log.produce(stamped(1, 0, "b"))).await.unwrap().into_inner();
    assert_eq!((retried.offset, retried.duplicate), (1, true));
    soon(log.produce(stamped(0, 1, "c"))).await.unwrap();
    let fenced = soon(log.produce(stamped(2, 0, "c"))).await;
    assert_fails(fenced, Code::FailedPrecondition, reason::PRODUCER_FENCED);
    let unknown = v1::Idempotence { producer_id: 8, producer_epoch: 0, sequence: 5 };
    let unknown = v1::ProduceRequest { idempotence: Some(unknown), ..produce_to("t", &["x"]) };
    assert_fails(
        soon(log.produce(unknown)).await,
        Code::FailedPrecondition,
        reason::PRODUCER_UNKNOWN,
    );
}

#[tokio::test]
async fn stamps_that_cannot_be_are_refused() {
    let node = start().await;
    let mut log = node.log().await;
    for (producer_id, producer_epoch, sequence) in [
        (0, 0, 0),
        (-1, 0, 0),
        (1, -1, 0),
        (1, 32_768, 0),
        (1, 0, -1),
        (i64::MIN, i32::MIN, i32::MIN),
    ] {
        let idempotence = Some(v1::Idempotence { producer_id, producer_epoch, sequence });
        let request = v1::ProduceRequest { idempotence, ..produce_to("", &["x"]) };
        assert_fails(
            soon(log.produce(request)).await,
            Code::InvalidArgument,
            reason::INVALID_REQUEST,
        );
    }
}

#[tokio::test]
async fn an_expected_offset_makes_an_append_conditional() {
    let node = start().await;
    let mut log = node.log().await;
    let at =
        |offset| v1::ProduceRequest { expected_offset: Some(offset), ..produce_to("", &["x"]) };
    soon(log.produce(at(0))).await.unwrap();
    let facts = assert_fails(
        soon(log.produce(at(0))).await,
        Code::FailedPrecondition,
        reason::UNEXPECTED_OFFSET,
    );
    assert_eq!((facts["latest"].as_str(), facts["retry"].as_str()), ("1", "false"));
    assert_fails(
        soon(log.produce(at(u64::MAX))).await,
        Code::FailedPrecondition,
        reason::UNEXPECTED_OFFSET,
    );
    assert_eq!(soon(log.produce(at(1))).await.unwrap().into_inner().offset, 1);
}

fn batch(values: &[&str], compression: Compression, producer: Option<ProducerStamp>) -> Bytes {
    let mut builder = BatchBuilder::new();
    for value in values {
        assert!(builder.push(&Record::new(value.to_string())));
    }
    builder.finish(compression, producer).freeze()
}

fn produce_batch(batch: Bytes) -> v1::ProduceRequest {
    v1::ProduceRequest { batch, ..v1::ProduceRequest::default() }
}

#[tokio::test]
async fn batches_are_taken_as_they_are() {
    let node = start().await;
    let mut log = node.log().await;
    let long = "long ".repeat(100_000);
    for (offset, compression) in
        [(0, Compression::None), (2, Compression::Lz4), (4, Compression::Zstd)]
    {
        let sent = batch(&[&long, "b"], compression, None);
        let produced = soon(log.produce(produce_batch(sent.clone()))).await.unwrap().into_inner();
        assert_eq!((produced.offset, produced.count), (offset, 2));
        let raw = v1::ConsumeRequest { raw: true, max_bytes: 1, ..consume_from("", offset + 1) };
        let consumed = soon(log.consume(raw)).await.unwrap().into_inner();
        assert_eq!(consumed.batches[0].batch[16..], sent[16..], "all but the leader's stamp");
        assert_eq!(consumed.next_offset, offset + 2);
        let consumed = soon(log.consume(consume_from("", offset + 1))).await.unwrap().into_inner();
        assert_eq!(values(&consumed.records), ["b"]);
    }
    let stamp = ProducerStamp { id: 3, epoch: 0, sequence: 0 };
    let stamped = batch(&["x"], Compression::None, Some(stamp));
    assert!(
        !soon(log.produce(produce_batch(stamped.clone()))).await.unwrap().into_inner().duplicate
    );
    assert!(soon(log.produce(produce_batch(stamped))).await.unwrap().into_inner().duplicate);
}

#[tokio::test]
async fn nothing_unreadable_is_ever_stored() {
    let node = start().await;
    let mut log = node.log().await;
    let good = batch(&["a", "b"], Compression::Zstd, None);
    for bit in 16 * 8..good.len() * 8 {
        let mut bad = good.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        let refused = soon(log.produce(produce_batch(bad.into()))).await;
        assert_fails(refused, Code::InvalidArgument, reason::INVALID_REQUEST);
    }
    // A checksum of its own does not make nonsense readable.
    for position in 61..good.len() {
        let mut bad = good.to_vec();
        bad[position] ^= 0x55;
        let crc = dislog_types::checksum::crc32c(&bad[21..]);
        bad[17..21].copy_from_slice(&crc.to_be_bytes());
        if let Err(status) = soon(log.produce(produce_batch(bad.into()))).await {
            assert_eq!(status.code(), Code::InvalidArgument, "byte {position}: {status:?}");
        }
    }
    for end in 0..good.len() {
        let cut = v1::ProduceRequest { topic: "cut".into(), ..produce_batch(good.slice(..end)) };
        assert_eq!(soon(log.produce(cut)).await.unwrap_err().code(), Code::InvalidArgument);
    }
    let both = v1::ProduceRequest { batch: good.clone(), ..produce_to("", &["x"]) };
    assert_fails(soon(log.produce(both)).await, Code::InvalidArgument, reason::INVALID_REQUEST);
    let idempotence = Some(v1::Idempotence { producer_id: 1, ..v1::Idempotence::default() });
    let both = v1::ProduceRequest { idempotence, ..produce_batch(good) };
    assert_fails(soon(log.produce(both)).await, Code::InvalidArgument, reason::INVALID_REQUEST);

    let follow = v1::ConsumeRequest { max_bytes: 1 << 20, ..consume_from("", 0) };
    let readable = soon(log.consume(follow)).await;
    assert!(readable.is_ok() || readable.unwrap_err().code() == Code::NotFound);
}
