//! The log of one partition on disk.
//!
//! The words: a *log* is a list of *segments*; a segment is a *store* (the truth: frames, appended)
//! and an *index* (a hint: rows derived from the store, memory-mapped). Every segment but the last
//! is *sealed*; the last is *active*. A *frame* is one Raft entry; frames of kind *batch* hold
//! records, which have *offsets*.
//!
//! ```text
//!            start_offset                    durable            end
//!                 │                             │                │
//!  ┌──────────────┼──────┐┌─────────────────────┼───────┐ ┌ ─ ─ ─┐
//!  │ sealed segment      ││ active segment      │       │  staged
//!  └──────────────┼──────┘└─────────────────────┼───────┘ └ ─ ─ ─┘
//! ```
//!
//! Promises: what [`Log::flush`] said is durable survives anything but damage, and damage is
//! reported, never skipped; offsets are dense; a record at an offset never changes; no bytes on
//! disk make it panic.
//!
//! ```
//! use std::sync::Arc;
//! use dislog_log::{Config, Log, fs::RealFs};
//! use dislog_types::{BatchBuilder, Compression, Record};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let temp = tempfile::tempdir()?;
//! # let dir = temp.path().join("log");
//! let (log, _recovery) = Log::open(Arc::new(RealFs), &dir, Config::default())?;
//! let mut batch = BatchBuilder::new();
//! assert!(batch.push(&Record::new("hello")));
//! let appended = log.append(batch.finish(Compression::None, None), 1_700_000_000_000)?;
//! let frames = log.read(appended.base_offset, log.bounds().end_offset, 1 << 20)?;
//! assert_eq!(frames[0].record_count, 1);
//! # Ok(())
//! # }
//! ```
//!
//! Left out: consensus, the network, async. `dislog-cluster` drives this crate from its threads;
//! embedded, it is driven by [`Log::append`].

mod checkpoint;
mod error;
mod frame;
pub mod fs;
mod index;
mod log;
mod open;
mod open_segments;
mod read;
mod recovery;
mod segment;
mod store;
mod tail;
mod verify;
mod writer;

pub use checkpoint::Checkpoint;
pub use error::{Damage, LogError, ReadError};
pub use frame::{FRAME_HEADER_BYTES, Frame, Kind, PAYLOAD_BYTES_MAX};
pub use log::{
    Appended, Bounds, Config, Log, LogStart, Recovery, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN,
    SealedSegment, trim_payload,
};
pub use verify::{Finding, FindingKind, Report, verify};
