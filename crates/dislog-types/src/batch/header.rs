//! The fixed 61 bytes that open a batch.

use super::compression::Compression;
use crate::checksum::crc32c;
use crate::limits::{BATCH_BYTES_MAX, BATCH_PARTS_MAX, BATCH_RECORDS_MAX, RECORD_BYTES_MAX};

/// The bytes of a batch before its records.
pub const HEADER_BYTES: usize = 61;

/// The bytes at the start of a batch that the leader stamps and the batch's CRC leaves out.
pub const STAMP_BYTES: usize = 16;

const MAGIC: u8 = 2;
const LENGTH_END: usize = 12;
const CRC_START: usize = 21;
const COMPRESSION_BITS: i16 = 0b111;
const TERM_MASK: u32 = 0x7fff_ffff;

/// Why bytes are not a batch, or a batch is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than a batch, or than its length field says, or more.
    #[error("the batch has {actual} bytes where its layout needs {needed}")]
    Length {
        /// Bytes that the layout or the length field asks for.
        needed: usize,
        /// Bytes there are.
        actual: usize,
    },
    /// More bytes than a batch may have.
    #[error("the batch has {0} bytes, the limit is {BATCH_BYTES_MAX}")]
    TooLarge(usize),
    /// More records and headers than a batch may have.
    #[error("the batch has more than {BATCH_PARTS_MAX} records and headers: send several")]
    Parts,
    /// Another version of the layout.
    #[error("the batch has magic {0}, only 2 is supported")]
    Magic(u8),
    /// The bytes are not those that were checksummed.
    #[error("the batch's checksum is {stored:#010x}, its bytes have {computed:#010x}")]
    Checksum {
        /// What the batch says.
        stored: u32,
        /// What its bytes give.
        computed: u32,
    },
    /// Attribute bits that are not supported.
    #[error(
        "the batch has attributes {0:#06x}: only lz4 and zstd compression are supported, no \
         control or transactional batches"
    )]
    Attributes(i16),
    /// No records, too many, or counts that contradict each other.
    #[error("the batch says {count} records and last offset delta {last_offset_delta}")]
    Count {
        /// The records count field.
        count: i32,
        /// The last offset delta field.
        last_offset_delta: i32,
    },
    /// Producer fields that contradict each other.
    #[error(
        "the batch has producer id {id}, epoch {epoch}, sequence {sequence}; give all three or \
         -1 each"
    )]
    Producer {
        /// The producer id field.
        id: i64,
        /// The producer epoch field.
        epoch: i16,
        /// The base sequence field.
        sequence: i32,
    },
    /// Compressed data that does not decompress, or to too much.
    #[error("the batch's {0} data does not decompress within the limit")]
    Compressed(&'static str),
    /// A record that is not laid out right.
    #[error("record {number} of the batch is malformed: {what}")]
    Record {
        /// Which record, from 0.
        number: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A record with more content than a record may have.
    #[error("record {number} of the batch has {bytes} bytes, the limit is {RECORD_BYTES_MAX}")]
    RecordTooLarge {
        /// Which record, from 0.
        number: usize,
        /// Bytes of value, key and headers.
        bytes: usize,
    },
    /// Bytes after the last record.
    #[error("the batch has {0} bytes after its last record")]
    Trailing(usize),
}

/// Names a batch of an idempotent producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerStamp {
    /// Chosen at random by the producer, never negative.
    pub id: i64,
    /// Raised by the producer to start its sequence again, never negative.
    pub epoch: i16,
    /// Sequence of the batch's first record, never negative.
    pub sequence: i32,
}

/// The header of a batch, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record; meaningful once the leader stamped it.
    pub base_offset: u64,
    /// The term it was appended in, its low 31 bits; meaningful once the leader stamped it.
    pub term: u64,
    /// Bytes of the whole batch.
    pub batch_bytes: usize,
    /// How the records are compressed.
    pub compression: Compression,
    /// When the first record was created, Unix milliseconds.
    pub base_timestamp_ms: i64,
    /// When the youngest record was created, Unix milliseconds.
    pub max_timestamp_ms: i64,
    /// Whose batch it is, if its producer wants retries to be safe.
    pub producer: Option<ProducerStamp>,
    /// How many records it has, at least one.
    pub record_count: u32,
}

