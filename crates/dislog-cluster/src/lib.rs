//! Partitions on Raft: what stands between the log on disk and the network's edge.
//!
//! ```text
//!   Cluster ──► metadata: which topics there are            (a partition itself)
//!      │            │
//!      │            └─► reconciler: opens, ends, removes partitions
//!      ▼
//!   Partition ─ append ─► driver ─► sequencer ─► Raft ─► log ─► state machine
//!        └───── read ───► log, up to the committed offset
//! ```
//!
//! A [`Cluster`] is this node's part of it all; a [`Partition`] is one log that can be appended to
//! and read. Both are cheap handles. `docs/produce.md` and `docs/consume.md` follow a record
//! through, step by step; the steps stand as comments in the code.
//!
//! Promises: an acknowledged append is on stable storage on a majority of the replicas; readers see
//! committed records only; every error says whether anything was appended; nothing idle costs
//! anything.
//!
//! Left out: the network and who may do what (`dislog-server`), and what a log is on disk
//! (`dislog-log`). For now a cluster is one node.

#![forbid(unsafe_code)]

mod atomic_file;
mod cluster;
mod discovery;
mod error;
mod metadata;
mod node;
mod node_file;
mod partition;
mod partition_dir;
mod peers;
mod raft;
mod removals;
mod settings;
#[cfg(feature = "sim")]
pub mod sim;

pub use cluster::{Cluster, Members, NodeInfo};
pub use error::{AppendError, OpenError, ReadError, TopicError};
pub use metadata::tokens::{TOKEN_NAME_BYTES_MAX, TOKENS_MAX, Token, TokenDigest};
pub use partition::{
    Append, Appended, Counters, Partition, PendingAppend, Progress, Status, StoredBatch,
};
pub use peers::{
    Network, NoNetwork, PEER_FRAME_BYTES_MAX, Peer, PeerFrame, PeerFrameError, count_parts,
};
pub use settings::{
    Config, DISK_HEADROOM_BYTES, Discovery, REPLACE_AFTER_DEFAULT, REPLICAS_DEFAULT, REPLICAS_MAX,
    SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, Topic, TopicChange, TopicSettings,
};
