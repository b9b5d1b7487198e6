//! The words of Dislog: topic names, records and record batches, limits, time.
//!
//! Everything here is plain data and pure functions. A [`batch`] is the one form records
//! have on the wire, on disk and in the hands of a reader.
//!
//! Left out on purpose: frames, files and Raft (`dislog-log`, `dislog-cluster`), and every network
//! message (`dislog-proto`).

pub mod batch;
pub mod checksum;
pub mod limits;
pub mod name;
pub mod record;
pub mod time;

pub use batch::{BatchBuilder, BatchError, BatchHeader, Compression};
pub use name::{NameError, PartitionId, TopicName};
pub use record::{Header, Record};
