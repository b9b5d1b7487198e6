//! Batches against their own promises, and against another implementation of the format.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use bytes::Bytes;
use dislog_types::batch::{ProducerStamp, records, stamp, validate};
use dislog_types::limits::{
    BATCH_BYTES_MAX, BATCH_PARTS_MAX, RECORD_BYTES_MAX, RECORD_HEADERS_MAX,
};
use dislog_types::{BatchBuilder, BatchError, BatchHeader, Compression, Header, Record};
use kafka_protocol::records::RecordBatchDecoder;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

const CODECS: [Compression; 3] = [Compression::None, Compression::Lz4, Compression::Zstd];

fn any_bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..200).prop_map(Bytes::from)
}

fn any_record() -> impl Strategy<Value = Record> {
    let header = ("[a-z]{0,8}", any_bytes()).prop_map(|(key, value)| Header { key, value });
    let created = prop_oneof![Just(0), 1_600_000_000_000..1_800_000_000_000i64];
    (option::of(any_bytes()), any_bytes(), vec(header, 0..4), created)
        .prop_map(|(key, value, headers, created_ms)| Record { key, value, headers, created_ms })
}

fn any_producer() -> impl Strategy<Value = Option<ProducerStamp>> {
    option::of((0..i64::MAX, 0..i16::MAX, 0..i32::MAX))
        .prop_map(|stamp| stamp.map(|(id, epoch, sequence)| ProducerStamp { id, epoch, sequence }))
}

