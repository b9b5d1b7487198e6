//! Record batches in the Kafka RecordBatch v2 layout.
//!
//! Source: <https://kafka.apache.org/documentation/#recordbatch>. All integers are big-endian.
//!
//! ```text
//!  0  base offset             i64   stamped by the leader
//!  8  batch length            i32   bytes after this field
//! 12  partition leader epoch  i32   stamped by the leader: the low 31 bits of the term
//! 16  magic                   i8    2
//! 17  CRC-32C                 u32   of everything from `attributes` to the end
//! 21  attributes              i16   bits 0-2 compression; the others 0
//! 23  last offset delta       i32   records count - 1
//! 27  base timestamp          i64   Unix milliseconds, when the first record was created
//! 35  max timestamp           i64
//! 43  producer id             i64   -1: none
//! 51  producer epoch          i16
//! 53  base sequence           i32
//! 57  records count           i32
//! 61  records, compressed together if the attributes say so
//! ```
//!
//! Promises: whatever [`encode`](BatchBuilder) makes, [`BatchHeader::verify`] accepts and
//! [`records`] gives back; no input makes them panic or allocate more than the limits allow.
//!
//! Left out: control and transactional batches, the older magics, gzip and snappy. They are
//! refused.

mod compression;
mod decode;
mod encode;
mod header;
mod varint;

pub use compression::Compression;
pub use decode::{records, validate};
pub use encode::BatchBuilder;
pub use header::{BatchError, BatchHeader, HEADER_BYTES, ProducerStamp, STAMP_BYTES, stamp};