impl BatchHeader {
    /// Decodes the header of the batch that `bytes` starts with and checks its fields, not its
    /// checksum. Bytes beyond the batch are allowed; `batch_bytes` tells where it ends.
    pub fn parse(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        if bytes.len() < HEADER_BYTES {
            return Err(BatchError::Length { needed: HEADER_BYTES, actual: bytes.len() });
        }
        let batch_bytes = usize::try_from(i32_at(bytes, 8)).unwrap_or(0) + LENGTH_END;
        if batch_bytes > BATCH_BYTES_MAX {
            return Err(BatchError::TooLarge(batch_bytes));
        }
        if batch_bytes < HEADER_BYTES {
            return Err(BatchError::Length { needed: HEADER_BYTES, actual: batch_bytes });
        }
        if bytes[16] != MAGIC {
            return Err(BatchError::Magic(bytes[16]));
        }
        let attributes = i16_at(bytes, 21);
        let compression = match attributes & !COMPRESSION_BITS {
            0 => Compression::from_bits(attributes & COMPRESSION_BITS),
            _ => None,
        };
        Ok(BatchHeader {
            base_offset: u64::from_be_bytes(array_at(bytes, 0)),
            term: u64::from(u32::from_be_bytes(array_at(bytes, 12)) & TERM_MASK),
            batch_bytes,
            compression: compression.ok_or(BatchError::Attributes(attributes))?,
            base_timestamp_ms: i64_at(bytes, 27),
            max_timestamp_ms: i64_at(bytes, 35),
            producer: parse_producer(bytes)?,
            record_count: parse_count(bytes)?,
        })
    }

    /// Decodes the header of the batch that `bytes` consists of, and checks the checksum.
    pub fn verify(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        let header = BatchHeader::parse(bytes)?;
        if header.batch_bytes != bytes.len() {
            return Err(BatchError::Length { needed: header.batch_bytes, actual: bytes.len() });
        }
        let stored = u32::from_be_bytes(array_at(bytes, 17));
        let computed = crc32c(&bytes[CRC_START..]);
        if stored != computed {
            return Err(BatchError::Checksum { stored, computed });
        }
        Ok(header)
    }
}

/// Stamps where a batch stands: the fields its checksum leaves out.
///
/// # Panics
/// If `batch` is shorter than a batch header: only verified batches are stamped.
pub fn stamp(batch: &mut [u8], base_offset: u64, term: u64) {
    assert!(batch.len() >= HEADER_BYTES, "only a verified batch is stamped");
    let epoch = u32::try_from(term & u64::from(TERM_MASK)).expect("31 bits fit 32");
    batch[0..8].copy_from_slice(&base_offset.to_be_bytes());
    batch[12..16].copy_from_slice(&epoch.to_be_bytes());
}

/// Fills the header of a batch whose records follow it in `batch`, checksum included.
pub(super) fn write_header(batch: &mut [u8], header: &BatchHeader) {
    let producer = header.producer.unwrap_or(ProducerStamp { id: -1, epoch: -1, sequence: -1 });
    let length = i32::try_from(batch.len() - LENGTH_END).expect("the builder bounds a batch");
    let count = i32::try_from(header.record_count).expect("the builder bounds the count");
    stamp(batch, header.base_offset, header.term);
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[16] = MAGIC;
    batch[21..23].copy_from_slice(&header.compression.to_bits().to_be_bytes());
    batch[23..27].copy_from_slice(&(count - 1).to_be_bytes());
    batch[27..35].copy_from_slice(&header.base_timestamp_ms.to_be_bytes());
    batch[35..43].copy_from_slice(&header.max_timestamp_ms.to_be_bytes());
    batch[43..51].copy_from_slice(&producer.id.to_be_bytes());
    batch[51..53].copy_from_slice(&producer.epoch.to_be_bytes());
    batch[53..57].copy_from_slice(&producer.sequence.to_be_bytes());
    batch[57..61].copy_from_slice(&count.to_be_bytes());
    let crc = crc32c(&batch[CRC_START..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

fn parse_producer(bytes: &[u8]) -> Result<Option<ProducerStamp>, BatchError> {
    let (id, epoch, sequence) = (i64_at(bytes, 43), i16_at(bytes, 51), i32_at(bytes, 53));
    match (id, epoch, sequence) {
        (-1, -1, -1) => Ok(None),
        (0.., 0.., 0..) => Ok(Some(ProducerStamp { id, epoch, sequence })),
        _ => Err(BatchError::Producer { id, epoch, sequence }),
    }
}

fn parse_count(bytes: &[u8]) -> Result<u32, BatchError> {
    let (count, last_offset_delta) = (i32_at(bytes, 57), i32_at(bytes, 23));
    let in_range = count > 0 && count as usize <= BATCH_RECORDS_MAX;
    if !in_range || last_offset_delta != count - 1 {
        return Err(BatchError::Count { count, last_offset_delta });
    }
    Ok(count.unsigned_abs())
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the range has N bytes")
}

fn i16_at(bytes: &[u8], at: usize) -> i16 {
    i16::from_be_bytes(array_at(bytes, at))
}

fn i32_at(bytes: &[u8], at: usize) -> i32 {
    i32::from_be_bytes(array_at(bytes, at))
}

fn i64_at(bytes: &[u8], at: usize) -> i64 {
    i64::from_be_bytes(array_at(bytes, at))
}
