//! Every limit that more than one crate must agree on, with its reason.

/// The most bytes one record batch may have, compressed, header included. A batch is held in memory
/// whole on its way through a node, and it is one frame on disk.
pub const BATCH_BYTES_MAX: usize = 8 << 20;

/// The most bytes the records of one batch may have once decompressed: bounds what a small hostile
/// batch can make a reader allocate.
pub const BATCH_DECOMPRESSED_BYTES_MAX: usize = 32 << 20;

/// The most records in one batch. Each needs at least seven bytes, so this is generous for
/// [`BATCH_DECOMPRESSED_BYTES_MAX`] and keeps offset deltas far from 32 bits.
pub const BATCH_RECORDS_MAX: usize = 1 << 20;

/// The most records and headers together in one batch that is made or taken in: what a small
/// hostile batch can make a reader allocate beside contents. Each takes about a hundred bytes of
/// memory.
pub const BATCH_PARTS_MAX: usize = 1 << 17;

/// The most bytes one record may have: value, key and headers together. It fits one batch with room
/// for the framing.
pub const RECORD_BYTES_MAX: usize = BATCH_BYTES_MAX - (64 << 10);

/// The most headers on one record.
pub const RECORD_HEADERS_MAX: usize = 1_000;

/// The most characters in a topic name: it is a directory name, to which partition numbers are
/// added.
pub const TOPIC_NAME_LEN_MAX: usize = 200;

/// The most partitions one topic may have.
pub const TOPIC_PARTITIONS_MAX: u32 = 1_024;

/// How many batches of a producer are remembered per partition. A retry of any of them gets its
/// first answer, so a producer may have this many requests in flight on one partition.
pub const PRODUCER_BATCHES_REMEMBERED: usize = 64;

const _: () = assert!(RECORD_BYTES_MAX < BATCH_BYTES_MAX);
const _: () = assert!(BATCH_PARTS_MAX <= BATCH_RECORDS_MAX);
const _: () = assert!(BATCH_BYTES_MAX <= BATCH_DECOMPRESSED_BYTES_MAX);
const _: () = assert!(BATCH_DECOMPRESSED_BYTES_MAX < i32::MAX as usize);