fn build(records: &[Record], compression: Compression, producer: Option<ProducerStamp>) -> Bytes {
    let mut builder = BatchBuilder::new();
    for record in records {
        assert!(builder.push(record));
    }
    builder.finish(compression, producer).freeze()
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(
        sent in vec(any_record(), 1..20),
        producer in any_producer(),
        base_offset in 0..u64::MAX / 2,
    ) {
        for compression in CODECS {
            let mut batch = build(&sent, compression, producer).to_vec();
            stamp(&mut batch, base_offset, 5);
            let batch = Bytes::from(batch);
            let header = BatchHeader::verify(&batch).unwrap();
            prop_assert_eq!(header.base_offset, base_offset);
            prop_assert_eq!(header.record_count as usize, sent.len());
            prop_assert_eq!(header.producer, producer);
            prop_assert_eq!(&records(&header, &batch).unwrap(), &sent);
            prop_assert!(validate(&header, &batch).is_ok());
        }
    }

    /// The other implementation keeps one header per key, so keys are made unlike each other here.
    #[test]
    fn another_implementation_reads_the_same(
        sent in vec(any_record(), 1..20),
        producer in any_producer(),
        base_offset in 0..i64::MAX / 2,
    ) {
        let mut sent = sent;
        for record in &mut sent {
            for (number, header) in record.headers.iter_mut().enumerate() {
                header.key.push_str(&number.to_string());
            }
        }
        let mut batch = build(&sent, Compression::None, producer).to_vec();
        stamp(&mut batch, base_offset.cast_unsigned(), 7);
        let decoded = RecordBatchDecoder::decode(&mut Bytes::from(batch)).unwrap();
        prop_assert_eq!(decoded.records.len(), sent.len());
        for (number, (theirs, ours)) in decoded.records.iter().zip(&sent).enumerate() {
            prop_assert_eq!(theirs.offset, base_offset + number as i64);
            prop_assert_eq!(theirs.timestamp, ours.created_ms);
            prop_assert_eq!(&theirs.key, &ours.key);
            prop_assert_eq!(theirs.value.as_ref(), Some(&ours.value));
            prop_assert_eq!(theirs.partition_leader_epoch, 7);
            prop_assert_eq!(theirs.producer_id, producer.map_or(-1, |p| p.id));
            let headers: Vec<(String, Bytes)> = theirs
                .headers
                .iter()
                .map(|(key, value)| (key.to_string(), value.clone().unwrap_or_default()))
                .collect();
            let expected: Vec<(String, Bytes)> =
                ours.headers.iter().map(|h| (h.key.clone(), h.value.clone())).collect();
            prop_assert_eq!(headers, expected);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..300)) {
        if let Ok(header) = BatchHeader::parse(&bytes) {
            let bytes = Bytes::from(bytes);
            prop_assert_eq!(validate(&header, &bytes), records(&header, &bytes).map(drop));
        }
    }

    /// With the checksum made right, so that everything behind it is reached.
    #[test]
    fn no_checksummed_bytes_make_it_panic(
        sent in vec(any_record(), 1..5),
        position in 21usize..400,
        byte in any::<u8>(),
        codec in 0..3usize,
    ) {
        let mut batch = build(&sent, CODECS[codec], None).to_vec();
        let len = batch.len();
        batch[21 + position % (len - 21)] = byte;
        let crc = dislog_types::checksum::crc32c(&batch[21..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
        if let Ok(header) = BatchHeader::verify(&batch) {
            let batch = Bytes::from(batch);
            prop_assert_eq!(validate(&header, &batch), records(&header, &batch).map(drop));
        }
    }
}

#[test]
fn every_flipped_bit_behind_the_stamp_is_noticed() {
    let batch = build(&[Record::new("value"), Record::new("another")], Compression::None, None);
    for bit in 0..batch.len() * 8 {
        let stamped = bit / 8 < 8 || (12..16).contains(&(bit / 8));
        let mut flipped = batch.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(BatchHeader::verify(&flipped).is_ok(), stamped, "bit {bit}");
    }
}

#[test]
fn a_builder_refuses_what_would_pass_the_limits_and_stays_usable() {
    let mut builder = BatchBuilder::new();
    assert!(!builder.push(&Record::new(vec![0; BATCH_BYTES_MAX])));
    assert_eq!(builder.record_count(), 0);
    assert!(builder.push(&Record::new(vec![0; RECORD_BYTES_MAX])));
    assert!(!builder.push(&Record::new(vec![0; 1 << 20])));
    assert!(builder.push(&Record::new("small")));
    let batch = builder.finish(Compression::None, None).freeze();
    assert!(batch.len() <= BATCH_BYTES_MAX);
    assert_eq!(BatchHeader::verify(&batch).unwrap().record_count, 2);
}

#[test]
fn a_record_that_is_too_large_once_decompressed_is_not_valid() {
    let mut batch = build(&[Record::new(vec![0; 1_000])], Compression::Zstd, None).to_vec();
    // A record of 9 MiB of zeros: attributes, both deltas, no key, the value, no headers.
    let value_bytes = 9 << 20;
    let mut body = vec![0, 0, 0, 1];
    body.extend(zigzag(value_bytes));
    body.resize(body.len() + value_bytes, 0);
    body.push(0);
    let mut record = zigzag(body.len());
    record.append(&mut body);
    batch.truncate(61);
    batch.extend(zstd::bulk::compress(&record, 1).unwrap());
    let batch = sealed(batch);
    let header = BatchHeader::verify(&batch).unwrap();
    assert_eq!(records(&header, &batch).unwrap()[0].value.len(), value_bytes);
    assert!(matches!(validate(&header, &batch), Err(BatchError::RecordTooLarge { number: 0, .. })));
}

#[test]
fn many_empty_headers_are_too_many() {
    let mut builder = BatchBuilder::new();
    let header = Header { key: String::new(), value: Bytes::new() };
    let record = Record { headers: vec![header; RECORD_HEADERS_MAX], ..Record::new("") };
    while builder.push(&record) {}
    let count = BATCH_PARTS_MAX / (RECORD_HEADERS_MAX + 1);
    assert_eq!(builder.record_count() as usize, count);
    let fitting = builder.finish(Compression::Zstd, None).freeze();
    assert_eq!(validate(&BatchHeader::verify(&fitting).unwrap(), &fitting), Ok(()));

    // The same and one more, from a producer that does not count.
    let all: Vec<u8> = (0..=count)
        .flat_map(|number| {
            let mut body = vec![0, 0];
            body.extend(zigzag(number));
            body.extend([1, 0]);
            body.extend(zigzag(RECORD_HEADERS_MAX));
            body.resize(body.len() + 2 * RECORD_HEADERS_MAX, 0);
            [zigzag(body.len()), body].concat()
        })
        .collect();
    let mut batch = fitting[..61].to_vec();
    batch[23..27].copy_from_slice(&(count as u32).to_be_bytes());
    batch[57..61].copy_from_slice(&(count as u32 + 1).to_be_bytes());
    batch.extend(zstd::bulk::compress(&all, 1).unwrap());
    let batch = sealed(batch);
    let header = BatchHeader::verify(&batch).unwrap();
    assert_eq!(records(&header, &batch).unwrap().len(), count + 1);
    assert_eq!(validate(&header, &batch), Err(BatchError::Parts));
}

/// A batch made by hand, with its length and checksum put right.
fn sealed(mut batch: Vec<u8>) -> Bytes {
    let length = (batch.len() - 12) as u32;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = dislog_types::checksum::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    Bytes::from(batch)
}

/// `value` as Kafka writes lengths.
fn zigzag(value: usize) -> Vec<u8> {
    let mut rest = value << 1;
    let mut out = Vec::new();
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
    out
}

#[test]
fn a_small_batch_that_decompresses_to_too_much_is_refused() {
    for compression in [Compression::Lz4, Compression::Zstd] {
        // Eight batches' worth of zeros, compressed outside of the builder's limit.
        let zeros = vec![0; dislog_types::limits::BATCH_DECOMPRESSED_BYTES_MAX + 1];
        let packed = match compression {
            Compression::Zstd => zstd::bulk::compress(&zeros, 1).unwrap(),
            _ => {
                let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
                std::io::Write::write_all(&mut encoder, &zeros).unwrap();
                encoder.finish().unwrap()
            }
        };
        let mut batch = build(&[Record::new(vec![0; 1_000])], compression, None).to_vec();
        batch.truncate(61);
        batch.extend_from_slice(&packed);
        let batch = sealed(batch);
        let header = BatchHeader::verify(&batch).unwrap();
        let refused = records(&header, &batch).unwrap_err();
        assert!(matches!(refused, BatchError::Compressed(_)), "{refused}");
    }
}
